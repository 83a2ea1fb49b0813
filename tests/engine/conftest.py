"""`engine_toy`, the small problem that these tests and their helper processes train on, is importable here."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
