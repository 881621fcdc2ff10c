"""Killed anywhere, any number of times: every noisy step is charged before it is taken, and never more than was reserved."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import folders, models, policy
from pipeline.canaries import Planted
from pipeline.errors import StageError
from pipeline.ledger import Ledger
from pipeline.train import checkpoint, loop
from pipeline.train.loop import Trained, train
from pipeline.train.mechanism import Mechanism
from pipeline.train.optimizer import UnitOptimizer
from pipeline.train.tape import Tape
from tests.train.interrupted import MECHANISM, STEPS, Killed, rules

pytestmark = pytest.mark.usefixtures("quick")


class World:
    """What outlives a kill: the disk, the ledger's count, and what an onlooker saw of the weights."""

    def __init__(self, planted: Planted, base: models.Base, folder: Path) -> None:
        self.planted, self.base, self.folder = planted, base, folder
        self.recorded = 0
        self.history = [0]
        self.noisy = 0  # updates that ever touched weights
        self.paths: dict[str, int] = {}  # digest of weights → how many updates made them
        self.broken: set[str] = set()
        self.countdown = -1

    def point(self) -> None:
        """A place where a kill may fall."""
        self.countdown -= 1
        if self.countdown == 0:
            raise Killed

    def spend(self, taken: int) -> None:
        self.point()
        if taken <= self.recorded or taken > STEPS:
            self.broken.add("the reservation")
        self.recorded = taken
        self.history.append(taken)
        self.point()

    def stepped(self, optimizer: UnitOptimizer, real: Callable[[UnitOptimizer], None]) -> None:
        before = self.paths.get(state_of(optimizer.params), 0)
        real(optimizer)
        self.noisy += 1
        if self.noisy > self.recorded:
            self.broken.add("spend first")
        self.paths[state_of(optimizer.params)] = before + 1
        self.point()

    def run(self, **options: Any) -> Trained:
        with hooks(self):
            return train(
                self.planted, self.base, MECHANISM, rules(), self.folder, claim="c",
                **{"spend": self.spend, "taken": self.recorded} | options,
            )  # fmt: skip


def state_of(parameters: list[torch.Tensor]) -> str:
    return folders.digest([p.detach().flatten().tolist() for p in parameters])


@contextmanager
def hooks(world: World) -> Iterator[None]:
    """Places to die at: around each spend and update, inside and around each write, and before and after each rename."""
    save, replace, write, step = torch.save, os.replace, loop.write_json, UnitOptimizer.step

    def torn(content: object, file: Any) -> None:
        save(content, file)
        file.flush()
        whole = file.tell()
        file.truncate(whole // 2)
        world.point()
        file.truncate(whole)
        file.seek(0)
        save(content, file)

    def renamed(source: Path, target: Path) -> None:
        world.point()
        replace(source, target)
        world.point()

    def written(path: Path, content: object) -> None:
        world.point()
        write(path, content)
        world.point()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "SECONDS", 0.0)
        patch.setattr(checkpoint.torch, "save", torn)
        patch.setattr(os, "replace", renamed)
        patch.setattr(loop, "write_json", written)
        patch.setattr(UnitOptimizer, "step", lambda self: world.stepped(self, step))
        yield


def after_kills(world: World, kills: list[int], **options: Any) -> Trained | None:
    """Run until it is killed at each of the points given, and then to its end; None where every step was lost."""
    for kill in [*kills, -1]:
        world.countdown = kill
        try:
            trained = world.run(**options)
        except Killed:
            continue
        except StageError as error:
            if "before its first checkpoint" not in str(error) or world.recorded != STEPS:
                raise
            return None
        if world.countdown < 0:
            return trained
    raise AssertionError("the last run was killed")


def check(world: World, trained: Trained | None) -> set[str]:
    """Which promises the kills broke."""
    broken = set(world.broken)
    if world.noisy > world.recorded or world.recorded > STEPS:
        broken.add("charged")
    epsilons = [MECHANISM.epsilon(taken, grid=1e-2) for taken in world.history]
    if epsilons != sorted(epsilons):
        broken.add("ε")
    if trained is not None:
        model, _ = models.with_adapter(world.base, trained.adapter)
        now = state_of([p for name, p in model.named_parameters() if "lora_" in name])
        if world.paths.get(now) != trained.updates:
            broken.add("prefix")
        if (trained.steps, trained.noisy_steps) != (world.recorded, world.recorded):
            broken.add("steps")
        if trained.updates > world.noisy:
            broken.add("updates")
        if trained.epsilon != MECHANISM.epsilon():
            broken.add("ε")
    return broken


@settings(max_examples=10, deadline=None, derandomize=True)
@given(kills=st.lists(st.integers(1, 12 * STEPS), max_size=4))
def test_no_kill_undercounts_overspends_or_mixes_weights(planted: Planted, base: models.Base, kills: list[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = World(planted, base, Path(folder) / "trained")
        trained = after_kills(world, kills)
        assert check(world, trained) == set()
        if not kills:
            assert world.noisy == world.recorded == STEPS


def test_every_single_point_of_a_run_may_be_its_last(planted: Planted, base: models.Base, tmp_path: Path) -> None:
    """One kill at each point in turn; a kill between spend and update is the only one that leaves a step charged, not taken."""
    lost = []
    for kill in itertools.count(1):
        world = World(planted, base, tmp_path / str(kill))
        world.countdown = kill
        try:
            world.run()
            break
        except Killed:
            pass
        trained = after_kills(world, [])
        assert check(world, trained) == set()
        assert trained is not None
        lost.append(world.recorded - world.noisy)
    assert kill > 5 * STEPS
    assert set(lost) == {0, 1}
    assert lost.count(1) == STEPS


def test_a_loop_that_updates_before_it_records_is_caught(planted: Planted, base: models.Base, tmp_path: Path) -> None:
    """Negative control: the same checker, a spend that is recorded one update too late."""
    world = World(planted, base, tmp_path / "trained")
    late: list[int] = []

    def spend(taken: int) -> None:
        world.point()
        if late:
            world.recorded = late.pop()
        late.append(taken)

    trained = after_kills(world, [], spend=spend)
    assert "spend first" in check(world, trained)


def test_a_checkpoint_of_other_weights_is_caught(planted: Planted, base: models.Base, tmp_path: Path) -> None:
    """Negative control: weights that no prefix of the steps made, as a torn or mixed checkpoint would give."""
    world = World(planted, base, tmp_path / "trained")
    world.countdown = 20
    with pytest.raises(Killed):
        world.run()
    path = tmp_path / "trained.partial" / checkpoint.NAME
    content = torch.load(path, weights_only=True)
    next(iter(content["weights"].values())).add_(0.1)
    torch.save(content, path)
    assert "prefix" in check(world, after_kills(world, []))


def test_adams_moments_and_counts_go_on_from_the_checkpoint(
    planted: Planted, base: models.Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fresh Adam would take its first step after a kill at full length whatever the gradient. One unit a step is lost."""
    counts: list[float] = []
    step, clip = UnitOptimizer.step, Tape.clip

    def counted(self: UnitOptimizer) -> None:
        step(self)
        counts.append(float(next(iter(self.state.values()))["step"]))

    def die(done: int, total: int, **figures: object) -> None:
        if done == 2:
            raise Killed

    monkeypatch.setattr(checkpoint, "SECONDS", 0.0)
    monkeypatch.setattr(UnitOptimizer, "step", counted)
    monkeypatch.setattr(loop.PoissonSampler, "draw", lambda self: self._units[:3])
    monkeypatch.setattr(Tape, "clip", lambda self, norm: clip(self, norm) + 1)
    options = {"claim": "c", "spend": lambda taken: None}
    with pytest.raises(Killed):
        train(planted, base, MECHANISM, rules(), tmp_path / "t", progress=die, **options)
    trained = train(planted, base, MECHANISM, rules(), tmp_path / "t", taken=2, **options)
    assert counts == [1, 2, 3, 4]
    assert trained.lost_gradients == STEPS
    assert json.loads((trained.folder / "privacy.json").read_text())["lost_gradients"] == STEPS


def test_a_ledger_that_was_set_back_stops_the_run(planted: Planted, base: models.Base, tmp_path: Path) -> None:
    world = World(planted, base, tmp_path / "trained")
    world.countdown = 22
    with pytest.raises(Killed):
        world.run()
    with pytest.raises(StageError, match="restore the ledger"):
        world.run(taken=1)


def test_a_saved_step_costs_little_or_waits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clock = [0.0]
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: clock[0])
    saved = checkpoint.Checkpoint(None, None, tmp_path)  # type: ignore[arg-type]
    assert saved.due()  # the first step, at once
    saved._cost = 0.1
    for at, due in ((0.0, False), (4.9, False), (5.0, True)):
        clock[0] = at
        assert saved.due() is due
    saved._cost = 60.0  # a slow disk: still within twenty seconds
    for at, due in ((19.0, False), (20.0, True)):
        clock[0] = at
        assert saved.due() is due


KILL_STEPS = 60


def work(home: Path, base: models.Base, planted: Planted, folder: Path) -> None:
    """A whole training in a process of its own, through the real ledger, as the flow's tasks do it."""
    run = MECHANISM.model_copy(update={"steps": KILL_STEPS})
    ledger, claim = reserved(home, run)
    trained = train(
        planted, base, run, rules(KILL_STEPS), folder, claim=claim.id, spend=lambda steps: ledger.spend(claim, steps),
        taken=ledger.taken(claim), progress=lambda done, total, **figures: time.sleep(0.02),
    )  # fmt: skip
    ledger.close(claim, trained.steps)


def reserved(home: Path, run: Mechanism) -> tuple[Ledger, Any]:
    ledger = Ledger(home)
    claim = ledger.reserve(
        run="r", lifetime=policy.Lifetime(budget="b", epsilon=1e3, delta=1e-4), sampling_rate=run.sampling_rate,
        noise_multiplier=run.noise_multiplier, steps=run.steps, epsilon=8, delta=run.delta, policy_digest="p", unit="record",
    )  # fmt: skip
    return ledger, claim


def test_kill_minus_nine_through_the_real_ledger(planted: Planted, base: models.Base, tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.train.test_resume"])
    ledger, claim = reserved(tmp_path, MECHANISM.model_copy(update={"steps": KILL_STEPS}))
    recorded = [0]
    generator = torch.Generator().manual_seed(int(time.time()))
    waits = torch.rand(2, generator=generator).tolist()
    for wait in [*waits, None]:
        process = context.Process(target=work, args=(tmp_path, base, planted, tmp_path / "trained"))
        process.start()
        if wait is None:
            process.join(120)
            assert process.exitcode == 0
            break
        end = time.monotonic() + 60
        while ledger.taken(claim) <= recorded[-1] and time.monotonic() < end and process.is_alive():
            time.sleep(0.01)
        time.sleep(0.4 * wait)
        process.kill()
        process.join(60)
        recorded.append(ledger.taken(claim))
        saved = torch.load(tmp_path / "trained.partial" / checkpoint.NAME, weights_only=True)["state"]
        assert 1 <= saved["updates"] <= saved["taken"] <= recorded[-1] <= KILL_STEPS
    assert recorded == sorted(set(recorded)), waits
    trained = folders.finished(tmp_path / "trained", Trained)
    assert trained is not None
    assert ledger.taken(claim) == trained.steps == trained.noisy_steps == KILL_STEPS
    assert 1 <= trained.updates <= KILL_STEPS
    (charge,) = ledger.charges("b")
    assert (charge.charged, charge.closed) == (KILL_STEPS, True)
    spends = [entry.steps for entry in ledger.history("b") if entry.kind == "spend"]
    assert spends == list(range(1, KILL_STEPS + 1))
