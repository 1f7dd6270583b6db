"""Charts as SVG text inside the page: no script, the page's own font and colours, same bytes."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

# Inches at 72 points; text stays readable where a phone shows the whole width.
SIZE = (4.4, 2.7)
# What is drawn in these colours takes the page's, light or dark.
_THEME = {
    "#010101": "var(--ink)",
    "#020202": "var(--faint)",
    "#030303": "var(--blue)",
    "#040404": "var(--orange)",
    "#050505": "var(--grid)",
}
# The page gives size, font and joints.
_UNWANTED = (
    (r"<metadata>.*?</metadata>", ""),
    (r"<style type=.*?</style>", ""),
    (r"font-family: [^;]*; ", ""),
    (r'(?<=^<svg)([^>]*?) width="[^"]*"', r"\1"),
    (r'(?<=^<svg)([^>]*?) height="[^"]*"', r"\1"),
)
INK, FAINT, BLUE, ORANGE, GRID = _THEME


@dataclass(frozen=True)
class Line:
    """One curve with its name; `dots` are areas of points drawn instead, `dashed` breaks it."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    colour: str = BLUE
    dots: Sequence[float] = ()
    dashed: bool = False


@dataclass(frozen=True)
class Axes:
    """Name the axes; limits are (low, high), None where the data decide."""

    x: str
    y: str
    x_limits: tuple[float, float] | None = None
    y_limits: tuple[float, float] | None = None


def plot(key: str, lines: Sequence[Line], axes: Axes, *, at: float | None = None) -> str:
    """Return curves as one <svg>; `key` is the chart's own within the page, letters and digits.

    `at` marks a place on the x axis.
    """
    import matplotlib as mpl

    # Text stays text, and the names of parts depend on what is drawn alone.
    with mpl.rc_context():
        # Whatever the user's own settings are.
        mpl.rcdefaults()
        mpl.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": key, "text.parse_math": False}
        return _svg(key, _drawn(lines, axes, at))


def _drawn(lines: Sequence[Line], axes: Axes, at: float | None) -> Any:
    figure, place = _figure(axes)
    for line in lines:
        if line.dots:
            place.scatter(line.x, line.y, s=line.dots, color=line.colour, label=line.name)
            continue
        style = "--" if line.dashed else "-"
        place.plot(
            line.x, line.y, color=line.colour, label=line.name, linestyle=style, linewidth=1.6
        )
    if at is not None:
        place.axvline(at, color=FAINT, linewidth=1, linestyle=":")
    place.legend(frameon=False, fontsize=8, labelcolor=INK)
    return figure


def _figure(axes: Axes) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, layout="constrained")
    figure.patch.set_visible(False)
    place = figure.subplots()
    place.patch.set_visible(False)
    place.set_xlabel(axes.x, color=INK, fontsize=9)
    place.set_ylabel(axes.y, color=INK, fontsize=9)
    if axes.x_limits:
        place.set_xlim(*axes.x_limits)
    if axes.y_limits:
        place.set_ylim(*axes.y_limits)
    place.tick_params(colors=INK, labelsize=8)
    place.locator_params(nbins=6)
    place.grid(color=GRID, linewidth=0.6)
    for name, spine in place.spines.items():
        spine.set_visible(name in ("left", "bottom"))
        spine.set_color(FAINT)
    return figure, place


def _svg(key: str, figure: Any) -> str:
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    text = text[text.index("<svg") :].rstrip()
    for pattern, to in (
        *_UNWANTED,
        (r'\bid="', f'id="{key}-'),
        (r'(url\(|href=")#', rf"\1#{key}-"),
    ):
        text = re.sub(pattern, to, text, flags=re.DOTALL)
    for colour, variable in _THEME.items():
        text = text.replace(colour, variable)
    return text
