"""Hostile and odd texts: no crash, no runaway time, offsets that fit, and sentinels that surface nowhere."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import random
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import cli
from pipeline import corpus as corpora
from pipeline import policy as policies
from pipeline.errors import HushtuneError, InputError
from pipeline.policy import Policy
from pipeline.scrub import Detector, Span, _reading, _shards, detect, export, scrub
from pipeline.scrub.recall import covered
from tests.formats import ENDINGS, write

SENTINEL = "quux4711"


@pytest.fixture(scope="module")
def fast(policy: Policy) -> Detector:
    return detect.load(policy.scrub.model_copy(update={"detector": "fast"}))


@pytest.mark.parametrize(
    "text",
    [
        "a" * 60_000,
        "A" * 60_000,
        "1" * 60_000,
        " " * 60_000,
        "\n" * 60_000,
        "A " * 30_000,
        "A. " * 20_000,
        "a.a." * 15_000,
        "1 2 " * 15_000,
        "1-2-" * 15_000,
        "x@" * 30_000,
        "Mr Mr " * 10_000,
        "Ann, " * 12_000,
        "a=b&" * 15_000,
        "http://" * 9_000,
        "((((1" * 12_000,
        "é́" * 30_000,
        "-----BEGIN PRIVATE KEY-----\n" * 2_000,
        "שלום " * 12_000,
    ],
    ids=lambda text: repr(text[:8]),
)
def test_no_text_takes_runaway_time(fast: Detector, text: str) -> None:
    started = time.process_time()
    (spans,) = fast.find([text])
    assert time.process_time() - started < 20
    assert all(0 <= span.start < span.end <= len(text) for span in spans)


@settings(max_examples=40, deadline=None)
@given(st.text(st.one_of(st.characters(), st.sampled_from("AaZz .,\n@:/0159-<>#éßİ👩\u200d\u202e\u0301")), max_size=200))
def test_any_text_gets_spans_that_fit_and_stays_whole_outside_them(fast: Detector, text: str) -> None:
    (spans,) = fast.find([text])
    ends = [place for span in spans for place in (span.start, span.end)]
    assert ends == sorted(ends)
    assert all(0 <= span.start < span.end <= len(text) for span in spans)


@pytest.mark.parametrize(
    "frame",
    [
        "<p>Mail <b>{}</b><br>now</p>",
        '<a href="mailto:{}">write</a>',
        "> > On Monday she wrote:\n> > to {} please",
        "כתבו אל {} תודה",
        "اكتب إلى {} شكرا",
        "\u202eecart {} \u202c",
        "👩‍👩‍👧‍👦🏽 {} 🎈",
        "e\u0301te\u0301 {}",
        "-----Original Message-----\r\nFrom: {}\r\nSent: Monday",
    ],
)
def test_markup_quotes_directions_and_marks_hide_no_address(detector: Detector, frame: str) -> None:
    value = "zoe.ohara@example.org"
    text = frame.format(value)
    start = text.index(value)
    assert covered(text, Span(start, start + len(value), "", 1), detector.find([text])[0])


HIDDEN = [
    ("Write to Agniesz\u200bka Kowalczyk today", "Agniesz\u200bka Kowalczyk"),
    ("mail a\u200bnn.smith@exam\u2060ple.org now", "a\u200bnn.smith@exam\u2060ple.org"),
    ("Anna\u00adKowal\u00adczyk phoned", "Anna\u00adKowal\u00adczyk"),
    ("mail ann.smith&#64;example.org now", "ann.smith&#64;example.org"),
    ("mail ann.smith&#x40;example&period;org now", "ann.smith&#x40;example&period;org"),
    ("mail ann.smith%40example.org now", "ann.smith%40example.org"),
    ("> mail ann.sm=\nith=40example.org now", "ann.sm=\nith=40example.org"),
    ("mail ann.smith@\nexample.org now", "ann.smith@\nexample.org"),
    ("Mr M&uuml;ller and Ms J&ouml;rgensen came", "J&ouml;rgensen"),
    ("Mr S\u0301wie\u0328cicki came", "S\u0301wie\u0328cicki"),
    ("card 4111\u00a01111\u00a01111\u00a01111 ok", "4111\u00a01111\u00a01111\u00a01111"),
    ("ssn 078\u201105\u20111121 was", "078\u201105\u20111121"),
    ("iban DE89\u202f3704\u202f0044\u202f0532\u202f0130\u202f00", "DE89\u202f3704\u202f0044\u202f0532\u202f0130\u202f00"),
    ("we met Anna Kowal-\n> czyk there", "Anna Kowal-\n> czyk"),
    ("ip 192[.]168[.]14[.]3 seen", "192[.]168[.]14[.]3"),
    ("ask for J o h n  K o w a l c z y k there", "J o h n  K o w a l c z y k"),
    ("ask for K O W A L C Z Y K there", "K O W A L C Z Y K"),
    ("ask for J O H N  S M I T H there", "J O H N  S M I T H"),
    ("it is K-O-W-A-L-C-Z-Y-K, yes", "K-O-W-A-L-C-Z-Y-K"),
    ("ask for K_o_w_a_l_c_z_y_k there", "K_o_w_a_l_c_z_y_k"),
    ("ask for J.o.h.n K.o.w.a.l.c.z.y.k there", "J.o.h.n K.o.w.a.l.c.z.y.k"),
    ("call 5 5 5 - 0 1 4 7 tonight", "5 5 5 - 0 1 4 7"),
    ("call 2.0.2.5.5.5.0.1.4.7 tonight", "2.0.2.5.5.5.0.1.4.7"),
    ("ssn 0 7 8 - 0 5 - 1 1 2 1 was", "0 7 8 - 0 5 - 1 1 2 1"),
    ("card 4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 ok", "4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1"),
    ("my number is five five five, zero one four seven", "five five five, zero one four seven"),
    ("mail j.smith (at) example dot org now", "j.smith (at) example dot org"),
    ("mail j dot smith at example dot org now", "j dot smith at example dot org"),
    ("mail j.smith<at>example<dot>org now", "j.smith<at>example<dot>org"),
    ("mail j . s m i t h @ e x a m p l e . o r g now", "j . s m i t h @ e x a m p l e . o r g"),
    ("mail j.smith @ example . org now", "j.smith @ example . org"),
    ("mail ann＠example．org now", "ann＠example．org"),
    ("ask for 𝐊𝐨𝐰𝐚𝐥𝐜𝐳𝐲𝐤 there", "𝐊𝐨𝐰𝐚𝐥𝐜𝐳𝐲𝐤"),
]


@pytest.mark.parametrize(("text", "value"), HIDDEN)
def test_a_value_is_found_behind_what_hides_it(detector: Detector, text: str, value: str) -> None:
    start = text.index(value)
    assert covered(text, Span(start, start + len(value), "", 1), detector.find([text])[0])


@pytest.mark.parametrize(
    "text",
    [
        "vitamins A B C D E and K",
        "the answers were A C D B A",
        "on a scale of 1 2 3 4 5 6 7 8 9",
        "e.g. in the U.S.S.R. or the U.S.A., i.e. at 5 p.m. or a.m.",
        "y n n y n",
        "G A T T A C A",
        "one, two, three, four, five, six, seven",
        "I a m fine",
        "1. 2. 3. 4. 5. 6. 7. 8.",
    ],
)
def test_lists_and_abbreviations_spell_nothing(text: str) -> None:
    assert _reading.plain(text) == (text, None, None)


def test_an_abbreviation_spelt_in_capitals_is_no_name() -> None:
    assert _reading.plain("he has G E R D and C O P D")[0] == "he has GERD and COPD"


@given(st.text(st.one_of(st.characters(), st.sampled_from("aBe 1 - .\n=>&#6450;.[]%\u200b\u00ad\u0301\u00a0")), max_size=60))
def test_a_text_as_it_is_read_maps_back_to_all_of_it(text: str) -> None:
    seen, starts, ends = _reading.plain(text)
    if starts is None or ends is None:
        assert len(seen) == len(text)
        return
    assert len(seen) == len(starts) == len(ends)
    assert list(starts) == sorted(starts)
    assert all(0 <= start < end <= len(text) for start, end in zip(starts, ends, strict=True))
    left = set(range(len(text))) - {at for pair in zip(starts, ends, strict=True) for at in range(*pair)}
    assert not any(text[at].isalnum() for at in left)  # nothing that could be read is lost


@pytest.mark.slow
def test_a_record_of_ten_megabytes_is_scrubbed(tmp_path: Path, policy: Policy) -> None:
    line = "We met on the way and spoke of the weather, which was fine. Write to ann{}@example.org soon.\n"
    text = "".join(line.format(number) for number in range(105_000))
    assert len(text) > 10_000_000
    data = tmp_path / "data.jsonl"
    data.write_text(json.dumps({"text": text}) + "\n")
    quick = policy.override(scrub__detector="fast", scrub__rescan="off")
    corpus = corpora.read(data, quick, tmp_path / "corpus")
    scrubbed = scrub(corpus, quick, tmp_path / "scrubbed", probes=None, workers=1)
    assert scrubbed.entities["EMAIL_ADDRESS"] == 105_000
    (record,) = corpora.load_records(scrubbed.folder / "records.jsonl")
    assert "@example" not in record.parts[0].text


_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
_LINES = st.one_of(
    st.binary(max_size=60),
    _JSON.map(lambda content: json.dumps(content).encode()),
    st.builds(lambda text: json.dumps({"text": text}).encode(), _JSON),
    st.builds(lambda text, cut: json.dumps({"text": text}).encode()[:cut], st.text(max_size=20), st.integers(0, 30)),
)


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".txt", ".parquet"])
def test_malformed_files_are_refused_by_name_or_read_whole(tmp_path_factory, policy: Policy, ending: str) -> None:
    @settings(max_examples=100, deadline=None)
    @given(st.lists(_LINES, max_size=10))
    def check(lines: list[bytes]) -> None:
        folder = tmp_path_factory.mktemp("malformed")
        data = folder / f"data{ending}"
        data.write_bytes(b"\n".join(lines))
        refused, corpus = "", None
        try:
            corpus = corpora.read(data, policy, folder / "corpus")
        except InputError as error:
            refused = str(error)
        if corpus is None:
            assert str(data) in refused
            assert not (folder / "corpus").exists()
            assert not (folder / "corpus.partial").exists()
        else:
            kept = sum(1 for _ in corpora.load_records(corpus.folder / "records.jsonl"))
            assert kept == corpus.records > 0

    check()


def _malformed(line: bytes) -> bool:
    """Whether a line, by its own lights, is neither blank nor a record with a text, or an empty one."""
    try:
        text = line.decode()
        if not text.strip():
            return False
        row = json.loads(text)
        row["text"].encode() if row["text"] is not None else None
        return not isinstance(row["text"], str | None) or "\0" in text
    except (ValueError, TypeError, KeyError, AttributeError):  # UnicodeError is a ValueError
        return True


def test_ten_thousand_malformed_lines_are_counted_named_and_cost_no_good_one(tmp_path_factory, policy: Policy) -> None:
    """Lines of every bad kind among good ones: refused together, or left out one by one while every good one stays."""
    bad = _LINES.map(lambda line: line.replace(b"\n", b" ").replace(b"\r", b" ")).filter(_malformed)
    seen = 0

    @settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(bad, min_size=20, max_size=20), st.randoms(use_true_random=False))
    def check(some: list[bytes], rng: random.Random) -> None:
        nonlocal seen
        folder = tmp_path_factory.mktemp("malformed")
        data = folder / "data.jsonl"
        good = [json.dumps({"id": f"g{number}", "text": f"good {number}"}).encode() for number in range(10)]
        lines = [*some * 10, *good]
        rng.shuffle(lines)
        data.write_bytes(b"\n".join(lines))
        wrong = [number for number, line in enumerate(lines, 1) if _malformed(line)]
        seen += len(wrong)
        with pytest.raises(InputError) as caught:
            corpora.read(data, policy, folder / "corpus")
        named = ", ".join(map(str, wrong[:3]))
        assert f"line {wrong[0]}, " in str(caught.value)
        assert f"in all 200 lines ({named}, …) cannot be read" in str(caught.value)
        assert not list(folder.glob("corpus*"))
        corpus = corpora.read(data, policy.override(data__malformed="skip"), folder / "corpus")
        assert corpus.records == 10
        assert sum(corpus.refused.values()) == len(wrong) == 200
        kept = {record.id for record in corpora.load_records(corpus.folder / "records.jsonl")}
        assert kept == {f"g{number}" for number in range(10)}

    check()
    assert seen >= 10_000


# --- the sentinel ----------------------------------------------------------------------------------------------------


_SHAPES: dict[str, list[dict]] = {
    "text": [{"id": f"{SENTINEL}i", "unit": f"{SENTINEL}u", "text": f"about {SENTINEL} and {SENTINEL}@example.org"}],
    "completion": [{"id": "1", "unit": "u", "prompt": f"say {SENTINEL}", "completion": f"so {SENTINEL}"}],
    "chat": [{"id": "1", "unit": "u", "messages": [{"role": "user", "content": f"hear {SENTINEL}"}]}],
}


class Broken:
    """A detector that fails as libraries do: with the text in its error."""

    name = "broken"

    def find(self, texts: list[str]) -> list[list[Span]]:
        raise ValueError(f"cannot read {texts[0]!r}")


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("shape", list(_SHAPES))
@pytest.mark.parametrize("broken", ["read", "detect", "replace", "export", "nothing"])
def test_a_sentinel_in_any_field_surfaces_nowhere_whatever_fails(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    ending: str,
    shape: str,
    broken: str,
) -> None:
    if ending == ".txt" and shape != "text":
        pytest.skip("plain text has no columns")
    caplog.set_level(logging.DEBUG)
    rows = _SHAPES[shape]
    inputs, outputs = tmp_path / "in", tmp_path / "out"
    inputs.mkdir(), outputs.mkdir()
    data = write(inputs / f"data{ending}", rows)

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError(f"failed at {rows}")

    if broken == "read":
        if ending == ".parquet":
            data.write_bytes(data.read_bytes()[:-20])
        elif ending == ".jsonl":
            data.write_bytes(data.read_bytes() + f'{{"text": "{SENTINEL}'.encode())
        else:
            data.write_bytes(data.read_bytes() + b"\xff\xfe" + SENTINEL.encode())
    elif broken == "detect":
        monkeypatch.setattr(_shards, "load", lambda scrub: Broken())
    elif broken == "replace":
        monkeypatch.setattr(_shards, "replace", fail)
    elif broken == "export":
        monkeypatch.setattr("pipeline.scrub.stage.to_line", fail)
    else:
        monkeypatch.setattr(_shards, "load", lambda scrub: detect.load(scrub))
    rules = tmp_path / "rules.yaml"
    rules.write_text("extends: base\nscrub: {detector: fast, rescan: 'off', deny: [" + SENTINEL + "]}\n")
    spans = outputs / "spans.jsonl"
    call = ["scrub", str(data), "--policy", str(rules), "--output", str(outputs / "out.jsonl"), "--spans", str(spans), "--json"]
    printed, complained = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(complained):
        code = cli.main(call)
    seen = printed.getvalue() + complained.getvalue() + caplog.text
    assert "Traceback" not in seen
    assert SENTINEL not in seen
    if broken == "nothing":
        assert code == 0
        written = json.loads((outputs / "out.jsonl").read_text())
        named = {key: written.pop(key) for key in ("id", "unit")}
        assert SENTINEL not in json.dumps(written)
        assert (SENTINEL in json.dumps(named)) == (shape == "text" and ending != ".txt")  # ids and units are kept as they are
        assert {one.name for one in outputs.iterdir()} == {"out.jsonl", "spans.jsonl"}
    else:
        assert code in (1, 2)
        assert list(outputs.iterdir()) == []


def test_the_search_would_see_a_sentinel(tmp_path: Path) -> None:
    """The control: a library's own error does quote the text."""
    with pytest.raises(ValueError, match=SENTINEL):
        Broken().find([SENTINEL])
    assert SENTINEL in write(tmp_path / "data.jsonl", _SHAPES["chat"]).read_text()


def test_a_stage_error_names_a_kind_and_no_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = policies.load("default").override(scrub__rescan="off")
    data = write(tmp_path / "data.jsonl", _SHAPES["text"])
    corpus = corpora.read(data, policy, tmp_path / "corpus")
    monkeypatch.setattr(_shards, "load", lambda scrub: Broken())
    with pytest.raises(HushtuneError) as caught:
        export(scrub(corpus, policy, tmp_path / "scrubbed", probes=None, workers=1), corpus.shape, tmp_path / "o.jsonl")
    assert SENTINEL not in f"{caught.value!r}{caught.value.__cause__!r}{caught.value.__context__!r}"
