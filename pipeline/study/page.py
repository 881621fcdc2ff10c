"""study.json, study.html and study.csv: what a study leaves for people."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.folders import private_folder, write_json, write_text
from pipeline.report.render import page as rendered
from pipeline.study import results
from pipeline.study.pictures import pictures

NAMES = ("study.json", "study.html", "study.csv")


def write(content: Mapping[str, Any], folder: Path) -> Path:
    """Write the three files into `folder` (made if need be), each atomically; returns the path of the page."""
    private_folder(folder)
    content = json.loads(json.dumps(content, allow_nan=False))
    write_json(folder / "study.json", content)
    write_text(folder / "study.csv", results.table(content))
    write_text(folder / "study.html", page(content))
    return folder / "study.html"


def page(content: Mapping[str, Any]) -> str:
    """The page of a study's content: one file that loads nothing."""
    return rendered("study.html.j2", content, pictures=pictures(content))
