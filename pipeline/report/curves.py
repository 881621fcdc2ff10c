"""The pictures of what grows: ε over the steps, the lifetime budget over the runs, exposure over the copies of a secret."""

from __future__ import annotations

from typing import Any

import matplotlib.ticker
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes

from pipeline.report.figures import usable
from pipeline.report.formats import count, number, upper
from pipeline.report.svg import ACCENT, BAD, BAND, CONTROL, INK, MUTED, at, canvas, figure_at, inline, ticks

_DASHED, _DOTTED = (0, (3, 2)), (0, (1, 2))


def course(section: dict[str, Any]) -> Markup | None:
    """ε over the steps by both accountants: one drawn as a line, the other as rings on it."""
    rows = section["course"]
    if not rows:
        return None
    figure, (axis,) = canvas(220, (40, 40, 340, 164))
    steps = [row["steps"] for row in rows]
    axis.plot([0, *steps], [0, *(row["pld"] for row in rows)], color=ACCENT, linewidth=2.2)
    axis.plot(steps, [row["prv"] for row in rows], "o", color=INK, markersize=6, markerfacecolor="none", markeredgewidth=1.2)
    axis.set(xlim=(0, steps[-1] * 1.02), ylim=(0, 1.12 * max(max(row["pld"], row["prv"]) for row in rows)))
    place = {"xycoords": "axes fraction", "textcoords": "offset points", "ha": "right", "fontsize": 11.5}
    axis.annotate("by PLD", (1, 0), (-4, 26), color=ACCENT, fontweight="bold", **place)
    axis.annotate("by PRV (rings)", (1, 0), (-4, 8), color=INK, **place)
    axis.yaxis.set_major_locator(matplotlib.ticker.MaxNLocator(4))
    axis.tick_params(labelsize=11)
    axis.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(5, integer=True))
    axis.set_xlabel("steps", fontsize=11.5)
    axis.set_ylabel("ε", fontsize=11.5, labelpad=2)
    return inline(figure, "course", section["picture"]["title"], section["picture"]["alt"])


def identity(section: dict[str, Any]) -> Markup | None:
    """People by how many others share what remains of them; those who are alone stand out."""
    found = section["k_anonymity"]
    if not found:
        return None
    figure, (axis,) = canvas(190, (12, 40, 400, 126))
    rows = found["sizes"]
    places = np.arange(len(rows))
    colours = [BAD if row["size"] == "1" else CONTROL for row in rows]
    axis.bar(places, [row["units"] for row in rows], width=0.7, color=colours)
    for index, row in enumerate(rows):
        pointer = f"/scrubbing/k_anonymity/sizes/{index}/units"
        figure_at(axis, count(row["units"]), (index, row["units"]), (0, 4), pointer)
    axis.set(xlim=(-0.6, len(rows) - 0.4), xticks=places, yticks=[])
    axis.set_xticklabels(["alone" if row["size"] == "1" else row["size"] for row in rows], fontsize=11)
    axis.tick_params(axis="x", length=0)
    axis.spines["left"].set_visible(False)
    axis.set_xlabel("people alike", fontsize=11.5)
    return inline(figure, "identity", found["picture"]["title"], found["picture"]["alt"])


def budget(section: dict[str, Any]) -> Markup:
    """A column a run, what it added on what was spent before, under the cap; a single bar where the past is not known."""
    rows, cap = section["past"], section["epsilon_cap"]
    if not rows:
        return _bar(section)
    figure, (axis,) = canvas(220, (40, 40, 372, 170))
    places = np.arange(len(rows))
    wide = min(0.62, 0.1 * len(rows) + 0.12)
    axis.bar(places, [row["before"] for row in rows], width=wide, color=CONTROL)
    added = [max(0.0, row["composed"] - row["before"]) for row in rows]
    colours = [ACCENT if row["composed"] <= cap else BAD for row in rows]
    axis.bar(places, added, bottom=[row["before"] for row in rows], width=wide, color=colours)
    axis.axhline(cap, color=INK, linewidth=1.5)
    axis.set(xlim=(-0.6, max(len(rows) - 0.4, 1.6)), ylim=section["axis"], xticks=places)
    axis.set_xticklabels([f"run {row['number']}" if len(rows) < 8 else str(row["number"]) for row in rows], fontsize=11)
    axis.yaxis.set_major_locator(matplotlib.ticker.MaxNLocator(4))
    axis.tick_params(axis="x", length=0)
    axis.tick_params(axis="y", labelsize=11)
    place = {"textcoords": "offset points", "ha": "right", "fontsize": 11.5}
    axis.annotate("cap", (axis.get_xlim()[1], cap), (-2, -14), color=INK, **place)
    for index, row in enumerate(rows if len(rows) < 8 else rows[-1:], 0 if len(rows) < 8 else len(rows) - 1):
        pointer = f"/budget/past/{index}/composed"
        figure_at(axis, upper(row["composed"]), (index, row["composed"]), (0, 4), pointer)
    axis.set_ylabel("ε", fontsize=11.5, labelpad=2)
    return inline(figure, "budget", section["picture"]["title"], section["picture"]["alt"])


def _bar(section: dict[str, Any]) -> Markup:
    figure, (axis,) = canvas(58, (2, 24, 412, 30))
    cap, spent = section["epsilon_cap"], section["epsilon_spent"]
    axis.set(xlim=section["axis"], ylim=(0, 1), yticks=[])
    axis.barh(0.42, cap, height=0.44, color=BAND)
    axis.barh(0.42, min(spent, section["axis"][1]), height=0.44, color=ACCENT if spent <= cap else BAD)
    axis.plot([cap, cap], [0.05, 0.8], color=INK, linewidth=1.5)
    axis.spines[["left", "bottom"]].set_visible(False)
    ticks(axis)
    return inline(figure, "budget", section["picture"]["title"], section["picture"]["alt"])


def exposure(section: dict[str, Any]) -> Markup | None:
    """Shares by bit of exposure for planted and control secrets, the curve of chance, and below each secret as a tick."""
    inside, outside = section["series"]["planted"], section["series"]["control"]
    if not inside:
        return None
    figure, (axis, rug) = canvas(270, (40, 92, 372, 168), (40, 40, 372, 40))
    most = section["space_bits"]
    edges = np.arange(0, np.ceil(most) + 1)
    shares = np.histogram(np.clip(inside, 0, most), edges)[0] / len(inside)
    axis.bar(edges[:-1] + 0.5, shares, width=0.86, color=ACCENT)
    tallest = max(0.68, *shares)
    if outside:
        control = np.histogram(np.clip(outside, 0, most), edges)[0] / len(outside)
        axis.stairs(control, edges, color=CONTROL, linewidth=1.5)
        tallest = max(tallest, *control)
    curve = np.linspace(0, edges[-1], 200)
    # Under chance the exposure e has density ln2 · 2^-e; over one bit centred at e that is a share of 2^-e · (√2 − 1/√2).
    axis.plot(curve, 2.0**-curve * (2**0.5 - 2**-0.5), color=INK, linewidth=1.2, linestyle=(0, (3, 2)))
    axis.set(xlim=(0, edges[-1]), ylim=(0, tallest * 1.1), xticks=[], yticks=[0, 0.25, 0.5])
    axis.set_yticklabels(["0", "25 %", "50 %"])
    axis.tick_params(axis="y", length=0, labelsize=11)
    axis.spines["left"].set_visible(False)
    _exposure_words(axis, section)
    for level, (bits, colour) in enumerate(((outside, CONTROL), (inside, ACCENT))):
        rug.vlines(bits, level + 0.12, level + 0.88, color=colour, linewidth=1)
    if section["cutoff_bits"] is not None:
        for part in (axis, rug):
            part.axvline(section["cutoff_bits"], color=INK, linewidth=1, linestyle=(0, (1, 2)))
    rug.set(xlim=(0, edges[-1]), ylim=(0, 2), yticks=[], xticks=np.arange(0, edges[-1] + 1, 4))
    rug.spines["left"].set_visible(False)
    rug.tick_params(labelsize=11)
    rug.set_xlabel("exposure, bits", fontsize=11.5)
    return inline(figure, "exposure", section["picture"]["title"], section["picture"]["alt"])


def _exposure_words(axis: Axes, section: dict[str, Any]) -> None:
    place = {"xycoords": "axes fraction", "textcoords": "offset points", "ha": "left", "va": "top", "fontsize": 11.5}
    axis.annotate("planted", (0.3, 1), (0, -2), color=ACCENT, fontweight="bold", **place)
    axis.annotate("never planted (outline)", (0.3, 1), (0, -20), color=MUTED, **place)
    axis.annotate("chance (dashed)", (0.3, 1), (0, -38), color=INK, **place)
    if section["cutoff_bits"] is not None:
        label = axis.annotate(
            f"{number(section['cutoff_bits'])} bits,\nrare by chance",
            (section["cutoff_bits"], 0.62),
            (-6, 0),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha="right",
            va="top",
            fontsize=11,
            color=MUTED,
        )
        label.set_gid(at("/canaries/cutoff_bits"))


def ladder(section: dict[str, Any]) -> Markup | None:
    """Mean exposure by number of copies: this model and the control with intervals, what chance gives, what ε allows."""
    rows = [row for row in section["ladder"] if usable(row["bits"])]
    if not rows:
        return None
    figure, (axis,) = canvas(240, (40, 40, 372, 190))
    top = max(row["bits"]["ceiling"] or section["space_bits"] for row in rows)
    places = np.arange(len(rows))
    for key, colour, shift, mark in (("bits", ACCENT, -0.06, "o"), ("control_bits", BAD, 0.12, "D")):
        shown = [(place + shift, row[key]) for place, row in zip(places, rows, strict=True) if usable(row[key])]
        for place, found in shown:
            if found["low"] is not None and found["high"] is not None:
                axis.plot([place, place], [found["low"], found["high"]], color=colour, linewidth=2)
        axis.plot([place for place, _ in shown], [found["value"] for _, found in shown], mark, color=colour, markersize=6.5,
                  markeredgewidth=0)  # fmt: skip
    axis.axhline(1 / np.log(2), color=INK, linewidth=1.2, linestyle=_DASHED)
    axis.axhline(top, color=MUTED, linewidth=1, linestyle=_DOTTED)
    for place, row in zip(places, rows, strict=True):
        if usable(row["allowed"]):
            height = min(top, 1 / np.log(2) + row["allowed"]["value"])
            axis.plot([place - 0.28, place + 0.28], [height, height], color=INK, linewidth=2)
    axis.set(xlim=(-0.6, len(rows) - 0.4), ylim=(0, 1.14 * top), xticks=places)
    axis.set_xticklabels([_copies(row["copies"]) for row in rows], fontsize=11)
    axis.yaxis.set_major_locator(matplotlib.ticker.MaxNLocator(4))
    axis.tick_params(axis="x", length=0)
    axis.tick_params(axis="y", labelsize=11)
    axis.set_ylabel("bits", fontsize=11.5, labelpad=2)
    _ladder_words(axis, any(usable(row["control_bits"]) for row in rows), top)
    return inline(figure, "ladder", section["ladder_picture"]["title"], section["ladder_picture"]["alt"])


def _copies(times: int) -> str:
    return "not planted" if times == 0 else "1 copy" if times == 1 else f"{times} copies"


def _ladder_words(axis: Axes, controlled: bool, top: float) -> None:
    place = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "ha": "left", "fontsize": 11.5}
    axis.annotate("first of all candidates", (0, top), (4, -14), color=MUTED, **place)
    axis.annotate("this model", (0, 0.66 * top), (4, 0), color=ACCENT, fontweight="bold", **place)
    axis.annotate("chance (dashed); bars: chance and ε", (0, 0.66 * top), (4, -34 if controlled else -17), color=INK, **place)
    if controlled:
        axis.annotate("without privacy", (0, 0.66 * top), (4, -17), color=BAD, **place)
