"""From `report.json` to `report.html`: one self-contained file, no script, no request, the same bytes for the same JSON.

Every figure on the page is written by `at("/json/pointer", format)`, which gives
`<data value="0.521" data-at="/json/pointer">0.521</data>`; every other word comes from the JSON or has no figure in it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from pipeline.folders import private_folder, write_json, write_text
from pipeline.report.charts import pictures
from pipeline.report.formats import MISSING, show

JSON_NAME, HTML_NAME = "report.json", "report.html"


def write(content: Mapping[str, Any], folder: Path) -> Path:
    """Write report.json and report.html into `folder` (made if need be), each atomically; returns the path of the page."""
    private_folder(folder)
    content = json.loads(json.dumps(content, allow_nan=False))
    write_json(folder / JSON_NAME, content)
    write_text(folder / HTML_NAME, render(content))
    return folder / HTML_NAME


def render(content: Mapping[str, Any]) -> str:
    """The page of a report's content."""
    return page("report.html.j2", content, pictures=pictures(dict(content)))


def page(template: str, content: Mapping[str, Any], **more: Any) -> str:
    """A page made of one JSON content: `at` and `known` take pointers into it, and it is called `report` in the template."""
    environment = Environment(
        loader=PackageLoader("pipeline.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals |= {"at": _figures(content), "known": lambda pointer: resolve(content, pointer) is not None}
    environment.filters |= {"lower_first": _lower_first}
    return environment.get_template(template).render(report=content, **more)


def _lower_first(words: str) -> str:
    """A title inside a sentence; one that begins with capitals or a symbol stays."""
    return words[:1].lower() + words[1:] if words[1:2].islower() or words[1:2] == " " else words


def resolve(content: Any, pointer: str) -> Any:
    """The value at a JSON pointer (RFC 6901).

    >>> resolve({"a": [{"b/c": 3}]}, "/a/0/b~1c")
    3
    """
    for part in pointer.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        content = content[int(key)] if isinstance(content, list) else content[key]
    return content


def _figures(content: Mapping[str, Any]) -> Callable[..., Markup]:
    def at(pointer: str, format: str = "number", absent: str = MISSING) -> Markup:
        value = resolve(content, pointer)
        if value is None:
            return Markup('<span class="absent">{}</span>').format(absent)
        words = show(value, format)
        return Markup('<data value="{}" data-at="{}" data-format="{}">{}</data>').format(escape(value), pointer, format, words)

    return at
