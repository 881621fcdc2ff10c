"""The page: every figure from the JSON, nothing loaded, nothing leaked, the same bytes, readable by all."""

from __future__ import annotations

import itertools
import json
import os
import re
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline.report import render, write
from pipeline.report.formats import FORMATS, show
from pipeline.report.render import resolve
from tests.report import sample
from tests.report.page import Page, strings, tokens

VARIANTS = {
    "released": sample.released,
    "rejected": sample.rejected,
    "awaiting": sample.awaiting,
    "inconclusive": sample.inconclusive,
    "waived": sample.waived,
    "bare": sample.bare,
}
HOSTILE = "<script>alert(1)</script>\"'&{{ 7*7 }}"
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def contents() -> dict[str, dict[str, Any]]:
    return {name: make() for name, make in VARIANTS.items()}


@pytest.fixture(scope="module")
def pages(contents: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {name: render(content) for name, content in contents.items()}


def strangers(source: str, content: dict[str, Any]) -> list[str]:
    """Words of the page that hold a digit and stand in no string of the JSON."""
    known = {token for text in strings(content) for token in tokens(text)} | {"SHA-256"}
    return [token for text in Page(source).words for token in tokens(text) if token not in known]


@pytest.mark.parametrize("name", VARIANTS)
class TestFigures:
    def test_each_figure_is_the_jsons(self, name, contents, pages):
        figures = Page(pages[name]).figures
        assert len(figures) > 30
        for figure in figures:
            value = resolve(contents[name], figure.attributes["data-at"])
            assert figure.attributes["value"] == str(value)
            assert figure.text == show(value, figure.attributes["data-format"])

    def test_no_other_digit_on_the_page(self, name, contents, pages):
        assert strangers(pages[name], contents[name]) == []

    def test_words_in_pictures_state_the_jsons_figures(self, name, contents, pages):
        for drawn in Page(pages[name]).drawn:
            value = resolve(contents[name], drawn.attributes["data-at"])
            spellings = {show(value, format) for format in ("number", "plain", "count", "upper", "lower")}
            assert any(spelling in drawn.text for spelling in spellings), drawn


def test_the_walk_finds_a_figure_of_its_own(contents, pages):
    forged = pages["released"].replace("</h1>", " 99.7 % safe</h1>", 1)
    assert strangers(forged, contents["released"]) == ["99.7"]


@pytest.mark.parametrize("name", VARIANTS)
class TestPage:
    def test_loads_nothing(self, name, pages):
        source = pages[name]
        assert not re.search(r"https?://|//[a-z]|@import|@font-face|<script|<iframe|javascript:", source)
        assert all(match == "#" for match in re.findall(r"url\((.)", source))
        for tag, attributes in Page(source).tags:
            assert "src" not in attributes
            assert not any(key.startswith("on") for key in attributes)
            assert attributes.get("href", "#")[0] == "#" or attributes["href"] == "data:,", (tag, attributes)
        assert "default-src 'none'" in source

    def test_headings_are_in_order(self, name, pages):
        levels = [level for level, _ in Page(pages[name]).headings]
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(after - before <= 1 for before, after in itertools.pairwise(levels))

    def test_ids_are_unique_and_references_resolve(self, name, pages):
        tags = Page(pages[name]).tags
        ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
        assert len(ids) == len(set(ids))
        for _, attributes in tags:
            for key in ("aria-labelledby", "aria-describedby"):
                assert attributes.get(key) is None or attributes[key] in ids
            if attributes.get("href", "").startswith("#"):
                assert attributes["href"][1:] in ids

    def test_each_picture_has_words_instead(self, name, pages):
        source = pages[name]
        pictures = re.findall(r"<svg.*?</svg>", source, re.S)
        assert len(pictures) >= 8
        for picture in pictures:
            assert 'role="img"' in picture
            assert re.search(r"<title id=[^>]*>[^<]{5,}</title><desc id=[^>]*>[^<]{5,}</desc>", picture)
        assert not re.search(r"#0102[0-9a-f]{2}", source), "a stand-in colour was not replaced"

    def test_tables_have_captions_and_scopes(self, name, pages):
        tables = re.findall(r"<table.*?</table>", pages[name], re.S)
        assert tables
        for table in tables:
            assert re.match(r"<table[^>]*>\s*<caption[^>]*>[^<]", table)
            assert not re.search(r"<th(?![^>]*scope=)[ >]", table)

    def test_never_says_too_much(self, name, contents, pages):
        for text in (pages[name], json.dumps(contents[name])):
            assert not re.search(r"anonymous|anonymi[sz]ed|complian", text, re.I)

    def test_paths_of_the_machine_stay_out(self, name, contents, pages):
        for text in (pages[name], json.dumps(contents[name])):
            assert "SENTINEL" not in text


class TestFirstScreen:
    def test_rejected_names_gate_figure_limit_and_mend_before_all_else(self, pages):
        source = pages["rejected"]
        top = Page(source[: source.index('<div class="brief">')] + "</section></main></body></html>").text
        for piece in ("Rejected", "Personal values found by the scrubber", "82.9\xa0%", "at least 90\xa0%", "what to try"):
            assert piece.replace("\xa0", " ") in top
        assert "scrub.minimum_score" in top
        assert "data protection officer" in top
        assert len(top) < 1100, "it must fit the first screen of a phone"

    def test_released_shows_gates_before_sections(self, pages):
        source = pages["released"]
        assert source.index("<h1") < source.index('class="gates"') < source.index('id="promise"')
        assert "what to try" not in source

    def test_a_gate_without_figure_says_so(self, pages):
        assert "scrub.recall is missing from the evidence." in pages["bare"]
        assert "Missing evidence fails" in pages["bare"]


class TestStyle:
    def test_light_dark_and_print(self, pages):
        source = pages["released"]
        assert "color-scheme: light dark" in source
        assert "@media (prefers-color-scheme: dark)" in source
        assert "@media print" in source
        assert 'name="viewport"' in source

    @pytest.mark.parametrize("scheme", ["light", "dark", "print"])
    def test_contrast(self, scheme):
        templates = ROOT / "pipeline" / "report" / "templates"
        css = "".join((templates / name).read_text() for name in ("report.css", "print.css"))
        opening = {"light": ":root {", "dark": "prefers-color-scheme: dark", "print": "@media print"}[scheme]
        block = css[css.index(opening) :]
        colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{3,6});", block[: block.index("--wait") + 20]))
        for ink in ("ink", "muted", "accent", "good", "bad", "wait"):
            for ground in ("paper", "panel"):
                assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)
        assert contrast(colours["control"], colours["paper"]) >= 2.5, "bars and curves must be seen"


def contrast(one: str, two: str) -> float:
    """Contrast ratio of two sRGB colours (WCAG 2.2)."""

    def luminance(colour: str) -> float:
        digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
        parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    bright, dark = sorted((luminance(one), luminance(two)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


class TestHostile:
    def test_names_are_shown_and_never_run(self):
        values = sample.stages()
        facts = {key: HOSTILE for key in ("run", "created", "command")}
        facts |= {"versions": {HOSTILE: HOSTILE}, "hardware": {HOSTILE: HOSTILE}, "seconds": {HOSTILE: 1.0}}
        values["corpus"] |= {"source": HOSTILE, "refused": {HOSTILE: 2}}
        values["scrubbed"]["entities"][HOSTILE] = 4
        values["standing"]["budget"] = HOSTILE
        for gate in values["verdict"]["gates"]:
            gate |= {"why": HOSTILE, "owner": HOSTILE, "passed": False}
        for figure in values["evidence"]["figures"].values():
            figure["method"] = HOSTILE
        source = render(sample.released(**{**values, "facts": facts}))
        assert "<script" not in source
        assert "&lt;script&gt;alert(1)" in source
        assert "49" not in {token for text in Page(source).words for token in tokens(text)}

    def test_a_name_with_markup_stays_one_heading(self):
        facts = sample.FACTS | {"run": "</title></style><h1>x"}
        headings = Page(render(sample.released(facts=facts))).headings
        assert [text for level, text in headings if level == 1] == ["Released"]


class TestWrite:
    def test_same_json_same_bytes(self, tmp_path, contents):
        first, second = (write(contents["rejected"], tmp_path / name) for name in ("a", "b"))
        for name in ("report.json", "report.html"):
            assert (first.parent / name).read_bytes() == (second.parent / name).read_bytes()

    def test_same_bytes_in_another_process(self, tmp_path, contents):
        page = write(contents["released"], tmp_path)
        code = (
            "import json, sys; from pathlib import Path; from pipeline.report import render;"
            "sys.stdout.write(render(json.loads(Path(sys.argv[1]).read_text(encoding='utf-8'))))"
        )
        environment = os.environ | {"PYTHONHASHSEED": "7", "MPLCONFIGDIR": str(tmp_path), "PYTHONIOENCODING": "utf-8"}
        (tmp_path / "matplotlibrc").write_text("font.size: 30\naxes.facecolor: red\nsvg.fonttype: path\n")
        argument = str(tmp_path / "report.json")
        out = subprocess.run([sys.executable, "-c", code, argument], cwd=ROOT, env=environment, capture_output=True, check=True)
        assert out.stdout.decode() == page.read_text(encoding="utf-8")

    def test_json_is_the_content_and_both_are_private(self, tmp_path, contents):
        page = write(contents["released"], tmp_path / "report")
        assert json.loads((page.parent / "report.json").read_text(encoding="utf-8")) == contents["released"]
        for path in (page, page.parent / "report.json"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600

    def test_takes_at_most_three_seconds(self, contents):
        render(contents["released"])
        began = time.perf_counter()
        render(contents["released"])
        assert time.perf_counter() - began < 3

    def test_formats_are_known(self):
        assert {"number", "count", "percent", "plain"} <= set(FORMATS)
