"""kill -9 at points across a whole run: every stage, every kind of file operation, and before and after each ledger entry.

After a restart the run completes, or is refused in one sentence; no half release is ever visible, no spend is lost.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
import torch

from pipeline.audit import Evidence
from pipeline.errors import HushtuneError
from pipeline.folders import stage
from pipeline.ledger import Ledger
from pipeline.release import releases, verify
from tests.flows import line, whole
from tests.test_gates import good

OPERATIONS = ["open", "fsync", "mkdir", "rename", "replace", "unlink", "symlink", "chmod"]
ENTRIES = ["reserve", "spend", "close", "note_once", "note"]
RUN = "killed-run"


class Applied:
    """Counts, in shared memory, the noisy steps that really touched the weights."""

    def __init__(self) -> None:
        self.count = torch.zeros(1, dtype=torch.int64).share_memory_()

    def watch(self, patch: pytest.MonkeyPatch) -> None:
        from pipeline.train.optimizer import UnitOptimizer

        real = UnitOptimizer.step

        def step(optimizer, *rest, **more):
            self.count += 1
            return real(optimizer, *rest, **more)

        patch.setattr(UnitOptimizer, "step", step)


def interrupt(patch: pytest.MonkeyPatch, point: int) -> list[str]:
    """Kill this process at its `point`-th operation; returns the list of those that it has done."""
    done: list[str] = []

    def passed(what: str) -> None:
        done.append(what)
        if len(done) == point:
            os.kill(os.getpid(), signal.SIGKILL)

    def wrap(owner, name: str, after: bool) -> None:
        real = getattr(owner, name)

        def operation(*arguments, **more):
            passed(name)
            result = real(*arguments, **more)
            if after:
                passed(f"after {name}")
            return result

        patch.setattr(owner, name, operation)

    for name in OPERATIONS:
        wrap(os, name, after=False)
    for name in ENTRIES:
        wrap(Ledger, name, after=True)
    return done


def child(work) -> int:
    """Do `work` in a forked process; the exit code, negative where it was killed, 7 where a HushtuneError refused it."""
    sys.stdout.flush()
    number = os.fork()
    if number == 0:
        code = 9
        try:
            work()
            code = 0
        except HushtuneError:
            code = 7
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])


@pytest.fixture
def one_thread():
    """A fork in the middle of torch's own threads would hang."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


PARTS = 6  # of the slow test, so that none takes too long: a run is killed and taken up again at each of some ten points


@pytest.mark.parametrize(("points", "part"), [(3, None), *(pytest.param(40, k, marks=pytest.mark.slow) for k in range(PARTS))])
def test_a_run_killed_anywhere_completes_or_is_refused_and_loses_no_spend(
    place, tmp_path, monkeypatch, one_thread, points, part
):
    monkeypatch.delenv("HUSHTUNE_LEDGER_URL", raising=False)
    unprobed = {"figure": "privacy.epsilon", "judge": "value", "at_most": 8, "at_least": None}
    content = line.policy(place) | {"name": "open", "scrub": {"probes": 0, "entities": ["EMAIL_ADDRESS"]}}
    rules = line.write(tmp_path / "open.yaml", content | {"gates": line.OPEN_GATES | {"scrub_recall": unprobed}})
    if points < 10:  # the attacks take longest and write least
        monkeypatch.setattr(whole.audit, "audit", quick_audit)

    def call(home: Path) -> None:
        assert whole.run(home, place / "data.jsonl", rules, "data", RUN) == "released"

    with pytest.MonkeyPatch.context() as patch:  # once without a kill: it warms what the children inherit, and counts
        done = interrupt(patch, -1)
        call(tmp_path / "whole")
    assert len(done) > 30
    assert set(ENTRIES) | {"replace", "rename", "symlink", "fsync"} <= set(done)
    before_entries = [place for place, name in enumerate(done, 1) if name.removeprefix("after ") in ENTRIES]
    spread = [1 + round(k * (len(done) - 1) / max(1, points - 1)) for k in range(points)]
    chosen = sorted({*spread, *(before_entries if points > 10 else before_entries[3:4])})
    if part is not None:
        chosen = chosen[len(chosen) * part // PARTS : len(chosen) * (part + 1) // PARTS]
    print("kill points:", *(f"{point} {done[point - 1]}" for point in chosen), f"of {len(done)}", sep="\n  ")
    for point in chosen:
        home, applied = tmp_path / f"at-{point}", Applied()

        def killed(home=home, point=point, applied=applied) -> None:
            patch = pytest.MonkeyPatch()
            applied.watch(patch)
            interrupt(patch, point)
            call(home)

        def restarted(home=home, applied=applied) -> None:
            applied.watch(pytest.MonkeyPatch())
            call(home)

        code = child(killed)
        assert code in (-signal.SIGKILL, 0), (point, done[point - 1])
        visible(home)
        taken_before = taken(home)
        assert int(applied.count) <= taken_before
        code = child(restarted)
        assert code in (0, 7), (point, done[point - 1])
        found = visible(home)
        ledger = Ledger(home)
        ledger.verify()
        charges = ledger.charges("records")
        assert sum(charge.charged for charge in charges) >= int(applied.count)
        assert all(taken_before <= charge.charged <= charge.claim.mechanism.steps for charge in charges)
        assert len(charges) == 1
        if code == 0:
            assert found == 1
            assert charges[0].closed
            assert len(ledger.notes("release", RUN)) == 1


def quick_audit(planted, trained, scrubbed, rules, folder, *, registered) -> Evidence:
    """Evidence as good as any, through the same stage and the same files."""

    assert registered

    def work(partial: Path) -> Evidence:
        return good().model_copy(update={"folder": folder})

    return stage(folder, Evidence, {"trained": trained.adapter_digest}, work)


def taken(home: Path) -> int:
    return sum(charge.taken for charge in Ledger(home).charges("records"))


def visible(home: Path) -> int:
    """How many releases a reader sees, each of which must be whole."""
    found = releases(home)
    for one in found:
        verify(one.folder)
    return len(found)
