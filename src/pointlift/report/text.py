"""Numbers as people read them: percentages, counts, durations, and names that fit a given width."""

from __future__ import annotations

import math
import unicodedata

THIN = "\u202f"  # narrow no-break space: keeps "88.1 %" on one line
MISSING = "not recorded"


def percent(share: float | None, decimals: int = 1) -> str:
    """`0.881` as `88.1 %`; None as an en dash."""
    return "–" if share is None else f"{share * 100:.{decimals}f}{THIN}%"


def sureness(probability: float) -> str:
    """A probability in whole percent that never claims certainty: `0.998` is `>99 %`."""
    return f">99{THIN}%" if probability > 0.99 else percent(probability, 0)


def points(difference: float | None, decimals: int = 1) -> str:
    """A difference of two shares in percentage points, with its sign."""
    if difference is None:
        return "–"
    sign = "+" if difference > 0 else "−" if difference < 0 else "±"
    return f"{sign}{abs(difference) * 100:.{decimals}f}"


def count(number: float | None) -> str:
    """`22771432` as `22,771,432`; None as an en dash."""
    return "–" if number is None else f"{number:,.0f}"


def short_count(number: float | None) -> str:
    """`22771432` as `22.8 M`; below a thousand the number itself."""
    if number is None:
        return "–"
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            return (
                f"{number / size:.3g}{THIN}{letter}" if number < 999.5 * size else f"{number / size:.0f}{THIN}{letter}"
            )
    return f"{number:.0f}"


def number(value: float | None) -> str:
    """A loss or a learning rate in about three digits."""
    if value is None:
        return "–"
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e4:
        digits = max(0, 2 - math.floor(math.log10(abs(value))))
        return f"{value:.{digits}f}"
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def tick(value: float, largest: float) -> str:
    """The label of a round number on an axis that reaches to `largest`."""
    if value == 0 or largest >= 0.01:
        return f"{value:g}"
    mantissa, exponent = f"{value:.3e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def moment(iso: str) -> str:
    """`2026-11-21T14:48:39+00:00` as `2026-11-21 14:48:39 UTC`; any other text as it is."""
    return iso.replace("T", " ", 1).removesuffix("Z").removesuffix("+00:00") + (
        f"{THIN}UTC" if iso.endswith(("Z", "+00:00")) else ""
    )


def duration(seconds: float | None) -> str:
    """`754.2` as `12 min 34 s`."""
    if seconds is None:
        return MISSING
    if seconds < 10:
        return f"{seconds:.1f}{THIN}s"
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole % 3600 // 60, whole % 60
    if hours:
        return f"{hours}{THIN}h {minutes}{THIN}min"
    return f"{minutes}{THIN}min {rest}{THIN}s" if minutes else f"{rest}{THIN}s"


def text_width(text: str, size: float) -> float:
    """An upper estimate of the width of `text` in a system sans-serif font of `size` pixels."""
    units = 0.0
    for char in text:
        if unicodedata.combining(char):
            continue
        if unicodedata.east_asian_width(char) in "WF":
            units += 1.0
        elif char in "il.,:;'|!jI ftr":
            units += 0.4
        elif char in "mwMW@%":
            units += 0.95
        else:
            units += 0.66 if char.isupper() else 0.6
    return units * size


def shorten(text: str, size: float, width: float) -> str:
    """`text`, cut with an ellipsis so that it is at most `width` pixels wide in a font of `size` pixels."""
    if text_width(text, size) <= width:
        return text
    while text and text_width(text + "…", size) > width:
        text = text[:-1]
    return text.rstrip() + "…"
