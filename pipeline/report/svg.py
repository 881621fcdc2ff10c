"""From a matplotlib figure to a small inline SVG: same bytes each time, no link, colours that follow the page's light or dark.

Colours are drawn as stand-ins and replaced by CSS variables; fonts stay text in the page's own face. Words of a picture that
state a figure carry `data-at`, a JSON pointer into the report's content, as figures of the page do.
"""

from __future__ import annotations

import html
import io
import re
from typing import Any

import matplotlib
import matplotlib.ticker
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

WIDTH = 420
_LONGEST = 28  # characters of a row's name

INK, MUTED, RULE, ACCENT, CONTROL, GOOD, BAD, BAND = (f"#0102{index:02x}" for index in range(3, 11))
_VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    RULE: "rule",
    ACCENT: "accent",
    CONTROL: "control",
    GOOD: "good",
    BAD: "bad",
    BAND: "band",
}
_SETTINGS = {
    "svg.fonttype": "none",
    "svg.hashsalt": "hushtune",
    "font.size": 12,
    "text.color": INK,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 1,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "lines.linewidth": 1.5,
    "lines.solid_capstyle": "butt",
}


def canvas(height: int, *boxes: tuple[int, int, int, int], width: int = WIDTH) -> tuple[Figure, list[Axes]]:
    """A figure of `width` × `height` CSS pixels and its axes, each box (left, bottom, width, height) in pixels."""
    figure = Figure(figsize=(width / 72, height / 72))
    FigureCanvasSVG(figure)
    axes = []
    for left, bottom, wide, high in boxes:
        axis = figure.add_axes((left / width, bottom / height, wide / width, high / height))
        axis.patch.set_visible(False)
        axes.append(axis)
    figure.patch.set_visible(False)
    return figure, axes


def settings() -> matplotlib.RcParams:
    """The defaults of matplotlib with ours on top, whatever the machine's own matplotlibrc says."""
    return matplotlib.RcParams({**matplotlib.rcParamsDefault, **_SETTINGS})


def at(pointer: str) -> str:
    """The group id that marks a text as stating the figure at `pointer`."""
    return f"at:{pointer}"


def figure_at(axis: Axes, words: str, place: tuple[float, float], offset: tuple[int, int], pointer: str, **style: Any) -> None:
    """Write the figure that stands at `pointer` of the report, `offset` points from a place in the axis's own units."""
    look = {"fontsize": 11, "color": MUTED, "ha" if offset[0] == 0 else "va": "center"} | style
    axis.annotate(words, place, offset, textcoords="offset points", **look).set_gid(at(pointer))


def label(axis: Axes, words: str, row: int, left: int) -> None:
    """Name a row at the picture's left edge, `left` pixels from the axis."""
    words = words if len(words) <= _LONGEST else words[: _LONGEST - 1] + "…"
    axis.annotate(words, (axis.get_xlim()[0], row), (-left, 0), textcoords="offset points", va="center", fontsize=11.5)


def ticks(axis: Axes) -> None:
    """Five plain marks under an axis, without strokes."""
    axis.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(5))
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.tick_params(axis="x", length=0, labelsize=11)


def inline(figure: Figure, key: str, title: str, alt: str) -> Markup:
    """The figure as an `<svg>` element for a page.

    Args:
        figure: what to draw.
        key: prefix of the ids in it; unique in the page.
        title: short name of the picture.
        alt: what it shows, in words, for those who do not see it.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    source = buffer.getvalue()
    size = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', source)
    body = source[source.index("<g id=") : source.rindex("</svg>")]
    body = _ids(body, key)
    body = re.sub(r"font-family: [^;\"]+; ?", "", body)
    body = re.sub(r' transform="rotate\(-0 [^"]*\)"', "", body)
    for colour, variable in _VARIABLES.items():
        body = body.replace(colour, f"var(--{variable})")
    body = re.sub(r"\s+", " ", body).replace("> <", "><")
    wide, high = size.groups() if size else (str(WIDTH), "100")
    words = f'<title id="{key}-title">{html.escape(title)}</title><desc id="{key}-alt">{html.escape(alt)}</desc>'
    return Markup(
        f'<svg role="img" aria-labelledby="{key}-title" aria-describedby="{key}-alt" viewBox="0 0 {wide} {high}" '
        f'width="{wide}" height="{high}">{words}{body}</svg>'
    )


def _ids(body: str, key: str) -> str:
    """Keep only ids that something refers to, made unique; scales get a class, stated figures their pointer."""
    used = set(re.findall(r'(?:xlink:href="#|url\(#)([\w.-]+)', body))

    def change(match: re.Match[str]) -> str:
        name = match[1]
        if name in used:
            return f' id="{key}-{name}"'
        if name.startswith("at:"):
            return f' data-at="{name.removeprefix("at:")}"'
        return ' class="scale"' if re.match(r"[xy]tick_", name) else ""

    body = re.sub(r' id="([^"]*)"', change, body)
    body = re.sub(r'xlink:href="#', f'href="#{key}-', body)
    return body.replace("url(#", f"url(#{key}-")
