"""How a page is made: the template environment, the one script that may run, and writing in one step."""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pointlift.engine.files import write_atomic
from pointlift.engine.run_folder import make
from pointlift.report import text

CLOUD_SCRIPTS = ("raster.js", "clouds.js", "viewer.js")


def render_page(template: str, scripts: Sequence[str], context: Mapping[str, Any]) -> str:
    """A page as text: one file, one inline script that the page's own policy allows, and no other.

    Args:
        template: A file of `report/templates` that extends `base.html.j2`.
        scripts: Files of `report/templates`, in order.
        context: What the template shows. Every value is escaped.
    """
    script = "\n".join(packaged(name) for name in scripts)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    page = environment().get_template(template)
    return page.render(context, style=Markup(packaged("style.css")), script=Markup(script), script_hash=digest)


def write_page(page: str, target: Path) -> Path:
    """Write a page to `target`, replaced in one step; folders are made.

    Raises:
        UsageError: The folder is a file, or the page is a folder.
        PointLiftError: The page cannot be written.
    """
    make(target.parent)
    write_atomic(target, page.encode("utf-8", errors="replace"), hint="Give another place, or free some space")
    return target


@functools.cache
def environment() -> Environment:
    """The template environment: every value is escaped, and a name that a template gets wrong is an error."""
    made = Environment(
        loader=PackageLoader("pointlift.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        percent=text.percent,
        points=text.points,
        sureness=text.sureness,
        count=text.count,
        short_count=text.short_count,
        number=text.number,
        duration=text.duration,
        capitalize_first=lambda words: words[:1].upper() + words[1:],
    )
    return made


def packaged(name: str) -> str:
    """A text file of `report/templates`."""
    return resources.files("pointlift.report").joinpath("templates", name).read_text("utf-8")
