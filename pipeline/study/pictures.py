"""The pictures of a study, drawn from its content and from nothing else, in the report's style."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import matplotlib.ticker
from markupsafe import Markup
from matplotlib.axes import Axes

from pipeline.report.svg import ACCENT, BAD, CONTROL, GOOD, INK, MUTED, canvas, inline, settings

_LINES = ((ACCENT, "o", "-"), (INK, "s", "-"), (MUTED, "^", "-"), (GOOD, "D", "-"), (CONTROL, "v", "-"))
_LEVELS = ((ACCENT, "o"), (INK, "s"), (GOOD, "^"), (MUTED, "v"))
_PLAIN = (BAD, "D")
_DASHED = (0, (3, 2))


def pictures(content: Mapping[str, Any]) -> dict[str, Markup | None]:
    """Inline SVG by name; None where nothing was measured."""
    with matplotlib.rc_context(settings()):
        return {
            "frontier": _frontier(content),
            "exposure": _exposure(content),
            "extraction": _extraction(content),
            "cost": _cost(content),
        }


def size(parameters: float) -> str:
    """A count of weights, short.

    >>> size(684_480), size(6_880_000), size(134_515_008)
    ('0.7 M', '6.9 M', '135 M')
    """
    millions = parameters / 1e6
    return f"{millions:.1f} M" if millions < 99.5 else f"{millions:.0f} M"


def _models(content: Mapping[str, Any]) -> list[tuple[str, int]]:
    """Names and sizes, the smallest first."""
    return list(dict.fromkeys((group["model"], group["parameters"]) for group in content["groups"]))


def _levels(content: Mapping[str, Any]) -> list[float | None]:
    """The ε of the study: no privacy first, then from loose to strict."""
    found = {group["epsilon"] for group in content["groups"]}
    return sorted(found, key=lambda epsilon: (epsilon is not None, -(epsilon or 0)))


def _look(content: Mapping[str, Any], epsilon: float | None) -> tuple[str, str]:
    private = [level for level in _levels(content) if level is not None]
    return _PLAIN if epsilon is None else _LEVELS[private.index(epsilon) % len(_LEVELS)]


def _at(content: Mapping[str, Any], model: str, epsilon: float | None) -> tuple[int, Mapping[str, Any]] | None:
    return next(((index, group) for index, group in enumerate(content["groups"])
                 if group["model"] == model and group["epsilon"] == epsilon), None)  # fmt: skip


def _name(epsilon: float | None) -> str:
    return "no DP" if epsilon is None else f"ε {epsilon:g}"


def _frontier(content: Mapping[str, Any]) -> Markup | None:
    """Perplexity (log scale) and the share of the gain kept, from strict to no privacy, a line a model."""
    levels, models = _levels(content)[::-1], _models(content)
    if not any(group["perplexity"] for group in content["groups"]):
        return None
    kept = any(group["kept"] is not None for group in content["groups"])
    boxes = [(46, 196, 268, 150), (46, 40, 268, 116)] if kept else [(46, 40, 268, 150)]
    figure, axes = canvas(374 if kept else 220, *boxes)
    ends: list[tuple[float, str, str]] = []
    for index, (model, parameters) in enumerate(reversed(models)):
        colour, mark, line = _LINES[index % len(_LINES)]
        found = [
            (place, one) for place, level in enumerate(levels) if (one := _at(content, model, level)) and one[1]["perplexity"]
        ]
        for place, (_, group) in found:
            ends_at = group["perplexity"]["low"], group["perplexity"]["high"]
            axes[0].plot([place, place], ends_at, color=colour, linewidth=1.5)
        values = [group["perplexity"]["value"] for _, (_, group) in found]
        axes[0].plot([place for place, _ in found], values, line, marker=mark, color=colour, markersize=6, markeredgewidth=0)
        if found:
            ends.append((found[-1][1][1]["perplexity"]["value"], f"{model}, {size(parameters)}", colour))
        if kept:
            shown = [(place, group["kept"]) for place, (_, group) in found if group["kept"] is not None]
            axes[1].plot(
                *zip(*shown, strict=True), line, marker=mark, color=colour, markersize=6, markeredgewidth=0
            ) if shown else None
    axes[0].set_yscale("log")
    axes[0].yaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
    axes[0].yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes[0].yaxis.set_minor_locator(matplotlib.ticker.NullLocator())
    axes[0].set_ylabel("perplexity", fontsize=11.5, labelpad=2)
    _end_words(axes[0], ends, len(levels) - 1)
    for axis in axes:
        axis.set_xlim(-0.3, len(levels) - 0.7)
        axis.set_xticks(range(len(levels)), [_name(level) for level in levels])
        axis.tick_params(labelsize=11)
    if kept:
        axes[1].yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
        axes[1].yaxis.set_major_locator(matplotlib.ticker.MaxNLocator(4))
        axes[1].set_ylabel("gain kept", fontsize=11.5, labelpad=2)
        axes[1].set_ylim(bottom=min(0, axes[1].get_ylim()[0]))
    return inline(figure, "frontier", "Privacy and utility", content["alts"]["frontier"])


def _end_words(axis: Axes, ends: Sequence[tuple[float, str, str]], last: int) -> None:
    """Name each line beside its end, far enough apart to be read."""
    taken: list[float] = []
    for value, words, colour in sorted(ends):
        place = (axis.transData.transform((last, value))[1] - axis.transAxes.transform((0, 0))[1]) * 72 / axis.figure.dpi
        place = max([place, *(one + 15 for one in taken[-1:])])
        taken.append(place)
        axis.annotate(
            words, (last, 0), (12, place), xycoords=("data", "axes fraction"), textcoords="offset points", va="center",
            fontsize=11.5, color=colour, annotation_clip=False,
        )  # fmt: skip


def _sizes(axis: Axes, models: Sequence[tuple[str, int]]) -> None:
    axis.set_xlim(-0.5, len(models) - 0.5)
    axis.set_xticks(range(len(models)), [size(parameters).replace(" M", "") for _, parameters in models])
    axis.tick_params(axis="x", length=0, labelsize=11)
    axis.tick_params(axis="y", labelsize=11)


def _marks(axis: Axes, content: Mapping[str, Any], read: Any) -> None:
    """One mark for each model and ε, with its interval; `read` gives {value, low, high} of a group, or None."""
    levels, models = _levels(content), _models(content)
    for row, level in enumerate(levels):
        colour, mark = _look(content, level)
        shift = 0.2 * (row - (len(levels) - 1) / 2)
        points = [(place + shift, found) for place, (model, _) in enumerate(models)
                  if (one := _at(content, model, level)) and (found := read(one[1]))]  # fmt: skip
        for place, found in points:
            if found.get("low") is not None:
                axis.plot([place, place], [found["low"], found["high"]], color=colour, linewidth=1.5)
        axis.plot([place for place, _ in points], [found["value"] for _, found in points], linestyle="none", marker=mark,
                  color=colour, markersize=5.5, markeredgewidth=0)  # fmt: skip


def _legend(figure: Any, content: Mapping[str, Any], height: int, extra: str = "") -> None:
    """What the colours mean, in a row at the top."""
    place = 40
    for level in _levels(content):
        colour, mark = _look(content, level)
        axis = figure.add_axes((place / 420, 1 - 20 / height, 12 / 420, 14 / height))
        axis.axis("off")
        axis.plot([0], [0], marker=mark, color=colour, markersize=6, markeredgewidth=0)
        axis.annotate(_name(level), (0, 0), (10, 0), textcoords="offset points", va="center", fontsize=11.5, color=INK,
                      annotation_clip=False)  # fmt: skip
        place += 70
    if extra:
        figure.text(1 - 8 / 420, 1 - 13 / height, extra, ha="right", va="center", fontsize=11, color=MUTED)


def _exposure(content: Mapping[str, Any]) -> Markup | None:
    """Mean exposure by size, a box for each number of copies, with and without privacy."""
    copies = content["copies"][-3:]
    if not copies:
        return None
    height, wide = 250, 372 // len(copies)
    figure, axes = canvas(height, *((40 + index * wide, 40, wide - 14, 158) for index in range(len(copies))))
    for index, (axis, times) in enumerate(zip(axes, copies, strict=True)):
        _marks(axis, content, lambda group, times=times: group["exposure"].get(str(times)))
        axis.axhline(content["chance_bits"], color=INK, linewidth=1, linestyle=_DASHED)
        axis.set_ylim(0, content["space_bits"])
        axis.yaxis.set_major_locator(matplotlib.ticker.MaxNLocator(4))
        if index:
            axis.set_yticklabels([])
        _sizes(axis, _models(content))
        axis.annotate("1 copy" if times == 1 else f"{times} copies", (0.5, 1), (0, 6), xycoords="axes fraction",
                      textcoords="offset points", ha="center", fontsize=11.5, color=INK)  # fmt: skip
    axes[0].set_ylabel("exposure, bits", fontsize=11.5, labelpad=2)
    axes[len(axes) // 2].set_xlabel("weights, millions", fontsize=11.5)
    _legend(figure, content, height, "dashed: chance")
    return inline(figure, "exposure", "Memorisation against size", content["alts"]["exposure"])


def _extraction(content: Mapping[str, Any]) -> Markup | None:
    """The share of secrets that stand first of all candidates, and of records that can be extracted, by size."""
    if not any(group["extraction"] or group["first"] for group in content["groups"]):
        return None
    height = 220
    figure, axes = canvas(height, (46, 40, 160, 128), (252, 40, 160, 128))
    for axis, key, words in zip(axes, ("first", "extraction"), ("secrets ranked first", "records extracted"), strict=True):
        _marks(axis, content, lambda group, key=key: group[key])
        highest = max((group[key]["high"] for group in content["groups"] if group[key]), default=1)
        axis.set_ylim(0, min(1, 1.15 * highest))
        axis.yaxis.set_major_locator(matplotlib.ticker.MaxNLocator(4))
        axis.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
        _sizes(axis, _models(content))
        axis.annotate(words, (0.5, 1), (0, 6), xycoords="axes fraction", textcoords="offset points", ha="center", fontsize=11.5,
                      color=INK)  # fmt: skip
        axis.set_xlabel("weights, millions", fontsize=11.5)
    _legend(figure, content, height)
    return inline(figure, "extraction", "Extraction against size", content["alts"]["extraction"])


def _cost(content: Mapping[str, Any]) -> Markup | None:
    """Seconds, peak memory and estimated energy of a cell, by size."""
    if not content["groups"]:
        return None
    height, keys = 220, ("busy_seconds", "peak_megabytes", "watt_hours")
    words = ("seconds, busy", "peak memory, MB", "Wh, estimate")
    figure, axes = canvas(height, *((44 + 128 * index, 40, 92, 128) for index in range(3)))
    for axis, key, title in zip(axes, keys, words, strict=True):
        _marks(axis, content, lambda group, key=key: {"value": group[key]})
        axis.set_ylim(0, 1.15 * max(group[key] for group in content["groups"]))
        axis.yaxis.set_major_locator(matplotlib.ticker.MaxNLocator(4))
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        _sizes(axis, _models(content))
        axis.annotate(
            title,
            (0.5, 1),
            (-8, 6),
            xycoords="axes fraction",
            textcoords="offset points",
            ha="center",
            fontsize=11.5,
            color=INK,
        )
    axes[1].set_xlabel("weights, millions", fontsize=11.5)
    _legend(figure, content, height)
    return inline(figure, "cost", "Cost against size", content["alts"]["cost"])
