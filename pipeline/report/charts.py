"""The pictures of the report, drawn from its content and from nothing else.

pictures(content)["roc"]      # inline SVG, or None where its numbers were not measured
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import matplotlib
import matplotlib.ticker
import numpy as np
from markupsafe import Markup

from pipeline.report.curves import budget, course, exposure, identity, ladder
from pipeline.report.figures import usable
from pipeline.report.formats import count, number, percent, plain, show
from pipeline.report.svg import (
    ACCENT,
    BAD,
    BAND,
    CONTROL,
    GOOD,
    INK,
    MUTED,
    RULE,
    at,
    canvas,
    figure_at,
    inline,
    label,
    settings,
    ticks,
)

_STRIP = (260, 26)
_KINDS = 14  # that are drawn; the table beside has all


def pictures(content: dict[str, Any]) -> dict[str, Any]:
    """All pictures of a report: `gates` is a list, one strip a gate; the others are inline SVG or None."""
    with matplotlib.rc_context(settings()):
        return {
            "gates": [_gate(gate, index) for index, gate in enumerate(content["verdict"]["gates"])],
            "entities": _entities(content["scrubbing"]),
            "identity": identity(content["scrubbing"]),
            "course": course(content["training"]),
            "budget": budget(content["budget"]),
            "exposure": exposure(content["canaries"]),
            "ladder": ladder(content["canaries"]),
            "epsilon": _epsilon(content["epsilon"]),
            "roc": _roc(content["membership"]),
            "perplexity": _perplexity(content["utility"]),
            "answers": _answers(content["utility"].get("completions")),
        }


def _gate(gate: dict[str, Any], index: int) -> Markup:
    """One line: the allowed side shaded, the limit a tick, the interval a bar, the value a mark."""
    width, height = _STRIP
    figure, (axis,) = canvas(height, (5, 0, width - 10, height), width=width)
    start, end = gate["axis"]
    axis.set(xlim=(start, end), ylim=(-1, 1))
    axis.axis("off")
    axis.plot([start, end], [0, 0], color=RULE, linewidth=1)
    inside = (gate["limit"], end) if gate["rule"] == "at_least" else (start, gate["limit"])
    axis.plot(inside, [0, 0], color=BAND, linewidth=8)
    axis.plot([gate["limit"]] * 2, [-0.85, 0.85], color=INK, linewidth=1.5)
    if gate["value"] is not None:
        colour = GOOD if gate["passed"] else BAD
        ends = [gate["low"] if gate["low"] is not None else gate["value"], gate["high"] or gate["value"]]
        axis.plot(np.clip(ends, start, end), [0, 0], color=colour, linewidth=2.5)
        shape = {"marker": "o" if gate["passed"] else "D", "markersize": 8 if gate["passed"] else 7.5}
        axis.plot(*np.clip([gate["value"]], start, end), 0, color=colour, markeredgewidth=0, clip_on=False, **shape)
    return inline(figure, f"gate-{index}", gate["title"], gate["alt"])


def _entities(section: dict[str, Any]) -> Markup | None:
    """Kinds in rows: how many were replaced, and beside it recall on planted values with its lower bound."""
    rows = [row for row in section["entities"] if row["count"]][:_KINDS]
    if not rows:
        return None
    step, top, bottom = 22, 20, 22
    high = step * len(rows)
    figure, (bars, dots) = canvas(high + top + bottom, (138, bottom, 108, high), (302, bottom, 104, high))
    counts = [row["count"] for row in rows]
    bars.barh(range(len(rows)), counts, height=0.62, color=CONTROL)
    bars.set(xlim=(0, max(1, *counts)), ylim=(len(rows) - 0.5, -0.5))
    for index, row in enumerate(rows):
        label(bars, row["title"], index, 138)
        figure_at(bars, count(row["count"]), (row["count"], index), (5, 0), f"/scrubbing/entities/{index}/count")
        if row["recall"] is not None:
            dots.plot([row["low"], row["recall"]], [index, index], color=ACCENT, linewidth=2)
            dots.plot(row["recall"], index, "o", color=ACCENT, markersize=6, markeredgewidth=0, clip_on=False)
    worst = min((row["low"] for row in rows if row["low"] is not None), default=0)
    marks = [0.5, 0.75, 1] if worst >= 0.5 else [0, 0.5, 1]
    dots.set(xlim=(marks[0], 1), ylim=(len(rows) - 0.5, -0.5), xticks=marks)
    dots.set_xticklabels([f"{100 * mark:g}" + (" %" if mark == 1 else "") for mark in marks], fontsize=11)
    dots.vlines(marks, -0.5, len(rows) - 0.5, color=RULE, linewidth=0.8, zorder=0)
    for axis, name in ((bars, "replaced"), (dots, "recall, lower bound")):
        axis.set_title(name, loc="left", fontsize=11.5, color=MUTED, pad=6)
        axis.set_yticks([])
        axis.spines[["left", "bottom"]].set_visible(False)
    bars.set_xticks([])
    dots.tick_params(length=0)
    return inline(figure, "entities", section["picture"]["title"], section["picture"]["alt"])


def _epsilon(section: dict[str, Any]) -> Markup:
    """Four values of ε on one axis, a row each."""
    rows = [
        ("allowed by the policy", "allowed", INK, "|"),
        ("spent and claimed", "spent", INK, "o"),
        ("most this audit could prove", "reachable", CONTROL, "o"),
        ("proven by attack", "lower_bound", BAD if section["outcome"] == "violated" else ACCENT, "o"),
    ]
    figure, (axis,) = canvas(146, (168, 26, 218, 116))
    axis.set(xlim=section["axis"], ylim=(3.6, -0.6), yticks=[])
    for index, (title, key, colour, marker) in enumerate(rows):
        value = section[key]
        label(axis, title, index, 168)
        words = show(value, {"allowed": "plain", "spent": "upper"}.get(key, "lower"))
        figure_at(axis, words, (value or 0, index), (9, 0), f"/epsilon/{key}", fontsize=11.5)
        if value is not None:
            axis.plot([0, value], [index, index], color=RULE, linewidth=1, zorder=1)
            size = {"|": 14, "o": 7}[marker]
            edge = {"|": 2, "o": 0}[marker]
            axis.plot(value, index, marker, color=colour, markersize=size, markeredgewidth=edge, clip_on=False, zorder=2)
    axis.spines["left"].set_visible(False)
    ticks(axis)
    return inline(figure, "epsilon", section["picture"]["title"], section["picture"]["alt"])


def _roc(section: dict[str, Any]) -> Markup | None:
    """True against false positive rate, both logarithmic, from the smallest rate that the sample resolves."""
    curves = [(row["attack"], row["title"], np.asarray(row["points"], float)) for row in section["roc"]]
    bands = {row["attack"]: np.asarray(row["band"], float) for row in section["roc"] if row["band"]}
    if not curves:
        return None
    figure, (axis,) = canvas(320, (52, 44, 356, 268))
    seen = np.concatenate([points for _, _, points in curves])
    start = max(1e-4, min(0.01, seen[seen > 0].min()))
    axis.plot([start, 1], [start, 1], color=INK, linewidth=1.2, linestyle=(0, (3, 2)))
    styles = {"ratio": (ACCENT, 2.2, "-"), "loss": (CONTROL, 1.6, "-")}
    words = [("a coin", INK)]
    for attack, title, points in curves:
        colour, width, line = styles.get(attack, (MUTED, 1.2, (0, (1, 1.5))))
        points = points[(points > 0).all(axis=1)]
        if attack == "ratio" and attack in bands:
            rate, low, high = bands[attack].T
            axis.fill_between(
                rate, np.maximum(low, start / 10), np.maximum(high, start / 10), color=ACCENT, alpha=0.16, linewidth=0
            )
        axis.plot(points[:, 0], points[:, 1], color=colour, linewidth=width, linestyle=line, drawstyle="steps-post")
        words.append((title, MUTED if attack == "loss" else colour))
    axis.set(xscale="log", yscale="log", xlim=(start, 1), ylim=(start, 1.05))
    for level, (word, colour) in enumerate(reversed(words)):
        axis.annotate(
            word.lower(), (1, 0), (-4, 8 + 17 * level), xycoords="axes fraction", textcoords="offset points", ha="right",
            fontsize=11.5, color=colour,
        )  # fmt: skip
    for side in (axis.xaxis, axis.yaxis):
        side.set_major_locator(matplotlib.ticker.FixedLocator([1e-4, 1e-3, 1e-2, 1e-1, 1]))
        side.set_major_formatter(lambda value, _: f"{100 * value:g} %")
        side.set_minor_locator(matplotlib.ticker.NullLocator())
    axis.tick_params(labelsize=11)
    axis.set_xlabel("non-members accused", fontsize=11.5)
    axis.set_ylabel("members found", fontsize=11.5, labelpad=2)
    return inline(figure, "roc", section["picture"]["title"], section["picture"]["alt"])


def _perplexity(section: dict[str, Any]) -> Markup | None:
    """Bars from zero, base and tuned and what public text gave in between, with their intervals."""
    public = [("after public text", "public_perplexity", CONTROL)] if section.get("public_perplexity") else []
    rows = [("base model", "base_perplexity", CONTROL), *public, ("tuned model", "perplexity", ACCENT)]
    bars = [(title, section[key], f"/utility/{key}/value", colour) for title, key, colour in rows]
    return _bars("perplexity", section["picture"], bars, number)


def _answers(section: dict[str, Any] | None) -> Markup | None:
    """ROUGE-L of the answers of base and tuned model, and of the control where there is one."""
    if not section:
        return None
    row = section["rows"][1]
    titles = {"base": ("base model", CONTROL), "tuned": ("tuned model", ACCENT), "control": ("without privacy", CONTROL)}
    bars = [(title, row[who], f"/utility/completions/rows/1/{who}/value", colour)
            for who, (title, colour) in titles.items() if row[who] is not None]  # fmt: skip
    return _bars("answers", section["picture"], bars, percent)


def _bars(
    name: str, picture: dict[str, Any], rows: list[tuple[str, dict[str, Any] | None, str, str]], spell: Callable[[float], str]
) -> Markup | None:
    """Bars from zero with their intervals, of (title, figure, where it stands in the report, colour)."""
    shown = [(title, found, place, colour) for title, found, place, colour in rows if found is not None and usable(found)]
    if len(shown) < len(rows):
        return None
    high, left = 33 * len(rows) + 8, 84 if len(rows) == 2 else 118
    figure, (axis,) = canvas(high, (left, 4, 354 - left, high - 8))
    most = max(row["high"] or row["value"] for _, row, _, _ in shown) or 1
    axis.set(xlim=(0, most), ylim=(len(rows) - 0.5, -0.5))
    for index, (title, found, place, colour) in enumerate(shown):
        axis.barh(index, found["value"], height=0.56, color=colour)
        end = found["value"]
        if found["low"] is not None and found["high"] is not None:
            axis.plot([found["low"], found["high"]], [index, index], color=INK, linewidth=1.5)
            end = found["high"]
        label(axis, title, index, left)
        words = axis.annotate(spell(found["value"]), (end, index), (8, 0), textcoords="offset points", va="center")
        words.set_gid(at(place))
    axis.axis("off")
    return inline(figure, name, picture["title"], picture["alt"])


def trends(content: dict[str, Any]) -> dict[str, list[Markup]]:
    """For the page of all releases: by name, a small picture a gate, what was judged from version to version."""
    with matplotlib.rc_context(settings()):
        return {
            shelf["name"]: [_trend(gate, f"trend-{row}-{index}") for index, gate in enumerate(shelf["gates"])]
            for row, shelf in enumerate(content["shelves"])
        }


def _trend(gate: dict[str, Any], key: str) -> Markup:
    points = [point for point in gate["points"] if point["bound"] is not None]
    figure, (axis,) = canvas(40, (6, 6, 248, 28), width=260)
    values = [point["bound"] for point in points]
    span = [gate["limit"], *values]
    room = 0.15 * (max(span) - min(span)) or 0.1 * abs(gate["limit"]) or 1.0
    axis.set(xlim=(-0.5, max(0.5, len(points) - 0.5)), ylim=(min(span) - room, max(span) + room))
    axis.axis("off")
    low, high = (gate["limit"], max(span) + room) if gate["rule"] == "at_least" else (min(span) - room, gate["limit"])
    axis.axhspan(low, high, color=BAND, linewidth=0)
    axis.axhline(gate["limit"], color=INK, linewidth=1.2)
    inside = [value >= gate["limit"] if gate["rule"] == "at_least" else value <= gate["limit"] for value in values]
    axis.plot(range(len(values)), values, color=MUTED, linewidth=1.2)
    for place, (value, holds) in enumerate(zip(values, inside, strict=True)):
        axis.plot(place, value, "o" if holds else "D", color=GOOD if holds else BAD, markersize=6, markeredgewidth=0)
    said = ", ".join(f"version {point['version']} {show(point['bound'], gate['format'])}" for point in points) or "not measured"
    return inline(figure, key, gate["title"], f"{gate['title']} by version: {said}. Limit: {plain(gate['limit'])}.")
