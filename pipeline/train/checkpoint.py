"""Checkpoints of a training: whole or not there, as often as they are cheap, and never any randomness in them."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from pipeline import models
from pipeline.errors import StageError
from pipeline.folders import sync
from pipeline.train.optimizer import UnitOptimizer

NAME = "checkpoint.pt"
SHARE = 0.02  # of the time that training may spend on saving
SECONDS = 20.0  # between two checkpoints at most, whatever they cost


State = dict[str, Any]
"""What a training carries over a kill beside its weights: counts, the public choice so far, and seconds.

`taken` is the number of noisy steps charged when the weights were saved, `updates` how many of them are in the weights.
"""


class Checkpoint:
    """The checkpoint of one training, in `folder`; says when the next one is due."""

    def __init__(self, model: PeftModel, optimizer: UnitOptimizer, folder: Path) -> None:
        self._model, self._optimizer, self._folder = model, optimizer, folder
        self._saved = time.monotonic()
        self._cost = 0.0  # unknown: the first step is saved at once

    def load(self) -> State:
        """Put the weights and the optimizer where the last checkpoint left them, if there is one.

        Raises:
            StageError: the checkpoint holds other weights than the model trains.
        """
        path = self._folder / NAME
        if not path.exists():
            return fresh()
        content = torch.load(path, map_location=models.device(), weights_only=True)
        put(self._model, content["weights"])
        self._optimizer.load_state_dict(content["optimizer"])
        return content["state"]

    def due(self) -> bool:
        """Whether saving now costs at most `SHARE` of the time since the last time, or that was `SECONDS` ago."""
        return time.monotonic() - self._saved >= min(SECONDS, self._cost / SHARE)

    def save(self, state: State) -> None:
        """Write everything beside the old checkpoint, then put it in its place in one step; a kill leaves one of the two."""
        started = time.monotonic()
        state["seconds"] += started - self._saved
        content = {
            "weights": weights(self._model),
            "optimizer": self._optimizer.state_dict(),
            "state": state,
        }
        partial = self._folder / f"{NAME}.tmp"
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, self._folder / NAME)
        sync(self._folder)
        self._saved = time.monotonic()
        self._cost = self._saved - started


def fresh() -> State:
    """The state of a training that has taken no step."""
    return {"taken": 0, "updates": 0, "empty_draws": 0, "lost_gradients": 0, "seconds": 0.0, "selection": None}


def weights(model: PeftModel) -> dict[str, torch.Tensor]:
    """Copies of the trained weights, by name."""
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


@torch.no_grad()
def put(model: PeftModel, held: dict[str, torch.Tensor]) -> None:
    """Give the trained weights the values that `weights` copied.

    Raises:
        StageError: they are not the weights that the model trains.
    """
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if trained.keys() != held.keys() or any(trained[name].shape != value.shape for name, value in held.items()):
        raise StageError("The checkpoint holds other weights than this model trains: start another run with --new.")
    for name, parameter in trained.items():
        parameter.copy_(held[name])
