"""Randomness of noise and draws is written nowhere and never comes back after a kill."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch

from pipeline import models
from pipeline.canaries import Planted
from pipeline.train import checkpoint, entropy, loop
from pipeline.train.loop import train
from pipeline.train.optimizer import UnitOptimizer
from tests.train.interrupted import MECHANISM, STEPS, Killed, rules

pytestmark = pytest.mark.usefixtures("quick")


class Recorder:
    """The keystream, with every byte it gave and the key that made them."""

    def __init__(self) -> None:
        self.given: list[bytes] = []
        self.stream = entropy._Keystream()

    def __call__(self, buffer: memoryview) -> None:
        self.stream(buffer)
        self.given.append(bytes(buffer))


def randomness_in(folder: Path, given: list[bytes]) -> set[str]:
    """Files that hold any 16 bytes, at the start of a draw, of what drove the noise and the sampler."""
    found = set()
    for path in folder.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        if any(draw[:16] in content or draw[:16].hex().encode() in content for draw in given):
            found.add(path.name)
    return found


def steps_with(planted: Planted, base: models.Base, folder: Path, *, die: int | None, taken: int = 0) -> tuple[list, list]:
    """Noise of every step of a run that is killed right after step `die`, and all the entropy it used."""
    noise: list[torch.Tensor] = []
    keys: list[bytes] = []
    recorder = Recorder()
    urandom, add = os.urandom, UnitOptimizer.add_noise

    def seen(count: int) -> bytes:
        keys.append(urandom(count))
        return keys[-1]

    def noised(self: UnitOptimizer) -> None:
        before = [p.summed_grad.clone() for p in self.params]
        add(self)
        noise.append(torch.cat([(p.grad - b).flatten() for p, b in zip(self.params, before, strict=True)]))

    def progress(done: int, total: int, **figures: object) -> None:
        if done == die:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "urandom", seen)
        patch.setattr(UnitOptimizer, "add_noise", noised)
        patch.setattr(UnitOptimizer.__init__, "__defaults__", (recorder,))
        patch.setattr(loop.PoissonSampler.__init__, "__kwdefaults__", {"absent": 0, "entropy": recorder})
        patch.setattr(checkpoint, "SECONDS", 0.0)
        try:
            train(
                planted, base, MECHANISM, rules(), folder, claim="c", spend=lambda taken: None, taken=taken, progress=progress
            )
        except Killed:
            pass
    return noise, [*recorder.given, *keys]


def test_no_randomness_is_kept_and_none_comes_back(planted: Planted, base: models.Base, tmp_path: Path) -> None:
    whole, _ = steps_with(planted, base, tmp_path / "whole", die=None)
    _, given = steps_with(planted, base, tmp_path / "killed", die=2)
    assert len(given) > 4
    assert randomness_in(tmp_path, given) == set()
    content = torch.load(tmp_path / "killed.partial" / checkpoint.NAME, weights_only=True)
    assert content.keys() == {"weights", "optimizer", "state"}
    assert content["state"].keys() == {"taken", "updates", "empty_draws", "lost_gradients", "seconds", "selection"}
    shutil.copytree(tmp_path / "killed.partial", tmp_path / "again.partial")
    first, _ = steps_with(planted, base, tmp_path / "killed", die=None, taken=2)
    second, given = steps_with(planted, base, tmp_path / "again", die=None, taken=2)
    assert len(first) == len(second) == STEPS - 2
    assert randomness_in(tmp_path, given) == set()
    for one, other in ((first[0], second[0]), (first[0], whole[2]), (second[0], whole[2])):
        assert abs(float(torch.corrcoef(torch.stack([one, other]))[0, 1])) < 0.2


def test_a_checkpoint_with_the_keystream_in_it_is_caught(planted: Planted, base: models.Base, tmp_path: Path) -> None:
    """Negative control."""
    _, given = steps_with(planted, base, tmp_path / "killed", die=2)
    (tmp_path / "killed.partial" / "sampler.state").write_bytes(b"state" + given[0])
    (tmp_path / "killed.partial" / "sampler.json").write_text(given[1].hex())
    assert randomness_in(tmp_path, given) == {"sampler.state", "sampler.json"}
