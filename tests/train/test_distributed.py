"""Two processes against one: the same law, the same update, one noise, one ledger; and the end of all when one dies."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from scipy import stats

from pipeline import models, policy
from pipeline.canaries import Planted
from pipeline.corpus import Part, Record, save_records
from pipeline.errors import StageError, UsageError
from pipeline.folders import digest_file, write_json
from pipeline.ledger import Claim, Ledger
from pipeline.train import __main__ as entry
from pipeline.train import launch, loop
from pipeline.train import optimizer as optimizer_module
from pipeline.train.distributed import Alone, Team
from pipeline.train.examples import Example
from pipeline.train.mechanism import Mechanism
from pipeline.train.sampling import PoissonSampler
from tests import tiny
from tests.train import worker

# Of all, of none, of a single unit (so one process has none), of some.
FORCED = [list(range(60)), [], [7], list(range(0, 60, 5)), list(range(3, 40))]


class Job(NamedTuple):
    folder: Path
    planted: Planted
    base: models.Base
    rules: policy.Policy
    mechanism: Mechanism
    claim: Claim
    ledger: Ledger


def make(home: Path, steps: int, **probe: Any) -> Job:
    """A run with a reserved budget, as the flow leaves it before training."""
    folder = home / "runs" / "job"
    (folder / "planted").mkdir(parents=True)
    records = (Record(f"r{i}", f"r{i}", (Part("text", " " + tiny.sentence(i, 3 + i % 9)),)) for i in range(60))
    save_records(folder / "planted" / "train.jsonl", records)
    counts = {"train_records": 60, "train_units": 60, "held_out_records": 0, "held_out_units": 0, "canaries": 0, "included": 0}
    counts |= {"secrets": 0, "secrets_included": 0}
    digest = digest_file(folder / "planted" / "train.jsonl")
    planted = Planted(folder=folder / "planted", manifest_digest="m", digest=digest, **counts)
    write_json(folder / "planted" / "stage.json", {"inputs": "k", "value": planted.model_dump(mode="json")})
    base = models.resolve(str(tiny.save(home / "tiny")), home)
    rules = policy.load("default").override(
        model=str(base.folder), train__expected_batch=15, train__steps=steps, train__learning_rate=0.01,
        train__microbatch_tokens=64, data__max_tokens=32,
    )  # fmt: skip
    write_json(folder / "policy.json", rules.model_dump(mode="json"))
    mechanism = Mechanism(
        unit="record", units=60, expected_batch=15, steps=steps, noise_multiplier=2.0, clipping_norm=0.1, delta=1e-3
    )
    ledger = Ledger(home)
    lifetime = rules.privacy.lifetime.model_copy(update={"epsilon": 100.0})
    claim = ledger.reserve(
        run="job", lifetime=lifetime, sampling_rate=mechanism.sampling_rate, noise_multiplier=2.0, steps=steps, epsilon=8.0,
        delta=1e-3, policy_digest="p", unit="record",
    )  # fmt: skip
    write_json(folder / "claim.json", claim.model_dump(mode="json"))
    write_json(folder / "mechanism.json", mechanism.model_dump(mode="json"))
    (folder / "probe.json").write_text(json.dumps({"draws": None, "checkpoint": 0.0} | probe))
    return Job(folder, planted, base, rules, mechanism, claim, ledger)


def recorded(job: Job) -> list[int]:
    return [entry.steps for entry in job.ledger.history(job.claim.budget) if entry.kind == "spend"]


def alone(job: Job, folder: Path) -> loop.Trained:
    """The job's training by this one process."""
    return loop.train(
        job.planted, job.base, job.mechanism, job.rules, folder, claim=job.claim.id,
        spend=lambda steps: job.ledger.spend(job.claim, steps), taken=job.ledger.taken(job.claim),
    )  # fmt: skip


class Both(NamedTuple):
    job: Job
    trained: loop.Trained
    progress: list[tuple[int, int]]
    found: list[dict[str, Any]]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Both:
    """A training by two processes with given draws and no noise, and what each of the two saw."""
    job = make(tmp_path_factory.mktemp("home"), len(FORCED), draws=FORCED, checkpoint=20.0)
    progress: list[tuple[int, int]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch, "_MODULE", "tests.train.worker")
        trained = launch.train(job.folder, 2, lambda done, total, **_: progress.append((done, total)))
    return Both(job, trained, progress, [json.loads((job.folder / f"found-{rank}.json").read_text()) for rank in range(2)])


def test_two_processes_take_the_update_that_one_takes(both: Both, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PoissonSampler, "draw", PoissonSampler.draw)  # the forced one is taken back with the patch
    monkeypatch.setattr(optimizer_module, "add_normal", optimizer_module.add_normal)
    worker.force(FORCED)
    job = make(tmp_path, len(FORCED))
    one, two = (load_file(t.adapter / "adapter_model.safetensors") for t in (alone(job, tmp_path / "one"), both.trained))
    assert one.keys() == two.keys()
    assert max(float(value.abs().max()) for value in one.values()) > 0.01
    assert max(float((one[key] - two[key]).abs().max()) for key in one) < 1e-5


def test_every_step_is_recorded_once_and_shown(both: Both) -> None:
    steps = list(range(1, len(FORCED) + 1))
    assert recorded(both.job) == steps
    assert [done for done, _ in both.progress] == steps
    assert (both.trained.steps, both.trained.empty_draws) == (len(FORCED), 1)
    losses = [json.loads(line) for line in (both.trained.folder / "losses.jsonl").read_text().splitlines()]
    assert [line["units"] for line in losses] == [len(draw) for draw in FORCED]
    assert both.trained.epsilon == both.job.mechanism.epsilon()


def test_no_process_applies_an_update_before_its_spend_is_recorded(both: Both) -> None:
    spends = [at for what, at in both.found[0]["seen"] if what == "spend"]
    assert len(spends) == len(FORCED)
    for found in both.found:
        updates = [at for what, at in found["seen"] if what == "update"]
        assert all(update > spend for update, spend in zip(updates, spends, strict=True))
    assert not any(what == "spend" for what, _ in both.found[1]["seen"])


def test_noise_is_added_once(both: Both) -> None:
    sigma = 1.7 * 0.5
    for found in both.found:
        assert found["noise"]["std"] == pytest.approx(sigma, rel=0.02)
        assert found["noise"]["mean"] == pytest.approx(3.0, abs=0.02)  # 1 + 2: what the two processes held
        assert found["each_noises"]["std"] == pytest.approx(2**0.5 * sigma, rel=0.02)  # the control: seen if it were twice
    assert both.found[0]["noise"]["first"] == both.found[1]["noise"]["first"]


def frequencies(draws: list[list[str]]) -> float:
    """p-value of the units' frequencies under the sampling rate (chi-squared with a degree of freedom for each unit)."""
    rate = worker.BATCH / worker.UNITS
    counts = np.array([sum(f"e{unit}" in draw for draw in draws) for unit in range(worker.UNITS)])
    square = (counts - worker.DRAWS * rate) ** 2 / (worker.DRAWS * rate * (1 - rate))
    return float(stats.chi2.sf(square.sum(), worker.UNITS))


def test_units_enter_with_the_sampling_rate_and_each_is_taken_by_one_process(both: Both) -> None:
    first, second = both.found
    assert first["drawn"] == second["drawn"]
    assert [sorted(a + b) for a, b in zip(first["shares"], second["shares"], strict=True)] == first["drawn"]
    assert frequencies(first["drawn"]) > 1e-5
    # The control: two processes that both drew from all units would let a unit in more often.
    twice = [sorted({*a, *b}) for a, b in zip(first["drawn"], first["drawn"][1:] + first["drawn"][:1], strict=True)]
    assert frequencies(twice) < 1e-5


def test_weights_that_differ_in_the_last_bit_stop_all(both: Both) -> None:
    assert all("hold 2 different adapters" in found["differ"] for found in both.found)


@given(st.lists(st.integers(0, 500), unique=True, max_size=40), st.integers(1, 5))
def test_shares_are_equal_and_hold_every_unit_once(units: list[int], size: int) -> None:
    draw = [[Example(f"e{unit}", "u", (0,), (0,))] for unit in units]
    shares = []
    for rank in range(size):
        member = object.__new__(Team)
        member.rank, member.size = rank, size
        shares.append(member.share(draw))
    assert sorted(unit[0].id for share in shares for unit in share) == sorted(unit[0].id for unit in draw)
    assert max(map(len, shares)) <= -(-len(units) // size)


@pytest.mark.skipif(sys.platform != "linux", reason="finds the process to kill in /proc")
def test_when_one_process_is_killed_all_end_at_once_and_one_process_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make(tmp_path, 8)
    started: list[subprocess.Popen[str]] = []
    popen = subprocess.Popen

    def noted(*args: Any, **options: Any) -> subprocess.Popen[str]:
        started.append(popen(*args, **options))
        return started[-1]

    def kill(done: int, total: int, **_: object) -> None:
        nonlocal killed
        if done == 3:
            for child in Path(f"/proc/{started[0].pid}/task/{started[0].pid}/children").read_text().split():
                if b"\0RANK=1\0" in b"\0" + Path(f"/proc/{child}/environ").read_bytes():
                    os.kill(int(child), signal.SIGKILL)
                    killed = time.monotonic()

    killed = 0.0
    monkeypatch.setattr(launch.subprocess, "Popen", noted)
    monkeypatch.setattr(launch, "_MODULE", "tests.train.worker")
    with pytest.raises(StageError, match="ended or fell silent"):
        launch.train(job.folder, 2, kill)
    assert killed
    assert time.monotonic() - killed < 10
    assert started[0].returncode != 0
    spent = recorded(job)
    assert spent == list(range(1, len(spent) + 1))
    assert 3 <= len(spent) < 8
    assert (job.folder / "trained.partial" / "checkpoint.pt").is_file()
    trained = alone(job, job.folder / "trained")
    assert recorded(job) == list(range(1, 9))
    assert trained.steps == 8


class Lines:
    """A process that printed these lines."""

    def __init__(self, *lines: str) -> None:
        self.stdout = lines


def test_a_failure_is_told_as_its_own_sentence_and_not_as_the_loss_of_a_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def leave(code: int) -> None:
        raise SystemExit(code)

    monkeypatch.setattr(entry.os, "_exit", leave)
    monkeypatch.setattr(entry.distributed, "joined", lambda: nullcontext(Alone()))
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(SystemExit) as left:
        entry.main([str(tmp_path)])
    assert left.value.code == 2
    line = capfd.readouterr().out
    lost = json.dumps({"error": "LostProcess", "message": "A process ended."})
    shown: list[tuple[int, float]] = []
    step = json.dumps({"done": 1, "total": 2, "epsilon": 0.5})
    failures = launch._follow(
        Lines(step, "a library's own line", lost, line), lambda done, total, epsilon: shown.append((done, epsilon))
    )
    assert shown == [(1, 0.5)]
    error = launch._first(failures)
    assert type(error) is UsageError
    assert "holds no run that has reserved its budget" in str(error)
    assert type(launch._first(failures[:1])) is StageError


def test_an_unexpected_error_leaves_its_text_in_the_run_folder_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise ValueError("dear zq-private")

    monkeypatch.setattr(entry.os, "_exit", lambda code: None)
    monkeypatch.setattr(entry.distributed, "joined", lambda: nullcontext(Alone()))
    monkeypatch.setattr(entry, "_train", broken)
    monkeypatch.setenv("RANK", "0")
    entry.main([str(tmp_path)])
    output = capfd.readouterr()
    assert "ValueError" in output.out
    assert "zq-private" not in output.out + output.err
    assert "zq-private" in (tmp_path / "traceback.txt").read_text()


def test_numbers_of_processes_that_cannot_run_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="at least one process"):
        launch.check(0)
    launch.check(2)
    monkeypatch.setattr(launch.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(launch.torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UsageError, match="1 GPUs"):
        launch.check(2)


@pytest.mark.slow
def test_two_machines_take_the_update_that_two_processes_take(
    both: Both, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two torchruns that meet by address, as on two machines: the draws and the noise are still those of process 0 alone."""
    job = make(tmp_path, len(FORCED), draws=FORCED, checkpoint=20.0)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setattr(launch, "_MODULE", "tests.train.worker")
    monkeypatch.setenv(launch.MACHINES, f"2@127.0.0.1:{port}")
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    other = subprocess.Popen(
        launch.command(job.folder, 1, launch.machines(), rank=1), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        trained = launch.train(job.folder, 1)
        assert other.wait(120) == 0
    finally:
        other.kill()
    one, two = (load_file(t.adapter / "adapter_model.safetensors") for t in (trained, both.trained))
    assert one.keys() == two.keys()
    assert max(float((one[key] - two[key]).abs().max()) for key in one) < 1e-5
    assert recorded(job) == list(range(1, len(FORCED) + 1))  # once each, by one of them
    ranks = [json.loads((job.folder / f"found-{rank}.json").read_text()) for rank in range(2)]
    assert len(ranks) == 2


@pytest.mark.parametrize("said", ["1@host:29400", "2", "2@host", "two@host:1", "2@:29400", "2@a b:1"])
def test_machines_that_are_not_understood_are_refused(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(launch.MACHINES, said)
    with pytest.raises(UsageError, match="COUNT@HOST:PORT"):
        launch.check(1)
    monkeypatch.setenv(launch.MACHINES, "16@10.0.0.1:29400")
    assert launch.machines() == (16, "10.0.0.1", 29400)
    monkeypatch.delenv(launch.MACHINES)
    assert launch.machines() is None
    assert "--standalone" in launch.command(Path("run"), 2, None)
