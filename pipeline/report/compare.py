"""Two reports side by side, and all releases of a home on one page; each is JSON first, and a page of that JSON.

write_comparison(before, after, Path("compare.html"))
write_index(shelf(home), Path("releases.html"))
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline._manifest import MANIFEST
from pipeline.errors import HushtuneError, UsageError
from pipeline.folders import write_text
from pipeline.release import Release, releases, verify
from pipeline.report.changes import KNOWN, differences, summary
from pipeline.report.formats import plural, show
from pipeline.report.render import JSON_NAME, page


def read(folder: Path) -> dict[str, Any]:
    """The report.json of a release's or a run's report folder.

    Raises:
        UsageError: there is none, or it is not a report.
    """
    try:
        content = json.loads((folder / JSON_NAME).read_text(encoding="utf-8"))
        summary(content)
    except (OSError, ValueError, LookupError, TypeError):
        raise UsageError(f"{folder} holds no {JSON_NAME} that can be read: give a release, or a run with a report.") from None
    return content


def comparison(before: Mapping[str, Any], after: Mapping[str, Any], names: tuple[str, str]) -> dict[str, Any]:
    """Both reports' comparable figures, row by row; `changed` says which differ."""
    old, new = summary(before), summary(after)
    changed = {row["title"] for row in differences(old, new)}
    rows = [
        {"title": known.title, "format": known.format, "before": old["figures"][known.key], "after": new["figures"][known.key]}
        for known in KNOWN
    ]
    gates = [
        _gate(name, old["gates"].get(name), new["gates"].get(name)) for name in dict.fromkeys([*old["gates"], *new["gates"]])
    ]
    return {
        "schema": "hushtune-comparison/1",
        "names": list(names),
        "finding": f"{plural(len(changed), 'figure')} differ between {names[0]} and {names[1]}."
        if changed
        else f"{names[0]} and {names[1]} do not differ in any figure that is compared.",
        "rows": [row | {"changed": row["before"] != row["after"]} for row in rows],
        "gates": gates,
    }


def _gate(name: str, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> dict[str, Any]:
    known = new or old or {}
    sides = {side: {key: gate.get(key) for key in ("value", "bound", "limit", "outcome")} if gate else None
             for side, gate in (("before", old), ("after", new))}  # fmt: skip
    return {"name": name, "title": known["title"], "format": known["format"], **sides, "changed": old != new}


def table(content: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """The rows of a comparison for a terminal: a mark where they differ, title, before, after."""
    rows = [("≠" if row["changed"] else "", row["title"], show(row["before"], row["format"]), show(row["after"], row["format"]))
            for row in content["rows"]]  # fmt: skip
    for gate in content["gates"]:
        old, new = (_cell(gate[side], gate["format"]) for side in ("before", "after"))
        rows.append(("≠" if gate["changed"] else "", gate["title"], old, new))
    return rows


def _cell(side: Mapping[str, Any] | None, format: str) -> str:
    return f"{show(side['bound'], format)}, {side['outcome']}" if side else "no such gate"


def write_comparison(content: Mapping[str, Any], path: Path) -> Path:
    """Write the page of a comparison."""
    write_text(path, page("compare.html.j2", content))
    return path


def shelf(home: Path) -> dict[str, Any]:
    """All releases of a home: verdict, ε, lifetime budget, and how each gate's figure went from version to version."""
    names: dict[str, list[Release]] = {}
    for made in releases(home):
        names.setdefault(made.name, []).append(made)
    shelves = [
        {"name": name, "versions": [_version(made) for made in versions], "gates": _trends(versions)}
        for name, versions in sorted(names.items())
    ]
    count = sum(len(one["versions"]) for one in shelves)
    return {
        "schema": "hushtune-releases/1",
        "finding": f"{plural(count, 'release')} of {plural(len(shelves), 'name')}." if count else "Nothing was released yet.",
        "shelves": shelves,
    }


def _version(made: Release) -> dict[str, Any]:
    content = _content(made)
    manifest = _manifest(made)
    found = summary(content)["figures"] if content else {}
    return {
        "version": made.version,
        "created": manifest.get("created", "")[:10],
        "approved_by": (manifest.get("approval") or {}).get("by"),
        "standing": _standing(made),
        "verdict": found.get("verdict"),
        "unit": found.get("unit"),
        "epsilon": found.get("epsilon"),
        "lifetime": found.get("lifetime"),
        "cap": content["budget"]["epsilon_cap"] if content else None,
        "report": f"releases/{made.name}/{made.version}/report.html" if content else None,
    }


def _manifest(made: Release) -> dict[str, Any]:
    try:
        return json.loads((made.folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _trends(versions: Sequence[Release]) -> list[dict[str, Any]]:
    """For each gate of the newest version, what was judged in every version that has it."""
    read_ones = [(made.version, summary(content)["gates"]) for made in versions if (content := _content(made))]
    if not read_ones:
        return []
    return [
        {
            "name": name,
            "title": gate["title"],
            "format": gate["format"],
            "rule": gate["rule"],
            "limit": gate["limit"],
            "points": [{"version": version, "bound": gates[name]["bound"]} for version, gates in read_ones if name in gates],
        }
        for name, gate in read_ones[-1][1].items()
    ]


def _content(made: Release) -> dict[str, Any] | None:
    try:
        return read(made.folder)
    except UsageError:
        return None


def _standing(made: Release) -> str:
    """Whether a release verifies today, in a word."""
    try:
        verify(made.folder)
    except UsageError:
        return "no key to verify with"
    except HushtuneError as error:
        return "revoked" if "was revoked" in str(error) else "does not verify"
    return "verified"


def write_index(content: Mapping[str, Any], path: Path) -> Path:
    """Write the page of all releases."""
    from pipeline.report.charts import trends

    write_text(path, page("releases.html.j2", content, trends=trends(dict(content))))
    return path
