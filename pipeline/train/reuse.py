"""Reuse of the frozen layers: what enters the first adapted block never changes, so compute it once for each record.

With LoRA on the top blocks only, the blocks below are the same at every visit of a record. Their output is kept in a
memory-mapped file of the run folder (it is private text in another form, and stays there), and every later visit starts
from it: exactly, since no block looks to the right of a token and padding is on the right.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from pipeline.train.examples import Example, pad

_PARTS = {"layers": "norm", "h": "ln_f"}  # a backbone's list of blocks (Llama and Qwen, GPT-2) and its final norm


class EntryStates:
    """The hidden states [T, d] that enter the first adapted block, of as many records as `cap` bytes hold.

    The least recently used record makes room. `hits` and `misses` count visits.

    Args:
        model: a LoRA model for which `first_adapted` is above zero.
        path: the memory-mapped file, made here with mode 0600.
        longest: tokens of the longest record.
        cap: size of the file in bytes, at most.
        records: number of records there are.
    """

    def __init__(self, model: PeftModel, path: Path, longest: int, cap: int, records: int) -> None:
        self._backbone: Any = model.get_base_model().base_model
        self._first = first_adapted(model)
        width = int(cast(Any, model.get_base_model()).config.hidden_size)
        slots = max(1, min(records, cap // (4 * longest * width)))
        path.unlink(missing_ok=True)  # never share a file that another process still has open
        path.touch(mode=0o600)
        self._states = np.memmap(path, np.float32, "w+", shape=(slots, longest, width))
        self._slots: OrderedDict[str, int] = OrderedDict()
        self.hits = self.misses = 0

    def entering(self, examples: Sequence[Example], padding: int, device: torch.device) -> Tensor:
        """The states of some records, right-padded with zeros, float32 [B, T, d]; those not held are computed and kept."""
        missing = [example for example in examples if example.id not in self._slots]
        self.misses += len(missing)
        self.hits += len(examples) - len(missing)
        fresh = self._compute(missing, padding, device) if missing else {}
        longest = max(len(example.input_ids) for example in examples)
        states = torch.zeros(len(examples), longest, self._states.shape[2])
        for row, example in enumerate(examples):
            length = len(example.input_ids)
            if example.id in fresh:
                states[row, :length] = fresh[example.id]
            else:
                self._slots.move_to_end(example.id)
                states[row, :length] = torch.from_numpy(self._states[self._slots[example.id], :length])
        for name, state in fresh.items():
            self._keep(name, state)
        return states.to(device)

    def forget(self) -> None:
        """Keep nothing of what was seen so far."""
        self._slots.clear()
        self.hits = self.misses = 0

    @contextmanager
    def above(self) -> Iterator[None]:
        """While open, the backbone is its blocks from the first adapted one on; give it `inputs_embeds`."""
        with _only(self._backbone, slice(self._first, None), last=True):
            yield

    @torch.no_grad()
    def faithful(self, vocabulary: int) -> bool:
        """Whether the blocks from the first adapted one on, given what enters it, end where the whole model does.

        Tried on made-up tokens. Some families scale or normalise whatever embeddings they are given.
        """
        ids = tuple(index % vocabulary for index in range(2, 10))
        row = Example("check", "check", ids, ids)
        device = next(self._backbone.parameters()).device
        whole = self._backbone(input_ids=torch.tensor([ids], device=device), use_cache=False).last_hidden_state
        entering = self._compute([row], 0, device)["check"][None].to(device)
        with self.above():
            upper = self._backbone(inputs_embeds=entering, use_cache=False).last_hidden_state
        return torch.allclose(upper, whole, rtol=1e-4, atol=1e-5 * float(whole.abs().max()))

    @torch.no_grad()
    def _compute(self, examples: Sequence[Example], padding: int, device: torch.device) -> dict[str, Tensor]:
        ids, _ = pad(examples, padding)
        exact = torch.autocast(
            device.type, enabled=False
        )  # float32: the records that happen to be computed together do not show
        with exact, _only(self._backbone, slice(0, self._first), last=False):
            states = self._backbone(input_ids=ids.to(device), use_cache=False).last_hidden_state.float().cpu()
        return {example.id: states[row, : len(example.input_ids)] for row, example in enumerate(examples)}

    def _keep(self, name: str, state: Tensor) -> None:
        slot = len(self._slots) if len(self._slots) < len(self._states) else self._slots.popitem(last=False)[1]
        self._states[slot, : len(state)] = state.numpy()
        self._slots[name] = slot


def first_adapted(model: PeftModel) -> int:
    """Index of the first block with an adapter; 0 where every block has one or the model's blocks are not known."""
    base = cast(Any, model.get_base_model())
    backbone = base.base_model
    known = [name for name, norm in _PARTS.items() if hasattr(backbone, name) and hasattr(backbone, norm)]
    blocks = getattr(backbone, known[0]) if known else []
    kinds = getattr(base.config, "layer_types", None)
    if kinds is not None and len(set(kinds)) > 1:
        return 0  # blocks of several kinds are picked by their index, which moves when the lower ones are left out
    for index, block in enumerate(blocks):
        if any(isinstance(module, LoraLayer) for module in block.modules()):
            return index
    return 0


@contextmanager
def _only(backbone: Any, blocks: slice, *, last: bool) -> Iterator[None]:
    """Shorten a backbone to some of its blocks; without the last ones it has no final norm, without the first no positions."""
    name = next(name for name in _PARTS if hasattr(backbone, name))
    swapped = {name: getattr(backbone, name)[blocks]}
    if not last:
        swapped[_PARTS[name]] = nn.Identity()
    elif hasattr(backbone, "wpe"):
        swapped["wpe"] = _Nothing()  # GPT-2 adds positions to whatever embeddings it is given; they are in already
    kept = {key: getattr(backbone, key) for key in swapped}
    try:
        for key, module in swapped.items():
            setattr(backbone, key, module)
        yield
    finally:
        for key, module in kept.items():
            setattr(backbone, key, module)


class _Nothing(nn.Module):
    def forward(self, positions: Tensor) -> Tensor:
        return torch.zeros((), device=positions.device)
