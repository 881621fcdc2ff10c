"""The stage: nothing planted survives, offsets fit the originals, crashes lose little, and errors carry no text."""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from faker import Faker

from pipeline import corpus as corpora
from pipeline import mapping
from pipeline.corpus import Corpus, Part, Record, load_records
from pipeline.errors import HushtuneError, InputError, IntegrityError, PolicyError, StageError, UsageError
from pipeline.folders import digest_file
from pipeline.policy import Policy
from pipeline.scrub import Detector, Scrubbed, Span, _shards, detect, export, scrub
from pipeline.scrub import stage as stage_module
from pipeline.scrub.keys import key_file
from pipeline.scrub.probes import write_probes

SENTINEL = "quux4711"
Reader = Callable[..., Corpus]


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_shards, "RECORDS", 4)


@pytest.fixture(scope="module")
def emails() -> list[str]:
    fakers = [Faker(locale) for locale in ("en_US", "de_DE", "fr_FR")]
    for faker in fakers:
        faker.seed_instance(11)
    return sorted({faker.email() for faker in fakers for _ in range(30)})


def messages(emails: list[str]) -> list[str]:
    frames = (
        "Hello 🎉, write to {} please.",
        "{} never answered",
        "From: <{}>\nRefund?",
        "we (Ann, {}) moved",
        "mail {}, or call",
    )
    return [frames[index % len(frames)].format(email) for index, email in enumerate(emails)]


def survivors(scrubbed: Scrubbed, emails: list[str]) -> list[str]:
    """Planted addresses of which the local part or the domain can still be read, each in its own record."""
    records = list(load_records(scrubbed.folder / "records.jsonl"))
    pairs = zip(records, emails, strict=True)
    return [email for record, email in pairs if any(half in record.parts[0].text for half in email.split("@"))]


def test_no_planted_address_survives(read: Reader, policy: Policy, tmp_path: Path, emails: list[str]) -> None:
    scrubbed = scrub(read(messages(emails)), policy, tmp_path / "scrubbed", probes=None)
    assert survivors(scrubbed, emails) == []
    assert scrubbed.entities["EMAIL_ADDRESS"] == scrubbed.records == scrubbed.changed == len(emails)


def test_the_check_fails_without_the_email_recogniser(read: Reader, policy: Policy, tmp_path: Path, emails: list[str]) -> None:
    blind = tuple(entity for entity in policy.scrub.entities if entity != "EMAIL_ADDRESS")
    policy = policy.model_copy(update={"scrub": policy.scrub.model_copy(update={"entities": blind})})
    scrubbed = scrub(read(messages(emails)), policy, tmp_path / "scrubbed", probes=None)
    assert len(survivors(scrubbed, emails)) > len(emails) / 2


def test_spans_point_into_the_original_parts(read: Reader, policy: Policy, tmp_path: Path) -> None:
    corpus = read(
        [
            {"id": "a", "prompt": "🎉🎉 I am at ada@example.org", "completion": "Noted, bob@example.org 👍🏽 too"},
            {"id": "b", "prompt": "nothing here", "completion": "at all"},
        ]
    )
    scrubbed = scrub(corpus, policy, tmp_path / "scrubbed", probes=None)
    original = {record.id: record for record in load_records(corpus.folder / "records.jsonl")}
    found = {line["id"]: line["spans"] for line in lines(scrubbed.folder / "spans.jsonl")}
    values = [original["a"].parts[span["part"]].text[span["start"] : span["end"]] for span in found["a"]]
    assert values == ["ada@example.org", "bob@example.org"]
    assert found["b"] == []
    assert all(set(span) == {"start", "end", "entity", "score", "part"} for span in found["a"])
    new = list(load_records(scrubbed.folder / "records.jsonl"))
    assert new[0] == Record(
        "a",
        original["a"].unit,
        (Part("prompt", "🎉🎉 I am at <EMAIL_ADDRESS>"), Part("completion", "Noted, <EMAIL_ADDRESS> 👍🏽 too")),
    )
    assert new[1] == original["b"]
    assert scrubbed.changed == 1


def test_the_share_that_is_scanned_again_is_drawn_by_id_and_counted(read: Reader, policy: Policy, tmp_path: Path) -> None:
    if detect.second(policy.scrub) is None:
        pytest.skip("no second detector is installed")
    corpus = read([f"order {number}, thanks" for number in range(60)])
    rules = policy.override(scrub__rescan_records=20, scrub__detector="fast")
    first, again = (scrub(corpus, rules, tmp_path / name, probes=None, workers=1) for name in ("one", "two"))
    assert 8 <= first.rescanned == again.rescanned <= 34  # binomial: 20 expected of 60
    assert scrub(corpus, rules.override(scrub__rescan="off"), tmp_path / "off", probes=None).rescanned == 0


def test_one_process_and_two_give_the_same_bytes(
    read: Reader, policy: Policy, tmp_path: Path, emails: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_shards, "RECORDS", 30)
    corpus, probes = read(messages(emails)), tmp_path / "probes.jsonl"
    write_probes(probes, 24, 3)
    one, two = (scrub(corpus, policy, tmp_path / f"with{count}", probes=probes, workers=count) for count in (1, 2))
    for name in ("records.jsonl", "spans.jsonl"):
        assert (one.folder / name).read_bytes() == (two.folder / name).read_bytes()
    assert one.model_copy(update={"folder": two.folder, "seconds": two.seconds}) == two
    assert one.recall[-1].planted == 24


def test_a_crash_loses_only_the_shard_at_hand(
    read: Reader, policy: Policy, tmp_path: Path, emails: list[str], small_shards: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus, work, done = read(messages(emails[:20])), _shards._run, []

    def crash(shard: Path, *rest: object) -> _shards.Counts:
        if len(done) == 3:
            raise MemoryError(SENTINEL)
        done.append(shard.name)
        return work(shard, *rest)

    monkeypatch.setattr(_shards, "_run", crash)
    with pytest.raises(StageError, match="MemoryError"):
        scrub(corpus, policy, tmp_path / "scrubbed", probes=None, workers=1)
    assert not (tmp_path / "scrubbed").exists()
    torn = tmp_path / "scrubbed.partial" / "shards" / "00001.records.jsonl"
    torn.write_bytes(torn.read_bytes()[:-9])  # as if the machine had stopped before the disk had it

    again: list[str] = []
    monkeypatch.setattr(_shards, "_run", lambda shard, *rest: (again.append(shard.name), work(shard, *rest))[1])
    told: list[int] = []
    scrubbed = scrub(
        corpus, policy, tmp_path / "scrubbed", probes=None, workers=1, progress=lambda done, *_, **__: told.append(done)
    )
    assert again == ["00001.jsonl", "00003.jsonl", "00004.jsonl"]
    assert told == [4, 8, 12, 16, 20]  # what an earlier try had done counts
    whole = scrub(corpus, policy, tmp_path / "whole", probes=None, workers=1)
    assert scrubbed.digest == whole.digest
    assert scrubbed.entities == whole.entities
    assert not (scrubbed.folder / "shards").exists()


@pytest.mark.parametrize("spoilt", ["nothing", "a byte", "a file", "a span", "a count"])
def test_what_a_worker_changes_or_drops_is_noticed_by_its_digest(
    spoilt: str, policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = policy.override(scrub__detector="fast", scrub__rescan="off")
    (tmp_path / "data.jsonl").write_text("".join(json.dumps({"text": f"ask ann{n}@example.org"}) + "\n" for n in range(12)))
    corpus = corpora.read(tmp_path / "data.jsonl", quick, tmp_path / "corpus")
    monkeypatch.setattr(_shards, "RECORDS", 4)
    monkeypatch.setattr(stage_module, "SMALL", 0)

    def mapper(function: Callable, items: list, done: Callable) -> list:
        records, spans = _shards.results(items[2].shard)
        results = mapping.here(function, items, done if spoilt != "a count" else lambda *_: None)
        if spoilt == "a byte":
            records.write_bytes(records.read_bytes().replace(b"ask", b"asl", 1))
        elif spoilt == "a file":
            records.unlink()
        elif spoilt == "a span":
            spans.write_bytes(spans.read_bytes()[:-1] + b" ")
        return results

    if spoilt == "nothing":  # the control
        assert scrub(corpus, quick, tmp_path / "scrubbed", probes=None, mapper=mapper).records == 12
        return
    with pytest.raises(StageError, match=r"shard 0000\d are not as their worker"):
        scrub(corpus, quick, tmp_path / "scrubbed", probes=None, mapper=mapper)
    assert not (tmp_path / "scrubbed").exists()
    whole = scrub(corpus, quick, tmp_path / "scrubbed", probes=None, workers=1)  # and the next try mends it
    assert whole.digest == scrub(corpus, quick, tmp_path / "fresh", probes=None, workers=1).digest


def test_a_worker_refuses_other_files_and_another_version(
    policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = tmp_path / "shards" / "00000.jsonl"
    shard.parent.mkdir()
    corpora.save_records(shard, [Record("r", "u", (Part("text", "ask ann@example.org"),))])
    quick = policy.override(scrub__detector="fast", scrub__rescan="off").scrub
    job = _shards.Job(source=shard, scrub=quick, key=None, probes=None, share=1.0, rules=_shards.rules())
    _, piece = _shards.pieces(job, [shard], shard.parent)
    assert isinstance(_shards.work(piece), _shards.Counts)
    shard.write_bytes(shard.read_bytes() + b"\n")
    with pytest.raises(StageError, match=r"does not see 00000\.jsonl"):
        _shards.work(piece)
    with pytest.raises(StageError, match=r"does not see job\.json"):
        _shards.work(piece._replace(job=tmp_path / "elsewhere" / "job.json"))
    monkeypatch.setattr(_shards, "rules", lambda: "other")
    with pytest.raises(StageError, match="another version"):
        _shards.work(_shards.pieces(job, [shard], shard.parent)[1])


@pytest.mark.parametrize("operator", ["hash", "surrogate", "placeholder"])
def test_a_run_that_is_taken_up_with_another_key_starts_again(
    operator: str, policy: Policy, tmp_path: Path, small_shards: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or one half of the replacements would not agree with the other. With `placeholder`, only a column needs the key."""
    quick = policy.override(
        scrub__operator=operator, scrub__detector="fast", scrub__rescan="off", data__columns={"ward": "hash"}
    )
    lines = [{"id": f"r{n}", "text": f"ask ann@example.org {n}", "ward": "West"} for n in range(12)]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    corpus = corpora.read(tmp_path / "data.jsonl", quick, tmp_path / "corpus", with_columns=True)
    old, new = (key_file(tmp_path / name) for name in ("old", "new"))
    work, done = _shards._run, []

    def crash(shard: Path, *rest: object) -> _shards.Counts:
        if len(done) == 2:
            raise MemoryError
        done.append(shard)
        return work(shard, *rest)

    monkeypatch.setattr(_shards, "_run", crash)
    with pytest.raises(StageError):
        scrub(corpus, quick, tmp_path / "scrubbed", probes=None, workers=1, key=old)
    monkeypatch.setattr(_shards, "_run", work)
    resumed = scrub(corpus, quick, tmp_path / "scrubbed", probes=None, workers=1, key=new)
    assert resumed.digest == scrub(corpus, quick, tmp_path / "fresh", probes=None, workers=1, key=new).digest
    assert resumed.digest != scrub(corpus, quick, tmp_path / "other", probes=None, workers=1, key=old).digest


def test_the_same_inputs_are_not_scrubbed_twice(
    read: Reader, policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = read(["mail ada@example.org"])
    first = scrub(corpus, policy, tmp_path / "scrubbed", probes=None)
    monkeypatch.setattr(_shards, "_run", lambda *_: pytest.fail("scrubbed again"))
    assert scrub(corpus, policy, tmp_path / "scrubbed", probes=None) == first
    other = policy.model_copy(update={"scrub": policy.scrub.model_copy(update={"operator": "mask"})})
    with pytest.raises(BaseException, match="scrubbed again"):
        scrub(corpus, other, tmp_path / "scrubbed", probes=None)


class Leaky:
    """A detector that fails as libraries do: with the text in its error and in the log of another."""

    name = "leaky"

    def find(self, texts: list[str]) -> list[list[Span]]:
        try:
            raise KeyError(texts[0])
        except KeyError as error:
            raise ValueError(f"Did not find word '{texts[0]}'") from error


def _everything(error: BaseException) -> str:
    chain = "".join(traceback.format_exception(error))
    return f"{chain} {error!r} {error.args} {error.__dict__} {error.__cause__!r} {error.__context__!r}"


def test_an_error_carries_no_text(
    read: Reader, policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    corpus, probes = read([f"about {SENTINEL}"]), tmp_path / "probes.jsonl"
    probes.write_text(json.dumps({"text": SENTINEL, "spans": []}) + "\n")
    with pytest.raises(ValueError, match=SENTINEL) as control:
        Leaky().find([SENTINEL])
    assert SENTINEL in _everything(control.value)
    monkeypatch.setattr(_shards, "load", lambda scrub: Leaky())
    for given in (None, probes):
        with pytest.raises(StageError, match="ValueError") as caught:
            scrub(corpus, policy, tmp_path / "scrubbed", probes=given, workers=1)
        assert SENTINEL not in _everything(caught.value)
    assert SENTINEL not in caplog.text


def test_an_error_in_a_process_comes_back_as_ours(
    read: Reader,
    policy: Policy,
    tmp_path: Path,
    small_shards: None,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture,
) -> None:
    corpus = read([f"{SENTINEL} number {index}" for index in range(9)])
    split = _shards.split

    def damaged(records: object, folder: Path) -> list[Path]:
        shards = split(records, folder)
        shards[2].write_text(f'{{"{SENTINEL}')
        return shards

    monkeypatch.setattr(_shards, "split", damaged)
    with pytest.raises(HushtuneError) as caught:
        scrub(corpus, policy, tmp_path / "scrubbed", probes=None, workers=2)
    assert SENTINEL not in _everything(caught.value)
    assert SENTINEL not in "".join(capfd.readouterr())


def test_a_wrong_policy_and_wrong_probes_are_named(read: Reader, policy: Policy, tmp_path: Path) -> None:
    corpus = read(["hello"])
    wrong = policy.model_copy(update={"scrub": policy.scrub.model_copy(update={"entities": ("SHOE_SIZE",)})})
    with pytest.raises(PolicyError, match="SHOE_SIZE"):
        scrub(corpus, wrong, tmp_path / "scrubbed", probes=None)
    (tmp_path / "probes.jsonl").write_text("nonsense\n")
    with pytest.raises(InputError, match="line 1"):
        scrub(corpus, policy, tmp_path / "scrubbed", probes=tmp_path / "probes.jsonl")


def test_no_file_but_the_raw_records_holds_a_sentinel(read: Reader, policy: Policy, tmp_path: Path) -> None:
    corpus = read([{"id": "a", "text": f"mail {SENTINEL}@example.org"}])
    scrubbed = scrub(corpus, policy, tmp_path / "scrubbed", probes=None)
    holders = {path for path in tmp_path.rglob("*") if path.is_file() and SENTINEL in path.read_text()}
    assert holders == {tmp_path / "data.jsonl", corpus.folder / "records.jsonl"}
    assert scrubbed.folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in scrubbed.folder.iterdir()} == {0o600}


def test_probes_show_what_a_weaker_policy_misses(read: Reader, policy: Policy, tmp_path: Path, detector: Detector) -> None:
    corpus, probes = read(["hello there"]), tmp_path / "probes.jsonl"
    write_probes(probes, 112, 5)
    full = {row.entity: row for row in scrub(corpus, policy, tmp_path / "full", probes=probes).recall}
    assert full["ALL"].planted == 112
    assert full["ALL"].found >= 105
    assert full["EMAIL_ADDRESS"].found == full["EMAIL_ADDRESS"].planted == 8
    assert full["EMAIL_ADDRESS"].low == pytest.approx(0.05 ** (1 / 8))
    blind = policy.scrub.model_copy(update={"entities": ("PERSON", "LOCATION")})
    weak = {
        row.entity: row
        for row in scrub(corpus, policy.model_copy(update={"scrub": blind}), tmp_path / "weak", probes=probes).recall
    }
    assert weak["EMAIL_ADDRESS"].found < 8
    assert weak["CREDIT_CARD"].low == 0.0


@pytest.mark.parametrize(
    ("row", "line"),
    [
        ({"id": "a", "unit": "u", "text": "hi bob@example.org"}, {"id": "a", "unit": "u", "text": "hi <EMAIL_ADDRESS>"}),
        (
            {"id": "a", "unit": "u", "prompt": "who?", "completion": "bob@example.org"},
            {"id": "a", "unit": "u", "prompt": "who?", "completion": "<EMAIL_ADDRESS>"},
        ),
        (
            {"id": "a", "unit": "u", "messages": [{"role": "user", "content": "bob@example.org 🎉"}]},
            {"id": "a", "unit": "u", "messages": [{"role": "user", "content": "<EMAIL_ADDRESS> 🎉"}]},
        ),
    ],
)
def test_export_gives_the_shape_that_came_in(read: Reader, policy: Policy, tmp_path: Path, row: dict, line: dict) -> None:
    corpus = read([row])
    scrubbed = scrub(corpus, policy, tmp_path / "scrubbed", probes=None)
    assert export(scrubbed, corpus.shape, tmp_path / "out.jsonl", tmp_path / "spans.jsonl") == 1
    assert lines(tmp_path / "out.jsonl") == [line]
    assert (tmp_path / "spans.jsonl").read_bytes() == (scrubbed.folder / "spans.jsonl").read_bytes()


def test_export_refuses_changed_records_and_missing_folders(read: Reader, policy: Policy, tmp_path: Path) -> None:
    scrubbed = scrub(read(["hello"]), policy, tmp_path / "scrubbed", probes=None)
    assert scrubbed.digest == digest_file(scrubbed.folder / "records.jsonl")
    with pytest.raises(UsageError, match="none"):
        export(scrubbed, "text", tmp_path / "none" / "out.jsonl")
    with (scrubbed.folder / "records.jsonl").open("a") as file:
        file.write("\n")
    with pytest.raises(IntegrityError):
        export(scrubbed, "text", tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


def test_processes_follow_the_size_of_the_work() -> None:
    assert stage_module._mapper(None, None, stage_module.SMALL) is mapping.here
    assert stage_module._mapper(None, 1, 10**6) is mapping.here
    assert stage_module._mapper(None, 2, 1) is not mapping.here
    given = lambda *_: []  # noqa: E731
    assert stage_module._mapper(given, None, 10**6) is given
    assert stage_module._mapper(given, None, 1) is mapping.here  # not worth starting anything


def test_long_records_close_a_shard_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_shards, "CHARACTERS", 100)
    records = [Record(str(index), "u", (Part("text", "x" * 60),)) for index in range(5)]
    shards = _shards.split(iter(records), tmp_path)
    assert [len(list(load_records(shard))) for shard in shards] == [2, 2, 1]
    assert [record for shard in shards for record in load_records(shard)] == records
