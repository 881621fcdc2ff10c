"""The same corpus under threads, Dask and Ray: the same bytes; a worker that is lost costs its piece only; no text leaves."""

from __future__ import annotations

import json
import os
from importlib.util import find_spec
from pathlib import Path

import pytest
from prefect import flow

from flows import runners
from pipeline import corpus as corpora
from pipeline import policy as policies
from pipeline.errors import InputError, StageError, UsageError
from pipeline.mapping import here
from pipeline.scrub import Scrubbed, _shards, scrub
from pipeline.scrub import stage as stage_module
from pipeline.scrub.probes import write_probes
from tests import pieces
from tests.flows.line import SENTINEL, holding

RULES = policies.load("default").override(scrub__detector="fast", scrub__rescan="off", scrub__sample=0)


def engine(name: str, slow: bool):
    missing = name in runners._EXTRAS and find_spec(runners._EXTRAS[name]) is None
    marks = [pytest.mark.skipif(missing, reason=f"the extra {name} is not installed")]
    return pytest.param(f"{name}:2", id=name, marks=[*marks, pytest.mark.slow] if slow else marks)


ENGINES = [engine("threads", False), engine("dask", True), engine("ray", True)]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A corpus of six shards, its probes, and what one process makes of it."""
    folder = tmp_path_factory.mktemp("plain")
    rows = [{"text": f"{SENTINEL} from Ann Lee, order {n}: mail ann{n}@example.org", "unit": f"u{n % 7}"} for n in range(96)]
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    corpus = corpora.read(folder / "data.jsonl", RULES, folder / "corpus")
    write_probes(folder / "probes.jsonl", 12, 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_shards, "RECORDS", 16)
        scrubbed = scrub(corpus, RULES, folder / "scrubbed", probes=folder / "probes.jsonl", mapper=here)
    return folder, corpus, scrubbed


@flow(persist_result=False)
def _under(name: str, folder: Path, function: str, items: list[str]) -> list[int]:
    work = runners.mapper(folder, "scrub")
    return work(getattr(pieces, function), [Path(item) for item in items], lambda *_: None)


@pytest.mark.parametrize("name", ENGINES)
def test_every_engine_gives_the_same_bytes_and_does_only_again_what_a_lost_worker_had_not_finished(
    name, plain, prefect_home, tmp_path, monkeypatch
):
    source, corpus, expected = plain
    monkeypatch.setenv(runners.SETTING, name)
    monkeypatch.setattr(runners, "_ROUNDS", 1)  # several shards in a task
    monkeypatch.setattr(_shards, "RECORDS", 16)
    monkeypatch.setattr(stage_module, "SMALL", 0)
    (tmp_path / "worked").mkdir()
    told = []

    @flow(name="scrub-under", persist_result=False)
    def once() -> Scrubbed:
        return scrub(
            corpus,
            RULES,
            tmp_path / "scrubbed",
            probes=source / "probes.jsonl",
            mapper=lambda _, items, done: runners.mapper(tmp_path, "scrub")(pieces.scrub, items, done),
            progress=lambda done, total, **_: told.append((done, total)),
        )

    made = once()
    for written in ("records.jsonl", "spans.jsonl"):
        assert (made.folder / written).read_bytes() == (expected.folder / written).read_bytes()
    assert made.model_copy(update={"folder": expected.folder, "seconds": expected.seconds}) == expected
    assert told[-1] == (96, 96)
    workers = {path.name: path.read_text().split() for path in sorted((tmp_path / "worked").iterdir())}
    assert {shard: len(own) for shard, own in workers.items()} == dict.fromkeys(workers, 1) | {"00002": 2}
    assert len(workers) == 6
    assert all(str(os.getpid()) not in own for own in workers.values())
    assert not holding(prefect_home, SENTINEL)
    assert {path.parent.name for path in holding(tmp_path, SENTINEL)} == {"scrubbed"}  # the control; no scratch is left


@pytest.mark.parametrize("name", [*ENGINES[:1], pytest.param("dask:1", marks=[*ENGINES[1].marks, pytest.mark.slow])])
def test_an_error_of_a_task_keeps_its_kind_or_tells_its_kind_only(name, prefect_home, tmp_path, monkeypatch):
    monkeypatch.setenv(runners.SETTING, name)
    (tmp_path / "bad").write_text(SENTINEL)
    with pytest.raises(InputError, match=r"One sentence\."):
        _under(name, tmp_path, "refuse", [str(tmp_path / "bad")])
    with pytest.raises(StageError, match="LookupError") as caught:
        _under(name, tmp_path, "leak", [str(tmp_path / "bad")])
    assert SENTINEL not in str(caught.value)
    assert caught.value.__context__ is None
    assert SENTINEL in (tmp_path / "traceback.txt").read_text()  # the control: there was something to hide
    assert not holding(prefect_home, SENTINEL)


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("", ("threads", None, None)),
        ("threads", ("threads", None, None)),
        ("threads:3", ("threads", 3, None)),
        ("dask", ("dask", None, None)),
        ("dask:tcp://cluster.example:8786", ("dask", None, "tcp://cluster.example:8786")),
        ("dask:tls://10.0.0.1:8786", ("dask", None, "tls://10.0.0.1:8786")),
        ("ray:4", ("ray", 4, None)),
        ("ray:auto", ("ray", None, "auto")),
        ("ray:ray://head.example:10001", ("ray", None, "ray://head.example:10001")),
    ],
)
def test_the_setting_names_engine_and_workers_or_address(said, meant, monkeypatch):
    monkeypatch.setenv(runners.SETTING, said)
    monkeypatch.setattr(runners, "find_spec", lambda name: object())
    assert runners.choice() == meant


@pytest.mark.parametrize(
    "said", ["spark", "dask:", "dask:0", "dask:http://x", "threads:tcp://x:1", "dask:tcp://ann:secret@x:1", "ray:-1", "THREADS"]
)
def test_another_setting_is_refused_in_a_sentence(said, monkeypatch):
    monkeypatch.setenv(runners.SETTING, said)
    monkeypatch.setattr(runners, "find_spec", lambda name: object())
    if said == "dask:":
        assert runners.choice().engine == "dask"
        return
    with pytest.raises(UsageError, match="is not understood: set it to") as caught:
        runners.choice()
    assert "secret" not in str(caught.value)


def test_an_engine_that_is_not_installed_says_how_to_install_it(monkeypatch):
    monkeypatch.setenv(runners.SETTING, "ray")
    monkeypatch.setattr(runners, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'hushtune\[ray\]'"):
        runners.choice()


def test_a_cluster_elsewhere_needs_a_prefect_server_that_it_reaches(monkeypatch):
    for address, refused in (("tcp://cluster.example:8786", True), ("tcp://127.0.0.1:8786", False)):
        chosen = runners.Choice("dask", address=address)
        if refused:
            with pytest.raises(UsageError, match="PREFECT_API_URL"):
                runners._check_reach(chosen)
        else:
            runners._check_reach(chosen)


def test_batches_hold_every_item_once_in_order():
    for count in (1, 2, 7, 100, 5000):
        for workers in (1, 2, 64):
            made = runners.batches(list(range(count)), workers)
            assert [item for batch in made for item in batch] == list(range(count))
            assert len(made) <= max(1 + runners._ROUNDS * workers, 2 + count / runners._MOST)
