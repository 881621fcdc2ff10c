from __future__ import annotations

import csv
import gzip
import io
import json
import re
import stat
import tempfile
import traceback
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import corpus as module
from pipeline._tally import MODULUS, Fingerprint
from pipeline.corpus import Part, Record, load_records, read, save_records, to_line
from pipeline.errors import InputError, IntegrityError
from pipeline.policy import load

SENTINEL = "Zyxwvut-Sentinel-4711"
POLICY = load("default")
quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def policy(**columns):
    return POLICY.override(**{f"data__{key}": value for key, value in columns.items()})


def put(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def jsonl(rows) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def as_csv(rows) -> bytes:
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(rows[0]))
    writer.writeheader()
    for row in rows:
        writer.writerow({k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()})
    return out.getvalue().encode()


def as_parquet(rows) -> bytes:
    out = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), out)
    return out.getvalue()


WRITERS = {".jsonl": jsonl, ".csv": as_csv, ".parquet": as_parquet}


def refusal(path: Path, tmp_path: Path, chosen=POLICY) -> str:
    """The message of the one error that reading must end with: safe, without a cause, and nothing left behind."""
    with pytest.raises(InputError) as caught:
        read(path, chosen, tmp_path / "out" / "corpus")
    error, message = caught.value, str(caught.value)
    assert error.exit_code == 2
    assert error.__cause__ is None
    assert error.__context__ is None  # a parser's exception would carry the document
    assert SENTINEL not in message + "".join(traceback.format_exception(error))
    assert str(path) in message
    assert message.endswith(".")
    assert "\n" not in message
    left = tmp_path / "out"
    assert not left.exists() or not list(left.iterdir())
    return message


# ---------------------------------------------------------------------------------------------------- what is read

text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=60)
label = st.text("abcdefXYZ0189-_é", min_size=1, max_size=8)
texts = st.builds(lambda t: {"text": t}, text)
pairs = st.builds(lambda p, c: {"prompt": p, "completion": c}, text, text)
roles = st.sampled_from(["system", "user", "assistant"])
chats = st.builds(
    lambda m: {"messages": m},
    st.lists(st.builds(lambda r, c: {"role": r, "content": c}, roles, text), min_size=1, max_size=4),
)
bodies = st.sampled_from([texts, pairs, chats]).flatmap(lambda kind: st.lists(kind, min_size=1, max_size=8))


@st.composite
def data_sets(draw):
    rows = draw(bodies)
    ids = draw(st.none() | st.lists(label, min_size=len(rows), max_size=len(rows), unique=True))
    units = draw(st.none() | st.lists(label, min_size=len(rows), max_size=len(rows)))
    for at, row in enumerate(rows):
        row |= ({"id": ids[at]} if ids else {}) | ({"unit": units[at]} if units else {})
    return rows


def expected(rows) -> list[Record]:
    """The records, made in the plainest way."""
    records = []
    for at, row in enumerate(rows, 1):
        if "text" in row:
            parts, needed = [Part("text", row["text"])], row["text"]
        elif "prompt" in row:
            parts, needed = [Part(k, row[k]) for k in ("prompt", "completion")], row["completion"]
        else:
            parts = [Part(m["role"], m["content"]) for m in row["messages"]]
            needed = "".join(part.text for part in parts)
        name = row.get("id", f"r{at:06d}")
        if needed.strip():
            records.append(Record(name, row.get("unit", name), tuple(parts)))
    return records


@quick
@given(rows=data_sets(), packed=st.booleans())
def test_every_format_gives_the_same_records_and_fingerprint(rows, packed):
    wanted, found = expected(rows), []
    for ending, writer in WRITERS.items():
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            content = writer(rows)
            path = put(folder, f"data{ending}" + ".gz" * packed, gzip.compress(content) if packed else content)
            if not wanted:
                assert "holds no record" in refusal(path, folder)
                continue
            got = read(path, POLICY, folder / "corpus")
            assert list(load_records(folder / "corpus" / "records.jsonl")) == wanted
            assert (got.source, got.records) == (path.name, len(wanted))
            assert got.units == len({record.unit for record in wanted})
            assert got.has_units == ("unit" in rows[0])
            assert got.characters == sum(len(part.text) for record in wanted for part in record.parts)
            assert got.duplicates == len(wanted) - len({record.parts for record in wanted})
            assert got.largest_unit == max(sum(r.unit == record.unit for r in wanted) for record in wanted)
            assert sum(got.refused.values()) == len(rows) - len(wanted)
            found.append(got.fingerprint)
    assert len(set(found)) <= 1


@quick
@given(rows=data_sets().filter(expected), data=st.data())
def test_the_fingerprint_is_of_the_records_not_of_their_order(rows, data):
    shuffled = data.draw(st.permutations(rows))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        first = read(put(folder, "a.jsonl", jsonl(rows)), POLICY, folder / "a")
        second = read(put(folder, "b.jsonl", jsonl(shuffled)), POLICY, folder / "b")
        changed = [dict(row) for row in rows]
        at = next(i for i, row in enumerate(rows) if expected([row]))
        key = next(k for k in ("text", "completion", "messages") if k in changed[at])
        extra = [{"role": "user", "content": "x"}] if key == "messages" else "x"
        changed[at][key] = changed[at][key] + extra
        third = read(put(folder, "c.jsonl", jsonl(changed)), POLICY, folder / "c")
    assert first.fingerprint == second.fingerprint
    assert first.fingerprint != third.fingerprint


def test_the_fingerprint_sees_repeats_ids_and_units(tmp_path):
    variants = [
        [{"text": "a"}],
        [{"text": "a"}, {"text": "a"}],
        [{"text": "a", "id": "1"}],
        [{"text": "a", "unit": "1"}],
        [{"prompt": "", "completion": "a"}],
        [{"messages": [{"role": "user", "content": "a"}]}],
    ]
    found = [
        read(put(tmp_path, f"{at}.jsonl", jsonl(rows)), POLICY, tmp_path / str(at)).fingerprint
        for at, rows in enumerate(variants)
    ]
    assert len(set(found)) == len(variants)


def test_the_fingerprint_works_modulo_a_prime():
    for base in (2, 3, 5, 7, 11):  # Fermat; a composite would pass for all five with negligible probability
        assert pow(base, MODULUS - 1, MODULUS) == 1
    assert Fingerprint().hexdigest() != _fingerprint("a") != _fingerprint("a", "a")
    assert _fingerprint("a", "b") == _fingerprint("b", "a")


def _fingerprint(*members: str) -> str:
    total = Fingerprint()
    for member in members:
        total.add(member)
    return total.hexdigest()


@quick
@given(
    paragraphs=st.lists(st.lists(st.text("ab é'\t", min_size=1).filter(str.strip), min_size=1, max_size=3), min_size=2),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_plain_text_is_split_at_blank_lines(paragraphs, end):
    content = (end + "  " + end).join(end.join(lines) for lines in paragraphs)
    with tempfile.TemporaryDirectory() as name:
        got = read(put(Path(name), "notes.txt", content), POLICY, Path(name) / "corpus")
        records = list(load_records(Path(name) / "corpus" / "records.jsonl"))
    assert [r.parts[0].text for r in records] == ["\n".join(line.rstrip() for line in p) for p in paragraphs]
    assert (got.shape, got.has_units) == ("text", False)


def test_plain_text_without_blank_lines_is_split_at_line_ends(tmp_path):
    got = read(put(tmp_path, "notes.txt.gz", gzip.compress(b"\nfirst one\nsecond\n\n")), POLICY, tmp_path / "corpus")
    records = list(load_records(tmp_path / "corpus" / "records.jsonl"))
    assert records == [Record(f"r00000{i}", f"r00000{i}", (Part("text", t),)) for i, t in ((1, "first one"), (2, "second"))]
    assert got.records == 2


def test_columns_are_the_policys_and_others_are_ignored(tmp_path):
    rows = [
        {
            "key": 7,
            "body": "Good day.",
            "who": "ann-b_inbox_1",
            "text": 5,
            "spans": [{"start": 0, "end": 4, "label": "X"}],
        },
        {"key": 8.0, "body": "Good night.", "who": "ann-b_sent_2", "text": None, "spans": None},
    ]
    chosen = policy(text_column="body", id_column="key", unit_column="who", unit_pattern="^[^_]+")
    for writer, ending in ((jsonl, ".jsonl"), (as_parquet, ".parquet")):
        rows = rows if writer is jsonl else [{**row, "key": int(row["key"]), "text": "5"} for row in rows]
        read(put(tmp_path, f"mail{ending}", writer(rows)), chosen, tmp_path / ending[1:])
        assert list(load_records(tmp_path / ending[1:] / "records.jsonl")) == [
            Record("7", "ann-b", (Part("text", "Good day."),)),
            Record("8", "ann-b", (Part("text", "Good night."),)),
        ]


def test_an_explicit_column_decides_the_shape(tmp_path):
    path = put(tmp_path, "x.jsonl", jsonl([{"text": "t", "talk": [{"role": "user", "content": "hi"}]}]))
    assert read(path, POLICY, tmp_path / "a").shape == "text"
    assert read(path, policy(messages_column="talk"), tmp_path / "b").shape == "chat"


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_csv_separators_and_quoted_line_ends(tmp_path, delimiter):
    content = f'\ufefftext{delimiter}unit\r\n"one\nand ""two"", three{delimiter}"{delimiter}ann\r\n\r\nfour{delimiter}bob\r\n'
    read(put(tmp_path, "x.csv", content), POLICY, tmp_path / "corpus")
    records = list(load_records(tmp_path / "corpus" / "records.jsonl"))
    assert [(r.unit, r.parts[0].text) for r in records] == [
        ("ann", f'one\nand "two", three{delimiter}'),
        ("bob", "four"),
    ]


def test_the_limit_counts_kept_records_and_stops_reading(tmp_path):
    content = jsonl([{"text": "a"}, {"text": " "}, {"text": "b"}, {"text": "c"}]) + b"broken"
    got = read(put(tmp_path, "x.jsonl", content), policy(limit=2), tmp_path / "corpus")
    assert (got.records, got.refused) == (2, {"empty text": 1})
    assert [r.id for r in load_records(tmp_path / "corpus" / "records.jsonl")] == ["r000001", "r000003"]


def test_null_text_is_empty(tmp_path):
    path = put(tmp_path, "x.jsonl", jsonl([{"prompt": None, "completion": "a"}, {"prompt": "a", "completion": None}]))
    got = read(path, POLICY, tmp_path / "corpus")
    assert (got.records, got.refused) == (1, {"empty completion": 1})


# ------------------------------------------------------------------------------------------------- folders and files


def test_files_are_private_and_a_second_read_is_skipped(tmp_path, monkeypatch):
    path = put(tmp_path, "x.jsonl", jsonl([{"text": "a", "unit": "u"}] * 3))
    calls = []
    first = read(path, POLICY, tmp_path / "corpus", progress=lambda done, total, **f: calls.append((done, total, f)))
    assert calls[-1] == (path.stat().st_size, path.stat().st_size, {"records": 3})
    assert stat.S_IMODE((tmp_path / "corpus").stat().st_mode) == 0o700
    assert {stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "corpus").iterdir()} == {0o600}
    assert {p.name for p in (tmp_path / "corpus").iterdir()} == {"records.jsonl", "stage.json"}
    assert first.folder == tmp_path / "corpus"

    def never(*_):
        raise AssertionError("read again")

    monkeypatch.setattr(module, "rows", never)
    assert read(path, POLICY, tmp_path / "corpus") == first
    assert read(path, policy(held_out=0.2), tmp_path / "corpus") == first  # not a choice of this stage
    with pytest.raises(AssertionError):
        read(path, policy(limit=1), tmp_path / "corpus")
    path.write_bytes(jsonl([{"text": "b"}]))
    with pytest.raises(AssertionError):
        read(path, POLICY, tmp_path / "corpus")
    assert not (tmp_path / "corpus.partial").exists()


@quick
@given(data_sets())
def test_saved_records_load_again_and_turn_back_into_their_shape(rows):
    records = expected(rows)
    shape = "text" if "text" in rows[0] else "completion" if "prompt" in rows[0] else "chat"
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "records.jsonl"
        assert save_records(path, records) == len(records)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert list(load_records(path)) == records
    kept = [row for row in rows if expected([row])]
    for line, row in zip((to_line(record, shape) for record in records), kept, strict=True):
        assert {k: line[k] for k in row} == row
        assert set(line) == set(row) | {"id", "unit"}


def test_a_failing_save_leaves_the_old_file(tmp_path):
    def failing():
        yield Record("1", "1", (Part("text", "new"),))
        raise RuntimeError

    path = tmp_path / "records.jsonl"
    save_records(path, [Record("1", "1", (Part("text", "old"),))])
    with pytest.raises(RuntimeError):
        save_records(path, failing())
    assert [r.parts[0].text for r in load_records(path)] == ["old"]
    assert [p.name for p in tmp_path.iterdir()] == ["records.jsonl"]


@pytest.mark.parametrize("line", ['{"id": "%s", ', '{"id": "%s"}', '["%s"]', '{"id":"1","unit":"1","parts":["%s"]}'])
def test_a_damaged_records_file_is_named_without_content(tmp_path, line):
    path = put(tmp_path, "records.jsonl", '{"id":"1","unit":"1","parts":[]}\n' + line % SENTINEL)
    with pytest.raises(IntegrityError, match="line 2") as caught:
        list(load_records(path))
    assert SENTINEL not in "".join(traceback.format_exception(caught.value))
    assert caught.value.__context__ is None


# --------------------------------------------------------------------------------------------------------- bad input

GOOD = [{"text": f"{SENTINEL} {at}"} for at in range(6)]


def test_no_file_to_read(tmp_path):
    assert "does not exist" in refusal(tmp_path / "missing.jsonl", tmp_path)
    (tmp_path / "folder.jsonl").mkdir()
    assert "holds no data file" in refusal(tmp_path / "folder.jsonl", tmp_path)
    assert "no known ending" in refusal(put(tmp_path, "notes.docx", SENTINEL), tmp_path)


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".txt", ".parquet", ".jsonl.gz"])
def test_an_empty_file(tmp_path, ending):
    assert "is empty: give a file that holds records" in refusal(put(tmp_path, f"x{ending}", b""), tmp_path)


def test_files_without_records(tmp_path):
    assert "is empty once unpacked" in refusal(put(tmp_path, "x.jsonl.gz", gzip.compress(b"")), tmp_path)
    assert "holds no record with text:" in refusal(put(tmp_path, "x.jsonl", "\n \n"), tmp_path)
    assert "holds no record with text:" in refusal(put(tmp_path, "x.txt", "\n \n"), tmp_path)
    assert "holds no record with text:" in refusal(put(tmp_path, "x.csv", "id,text\n"), tmp_path)
    table = as_parquet([{"text": "a"}])
    pyarrow.parquet.write_table(pyarrow.parquet.read_table(io.BytesIO(table)).slice(0, 0), tmp_path / "x.parquet")
    assert "holds no record with text:" in refusal(tmp_path / "x.parquet", tmp_path)
    blank = put(tmp_path, "b.jsonl", jsonl([{"text": " "}, {"text": None}]))
    assert "no record with text, 2 refused (empty text): give" in refusal(blank, tmp_path)


BAD_LINES = [
    ('{"text": "%s"', "line 7, is not valid JSON"),
    ("%s", "line 7, is not valid JSON"),
    ("[" * 100_000 + '"%s"', "line 7, is not valid JSON"),
    ('["%s"]', "line 7, is not a JSON object"),
    ('"%s"', "line 7, is not a JSON object"),
    ('{"body": "%s", "id": "x"}', "line 7, has no column text (the columns there are: body, id)"),
    ('{"%s is not well, she says": 1}', "line 7, has no column text (the names of its 1 columns look like content"),
    ('{"text": ["%s"]}', "line 7, column text holds a list, not text"),
    ('{"text": {"%s": 1}}', "line 7, column text holds an object, not text"),
    ('{"text": 12, "id": "%s"}', "line 7, column text holds a number, not text"),
    ('{"text": true, "id": "%s"}', "line 7, column text holds true or false, not text"),
    ('{"text": "%s \\ud800"}', "line 7, column text holds half a character"),
    ('{"text": "%s", "unit": "ann"}', "line 7, has a unit although earlier records have none"),
    ('{"text": "%s", "unit": true}', "line 7, column unit holds true or false, not text"),
    ('{"text": "%s", "id": 1.5}', "line 7, column id holds a number, not text"),
    ('{"text": "%s", "id": "r000003"}', "line 7, repeats the id of line 3"),
]


@pytest.mark.parametrize(("line", "words"), BAD_LINES)
def test_a_bad_line_is_named(tmp_path, line, words):
    content = jsonl(GOOD).decode() + line % SENTINEL + "\n" + jsonl(GOOD).decode()
    assert words in refusal(put(tmp_path, "x.jsonl", content), tmp_path)


@pytest.mark.parametrize(
    ("tail", "words"),
    [
        (b'{"text": "\xff"}', "line 7, is not UTF-8 text"),
        (b'{"text": "\0"}', "line 7, holds NUL bytes"),
        (b'{"text": "' + b" " * 70_000 + b'\0"}', "line 7, holds NUL bytes"),
    ],
)
def test_bytes_that_are_not_text(tmp_path, tail, words):
    path = put(tmp_path, "x.jsonl", jsonl(GOOD) + tail)
    assert words in refusal(path, tmp_path)
    packed = put(tmp_path, "x.jsonl.gz", gzip.compress(jsonl(GOOD) + tail))
    assert words in refusal(packed, tmp_path)


def test_binary_and_damaged_files(tmp_path):
    assert "binary file" in refusal(put(tmp_path, "x.csv", SENTINEL.encode("utf-16")), tmp_path)
    assert "binary file" in refusal(put(tmp_path, "x.txt", bytes(range(256))), tmp_path)
    assert "is not gzip data" in refusal(put(tmp_path, "x.csv.gz", f"text\n{SENTINEL}\n"), tmp_path)
    assert "damaged gzip data" in refusal(put(tmp_path, "y.csv.gz", b"\x1f\x8b" + SENTINEL.encode()), tmp_path)
    packed = gzip.compress(jsonl(GOOD * 3000), compresslevel=0)
    cut = put(tmp_path, "cut.jsonl.gz", packed[: len(packed) // 2])
    assert "damaged or cut off" in refusal(cut, tmp_path)
    assert "is not a Parquet file" in refusal(put(tmp_path, "x.parquet", f"{SENTINEL}" * 9), tmp_path)
    table = as_parquet([{"text": SENTINEL * 50}] * 50)
    for name, content in (("cut", table[:-9]), ("hole", table[:40] + b"\xff" * 400 + table[440:]), ("head", b"PAR1")):
        for path in (
            put(tmp_path, f"{name}.parquet", content),
            put(tmp_path, f"{name}.parquet.gz", gzip.compress(content)),
        ):
            assert "damaged or cut off" in refusal(path, tmp_path)


def test_a_line_too_long_for_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline._source.LONGEST", 2**20)
    monkeypatch.setattr("pipeline._readers.LONGEST", 2**20)
    long = SENTINEL * 60_000
    assert "line 2, is longer than 1 MiB" in refusal(put(tmp_path, "x.jsonl", f'{{"text": "a"}}\n"{long}"'), tmp_path)
    spread = "\n\n" + "\n".join([SENTINEL * 1000] * 80) + "\n\nend\n"
    assert "line 3, starts a paragraph over 1 MiB" in refusal(put(tmp_path, "x.txt", spread), tmp_path)


def test_bad_csv(tmp_path):
    def refused(content: str) -> str:
        return refusal(put(tmp_path, "x.csv", content), tmp_path)

    assert "line 4, has 3 cells where the header has 2" in refused(f'id,text\n1,"{SENTINEL}\nb"\n2,{SENTINEL}, yes\n')
    assert "line 2, has 1 cells" in refused(f"id,text\n{SENTINEL}\n")
    assert "line 3, starts a record that is not well-formed" in refused(f'id,text\n1,a\n2,"{SENTINEL}\n3,b\n4,c\n')
    assert "line 2, starts a record that is not well-formed" in refused(f'id,text\n1,"a"{SENTINEL}\n')
    assert "line 1, names two columns alike" in refused("text,text\na,b\n")
    assert "(the columns there are: id, Note text)" in refused("id,Note text\n1,a\n")
    headless = f"1,Dear {SENTINEL} how are you?\n2,I am well {SENTINEL}\n"
    assert "line 2, has none of the columns text, prompt and completion, or messages (the names of its" in refused(headless)


def test_missing_columns(tmp_path):
    path = put(tmp_path, "x.jsonl", jsonl([{"subject": SENTINEL, "prompt": SENTINEL, "text": "a"}]))
    there = "(the columns there are: subject, prompt, text)"
    assert f"line 1, has no column body {there}: add it, or name the right one with data.text_column" in refusal(
        path, tmp_path, policy(text_column="body")
    )
    assert f"no column answer {there}" in refusal(path, tmp_path, policy(completion_column="answer"))
    assert f"no column talk {there}" in refusal(path, tmp_path, policy(messages_column="talk"))
    assert f"no column owner {there}" in refusal(path, tmp_path, policy(unit_column="owner"))
    assert f"no column unit {there}" in refusal(path, tmp_path, policy(unit_pattern="^a"))
    wide = put(tmp_path, "wide.parquet", as_parquet([{f"c{at}": SENTINEL for at in range(25)}]))
    assert "row 1, has none of the columns" in (message := refusal(wide, tmp_path))
    assert "c19 and 5 more" in message


def test_units_for_all_or_none(tmp_path):
    rows = [{"text": "a", "unit": "ann"}, {"text": "", "unit": ""}, {"text": SENTINEL, "unit": " "}]
    for ending, writer in WRITERS.items():
        message = refusal(put(tmp_path, f"x{ending}", writer(rows)), tmp_path)
        assert re.search(r"(line 4|line 3|row 3), has no unit although earlier records have one", message)
    named = refusal(put(tmp_path, "y.jsonl", jsonl(rows[2:])), tmp_path, policy(unit_column="text", text_column="unit"))
    assert "holds no record with text" in named
    owner = [{"text": "a", "owner": "ann"}, {"text": SENTINEL, "owner": None}]
    path = put(tmp_path, "z.jsonl", jsonl(owner))
    assert "line 2, has no value in the unit column owner" in refusal(path, tmp_path, policy(unit_column="owner"))
    pattern = policy(unit_column="owner", unit_pattern="^[0-9]+")
    assert "line 1, column owner holds nothing that data.unit_pattern matches" in refusal(path, tmp_path, pattern)


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        (
            [{"role": "user", "content": "a"}, {"role": SENTINEL, "content": "b"}],
            "message 2 has an unknown role: the roles",
        ),
        ([{"role": "user", "content": [SENTINEL]}], "the content of message 1 holds a list, not text"),
        ([{"role": "user", "text": SENTINEL}], "message 1 is not an object with role and content"),
        ([SENTINEL], "message 1 is not an object with role and content"),
        (SENTINEL, "column messages is not a list of messages"),
        ({SENTINEL: 1}, "column messages is not a list of messages"),
    ],
)
def test_bad_messages(tmp_path, messages, words):
    path = put(tmp_path, "x.jsonl", jsonl([{"messages": messages}]))
    assert f"line 1, {words}" in refusal(path, tmp_path)


def test_duplicate_ids_in_a_table(tmp_path):
    rows = [{"id": at % 4, "text": SENTINEL} for at in range(9)]
    assert "row 5, repeats the id of row 1" in refusal(put(tmp_path, "x.parquet", as_parquet(rows)), tmp_path)
    assert "line 6, repeats the id of line 2" in refusal(put(tmp_path, "x.csv", as_csv(rows)), tmp_path)


@quick
@given(
    ending=st.sampled_from([".jsonl", ".csv", ".txt", ".parquet"]),
    packed=st.booleans(),
    content=st.binary(max_size=300),
)
def test_any_bytes_are_read_or_refused(ending, packed, content):
    with tempfile.TemporaryDirectory() as name:
        path = put(Path(name), f"x{ending}" + ".gz" * packed, gzip.compress(content) if packed else content)
        error = None
        try:
            read(path, POLICY, Path(name) / "corpus")
        except InputError as caught:
            error = caught
        assert error is not None or ending != ".parquet"
        assert error is None or (error.__context__ is None and str(path) in str(error))


def test_memory_stays_flat(tmp_path):
    import tracemalloc

    line = json.dumps({"text": "word " * 400, "unit": "u"}).encode() + b"\n"

    def peak(count: int) -> int:
        path = put(tmp_path, f"{count}.jsonl.gz", gzip.compress(line * count, compresslevel=1))
        tracemalloc.start()
        read(path, POLICY, tmp_path / str(count))
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    small = peak(100)
    assert peak(3000) < small + 300_000  # 6 MB of text


def test_the_mailbox_data_of_the_wild(tmp_path):
    path = Path(__file__).parents[1] / ".." / "shared" / "data" / "enron" / "aeslc_dev.jsonl.gz"
    if not path.exists():
        pytest.skip("the Enron e-mails are not here")
    chosen = policy(text_column="body", unit_column="id", unit_pattern="^[^_]+", limit=500)
    got = read(path, chosen, tmp_path / "corpus")
    assert got.records == 500
    assert got.has_units
    assert 1 < got.units < 500
    owners = {line["id"].split("_")[0] for line in _head(path, 500)}
    assert {record.unit for record in load_records(tmp_path / "corpus" / "records.jsonl")} <= owners


def _head(path: Path, count: int):
    with gzip.open(path, "rt") as file:
        return [json.loads(line) for line, _ in zip(file, range(count + 50), strict=False)]


def test_a_policy_that_protects_persons_refuses_data_that_names_none(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "one"}\n{"text": "two"}\n')
    with pytest.raises(InputError, match=r"a\.jsonl does not say whose each record is.*--unit-column"):
        read(path, load("gdpr"), tmp_path / "corpus")
    assert not list(tmp_path.glob("corpus*"))
