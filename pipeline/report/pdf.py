"""The report as PDF, by WeasyPrint (the extra `pdf`): the page's own print style, in its light colours.

WeasyPrint knows no CSS variables inside SVG, so the pictures get the print colours written out.
"""

from __future__ import annotations

import json
import logging
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

from pipeline.errors import UsageError
from pipeline.folders import write_bytes
from pipeline.report.render import JSON_NAME, render

PDF_NAME = "report.pdf"
_SHEET = "size: A4; margin: 15mm 14mm;"
_ZOOM = 0.74  # WeasyPrint does not know the CSS property that print.css shrinks the page by


def write_pdf(folder: Path) -> Path:
    """Write report.pdf beside the report.json of a report's folder, from that JSON; returns its path.

    Raises:
        UsageError: WeasyPrint, or a library that it needs, is not installed.
    """
    content = json.loads((folder / JSON_NAME).read_text(encoding="utf-8"))
    write_bytes(folder / PDF_NAME, pdf(content))
    return folder / PDF_NAME


def pdf(content: dict[str, Any]) -> bytes:
    """The bytes of a report's PDF; the same each time for the same content and version of WeasyPrint."""
    try:
        import weasyprint
    except (ImportError, OSError) as error:
        raise UsageError(
            f"A PDF needs WeasyPrint and the Pango library ({type(error).__name__} on import): "
            "pip install 'hushtune[pdf]', or print report.html from a browser."
        ) from None
    logging.getLogger("weasyprint").setLevel(logging.ERROR)  # it names each property of a browser that it does not know
    nothing: Any = weasyprint.URLFetcher(allowed_protocols=())  # a report asks for nothing, and neither does its printing
    made: Any = weasyprint.HTML(string=printable(content), url_fetcher=nothing)
    return made.write_pdf(zoom=_ZOOM)


def printable(content: dict[str, Any]) -> str:
    """The page with its pictures in the print colours, on a sheet that `_ZOOM` shrinks to A4."""
    sheet = f"size: {210 / _ZOOM:.1f}mm {297 / _ZOOM:.1f}mm; margin: {15 / _ZOOM:.1f}mm {14 / _ZOOM:.1f}mm;"
    page = _coloured(render(content), _print_colours())
    return page.replace(_SHEET, sheet).replace(f"zoom: {_ZOOM};", "")


def _print_colours() -> dict[str, str]:
    style = files("pipeline.report").joinpath("templates/print.css").read_text(encoding="utf-8")
    return dict(re.findall(r"--(\w+): (#[0-9a-f]{3,6});", style))


def _coloured(page: str, colours: dict[str, str]) -> str:
    def spelled(picture: re.Match[str]) -> str:
        return re.sub(r"var\(--(\w+)\)", lambda name: colours[name[1]], picture[0])

    page = re.sub(r"<svg.*?</svg>", spelled, page, flags=re.DOTALL)
    return page.replace('<link rel="icon" href="data:,">', "")
