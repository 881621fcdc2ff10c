"""What leaves a task: a clean error, and never a text."""

import pickle
import stat
import traceback

import pytest
from prefect.logging import disable_run_logger

from flows import stages, tasks
from pipeline import policy
from pipeline.errors import BudgetExhausted, HushtuneError, InputError, StageError
from pipeline.release import publish
from pipeline.runs import Run
from tests.test_gates import POOR, good
from tests.test_release import a_run

SENTINEL = "zq-private-sentinel-7731"


def fail_with(error: Exception) -> None:
    record = f"dear {SENTINEL}"
    try:
        raise LookupError(record)
    except LookupError as cause:
        raise error from cause


def leaving(error: Exception, folder) -> HushtuneError:
    with pytest.raises(HushtuneError) as caught:
        stages.clean("scrub", folder, lambda: fail_with(error))
    return caught.value


@pytest.mark.parametrize("kind", [InputError, StageError, BudgetExhausted])
def test_our_own_errors_keep_their_kind_and_sentence_and_lose_what_is_behind(kind, tmp_path):
    error = leaving(kind("One sentence."), tmp_path)
    assert type(error) is kind
    assert str(error) == "One sentence."
    assert error.__cause__ is None
    assert error.__context__ is None
    assert SENTINEL not in "".join(traceback.format_exception(error))
    assert SENTINEL.encode() not in pickle.dumps(error)
    assert not (tmp_path / "traceback.txt").exists()


def test_any_other_error_says_the_stage_and_its_kind_only(tmp_path):
    error = leaving(ValueError(f"cannot parse {SENTINEL}"), tmp_path)
    assert type(error) is StageError
    assert "scrub" in str(error)
    assert "ValueError" in str(error)
    assert SENTINEL not in "".join(traceback.format_exception(error))
    assert error.__context__ is None


def test_the_whole_traceback_stays_in_the_run_folder_for_its_owner(tmp_path):
    leaving(ValueError(f"cannot parse {SENTINEL}"), tmp_path)
    path = tmp_path / "traceback.txt"
    assert SENTINEL in path.read_text()  # the control: there was something to hide
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert SENTINEL not in str(leaving(ValueError(SENTINEL), None))
    assert list(tmp_path.iterdir()) == []


def test_no_task_caches_or_persists():
    from prefect.cache_policies import NO_CACHE

    from flows import tasks

    found = [value for value in vars(tasks).values() if type(value).__name__ == "Task"]
    assert {task.name for task in found} == {
        "open", "read", "pretrain", "probe", "scrub", "plant", "reserve", "train", "audit", "judge", "report",
        "publish", "hold", "discard",
    }  # fmt: skip
    for task in found:  # what is tried again: test_rules.py
        assert task.cache_policy == NO_CACHE
        assert task.persist_result is False
        assert task.log_prints is False


def test_every_run_has_probes_of_its_own_and_keeps_them(tmp_path):
    rules = policy.load("default")
    one, other = tmp_path / "one.jsonl", tmp_path / "other.jsonl"
    assert tasks._probes(one, rules) == tasks._probes(other, rules) == rules.scrub.probes
    before = one.read_bytes()
    assert other.read_bytes() != before
    assert tasks._probes(one, rules) == rules.scrub.probes  # taken up again
    assert one.read_bytes() == before


def test_a_policy_without_probes_writes_none_and_stays_without(tmp_path):
    rules = policy.load("default").override(scrub__probes=0)
    assert [tasks._probes(tmp_path / "probes.jsonl", rules) for _ in range(2)] == [0, 0]


def test_a_release_keeps_the_verdict_that_it_was_made_by(tmp_path, monkeypatch):
    """A kill came between the release and the run's end, and the waiver that let it pass has run out since."""
    monkeypatch.delenv("HUSHTUNE_LEDGER_URL", raising=False)
    for run in ("run-1", "run-2"):
        arguments = a_run(tmp_path, run=run)
        ended = Run(name="letters", id=run, home=tmp_path)
        evidence = good(**POOR)
        if run == "run-1":
            publish(**arguments)
        with disable_run_logger(), monkeypatch.context() as patch:
            patch.setattr(stages, "table", lambda *_: None)
            patch.setattr(stages.facts, "took", lambda *_: None)
            verdict = tasks.judge.fn(ended, policy.load("default"), evidence)
        assert verdict.status == ("released" if run == "run-1" else "rejected")  # the second is the control
