"""The PDF: pages and words of the report, no request, no text of the data; a clear sentence where WeasyPrint is missing."""

from __future__ import annotations

import re
import sys

import pytest
from pypdf import PdfReader

from pipeline.errors import UsageError
from pipeline.report import write, write_pdf
from pipeline.report.pdf import pdf, printable
from tests.report import sample


@pytest.fixture(autouse=True)
def printer():
    try:
        import weasyprint
    except (ImportError, OSError) as error:
        pytest.skip(f"WeasyPrint cannot be imported here: {type(error).__name__}")
    return weasyprint


def test_a_pdf_of_the_report(tmp_path):
    page = write(sample.rejected(), tmp_path)
    path = write_pdf(page.parent)
    content = path.read_bytes()
    assert content.startswith(b"%PDF-")
    read = PdfReader(path)
    words = " ".join(page.extract_text() for page in read.pages)
    assert 4 < len(read.pages) < 40
    for said in ("Rejected", "what to try", "Not promised", "NIST SP 800-226", "164.514(b)", "Every figure on this page"):
        assert said in words
    assert "extraction.either_excess" in "".join(words.split())  # what is folded on the screen is printed
    assert "SENTINEL" not in words


def test_the_same_report_gives_the_same_bytes():
    assert pdf(sample.bare()) == pdf(sample.bare())


def test_pictures_have_the_print_colours(printer):
    page = printable(sample.released())
    assert "<svg" in page
    assert "var(--" not in "".join(re.findall(r"<svg.*?</svg>", page, re.DOTALL))


def test_a_page_that_asks_for_something_is_not_printed(printer, monkeypatch):
    monkeypatch.setattr("pipeline.report.pdf.render", lambda _: "<p>words<img src='file:///etc/hostname'></p><svg></svg>")
    assert b"/Subtype /Image" not in pdf({})


def test_without_weasyprint_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "weasyprint", None)
    with pytest.raises(UsageError, match=r"pip install 'hushtune\[pdf\]'"):
        pdf(sample.released())
