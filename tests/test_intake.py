"""Drop folders: which files a run reads, as one corpus; what no release has read; and what becomes of an interrupted run."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import corpus, intake, policy, resume, runs
from pipeline.errors import InputError, UsageError
from pipeline.ledger import Ledger

RULES = policy.load("default")
quick = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(autouse=True)
def own_ledger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HUSHTUNE_LEDGER_URL", raising=False)


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    folder = tmp_path / "inbox"
    folder.mkdir()
    put(folder / "b.jsonl", [{"text": "second", "id": "2", "unit": "ann"}])
    put(folder / "a.jsonl", [{"text": "first", "id": "1", "unit": "ann"}])
    return folder


def put(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(data: Path | intake.Intake, folder: Path) -> tuple[corpus.Corpus, list[corpus.Record]]:
    made = corpus.read(data, RULES, folder)
    return made, list(corpus.load_records(folder / "records.jsonl"))


def open_run(home: Path, data: Path, **how: bool) -> resume.Opened | None:
    opened = resume.open_run(home, "mail", RULES, data, **how)
    if opened is not None:
        runs.let_go(opened.run.folder)  # its process dies
    return opened


def release(home: Path, opened: resume.Opened | None) -> None:
    assert opened is not None
    (opened.run.folder / "outcome.json").write_text("{}")
    Ledger(home).note(opened.run.id, "release", {"manifest": opened.run.id})


def names(opened: resume.Opened | None) -> list[str]:
    assert opened is not None
    return [file.name for file in opened.intake.files]


def test_all_whole_files_in_the_order_of_their_names(inbox: Path) -> None:
    for name in (".hidden.jsonl", "c.jsonl.part", "d.tmp"):
        (inbox / name).write_text("half a lin")
    assert [file.name for file in intake.of(inbox).files] == ["a.jsonl", "b.jsonl"]


def test_a_file_that_cannot_be_read_refuses_the_folder_and_is_named(inbox: Path) -> None:
    (inbox / "notes.docx").write_text("x")
    with pytest.raises(InputError, match=r"notes\.docx has no known ending"):
        intake.of(inbox)


def test_one_file_is_named_by_its_own_digest(inbox: Path) -> None:
    one = intake.of(inbox / "a.jsonl")
    assert one.digest == one.files[0].sha256
    assert intake.of(inbox).digest != one.digest


@quick
@given(cuts=st.lists(st.integers(0, 30), max_size=4), with_ids=st.booleans(), with_units=st.booleans())
def test_records_cut_into_files_are_the_same_corpus(
    tmp_path_factory, cuts: list[int], with_ids: bool, with_units: bool
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    rows = [{"text": f"text {k % 7}"} | ({"id": f"i{k}"} if with_ids else {}) for k in range(30)]
    rows = [row | ({"unit": f"u{k % 4}"} if with_units else {}) for k, row in enumerate(rows)]
    whole, records = read(put(folder / "whole.jsonl", rows), folder / "one")
    (folder / "inbox").mkdir()
    ends = sorted({*cuts, 0, 30})
    for number, (start, end) in enumerate(itertools.pairwise(ends)):
        put(folder / "inbox" / f"{number}.jsonl", rows[start:end])
    parts, same = read(folder / "inbox", folder / "many")
    assert same == records
    assert parts.model_copy(update={"folder": whole.folder, "source": whole.source}) == whole
    assert len({record.id for record in same}) == 30


def test_an_id_that_repeats_in_another_file_is_refused_with_both_places(inbox: Path, tmp_path: Path) -> None:
    put(inbox / "c.jsonl", [{"text": "third", "id": "3", "unit": "eve"}, {"text": "again", "id": "1", "unit": "eve"}])
    with pytest.raises(InputError, match=r"c\.jsonl, line 2, repeats the id of line 1 of a\.jsonl"):
        read(inbox, tmp_path / "corpus")
    assert not (tmp_path / "corpus.partial").exists()


def test_formats_may_differ_and_shapes_may_not(inbox: Path, tmp_path: Path) -> None:
    (inbox / "c.csv").write_text("text,id,unit\nthird,3,eve\n")
    pyarrow.parquet.write_table(pyarrow.table({"text": ["fourth"], "id": ["4"], "unit": ["eve"]}), inbox / "d.parquet")
    made, records = read(inbox, tmp_path / "corpus")
    assert [record.parts[0].text for record in records] == ["first", "second", "third", "fourth"]
    assert (made.units, made.largest_unit, made.source) == (2, 2, "inbox")
    put(inbox / "e.jsonl", [{"prompt": "a", "completion": "b", "id": "5", "unit": "eve"}])
    with pytest.raises(InputError, match=r"e\.jsonl, line 1, has no column text"):
        read(inbox, tmp_path / "other")


def test_a_file_that_changed_since_is_not_read(inbox: Path) -> None:
    began = intake.of(inbox)
    intake.check_unchanged(began)
    put(inbox / "a.jsonl", [{"text": "else"}])
    with pytest.raises(InputError, match=r"a\.jsonl was changed or removed"):
        intake.check_unchanged(began)


def test_an_incremental_run_reads_what_no_release_of_its_name_has_read(inbox: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    first = open_run(home, inbox, incremental=True)
    assert names(first) == ["a.jsonl", "b.jsonl"]
    release(home, first)
    assert open_run(home, inbox, incremental=True) is None
    before = sorted(home.rglob("*"))
    assert open_run(home, inbox, incremental=True) is None
    assert sorted(home.rglob("*")) == before  # nothing was made
    put(inbox / "0.jsonl", [{"text": "new"}])
    (inbox / "a.jsonl").rename(inbox / "z.jsonl")  # under another name, the same bytes
    second = open_run(home, inbox, incremental=True)
    assert names(second) == ["0.jsonl"]
    assert open_run(home, inbox) is not None  # the control: without it, all of them
    other = resume.open_run(home, "letters", RULES, inbox, incremental=True)
    assert names(other) == ["0.jsonl", "b.jsonl", "z.jsonl"]


def test_what_a_rejected_run_has_read_is_read_again(inbox: Path, tmp_path: Path) -> None:
    rejected = open_run(tmp_path / "home", inbox, incremental=True)
    assert rejected is not None
    (rejected.run.folder / "outcome.json").write_text("{}")
    again = open_run(tmp_path / "home", inbox, incremental=True)
    assert names(again) == ["a.jsonl", "b.jsonl"]


def test_a_release_of_one_file_counts_too(inbox: Path, tmp_path: Path) -> None:
    release(tmp_path / "home", open_run(tmp_path / "home", inbox / "a.jsonl"))
    assert names(open_run(tmp_path / "home", inbox, incremental=True)) == ["b.jsonl"]


@pytest.mark.parametrize("incremental", [False, True])
def test_an_interrupted_run_goes_on_with_its_own_files(inbox: Path, tmp_path: Path, incremental: bool) -> None:
    home = tmp_path / "home"
    began = open_run(home, inbox, incremental=incremental)
    put(inbox / "c.jsonl", [{"text": "came later"}])
    again = open_run(home, inbox, incremental=incremental)
    assert again is not None
    assert began is not None
    assert (again.run, names(again)) == (began.run, ["a.jsonl", "b.jsonl"])
    assert "Taking up run" in again.said[0]
    (inbox / "a.jsonl").unlink()  # without it, the run cannot go on
    other = open_run(home, inbox, incremental=incremental)
    assert other is not None
    assert other.run != began.run
    assert names(other) == ["b.jsonl", "c.jsonl"]


def test_an_empty_folder_is_refused_or_holds_nothing_new(tmp_path: Path) -> None:
    (tmp_path / "inbox").mkdir()
    assert open_run(tmp_path / "home", tmp_path / "inbox", incremental=True) is None
    with pytest.raises(InputError, match="holds no data file"):
        open_run(tmp_path / "home", tmp_path / "inbox")


def test_a_file_cannot_be_read_incrementally(inbox: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="only a folder"):
        open_run(tmp_path / "home", inbox / "a.jsonl", incremental=True)
