"""How fast a private training step is, against the same step without privacy and against Opacus.

Every way of taking a step is timed in turn, round after round, in one process, so that a machine that slows down slows them
all; the figures are medians and ratios of medians. Peak memory is taken in a process of its own for each way.

On a GPU every way computes under bfloat16 autocast with float32 adapters, the clock waits for the GPU, and each way's matrix
products are put beside what the card does with one large bfloat16 product.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import torch
from opacus.grad_sample import GradSampleModule
from opacus.grad_sample.grad_sample_module_fast_gradient_clipping import GradSampleModuleFastGradientClipping
from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping
from opacus.utils.fast_gradient_clipping_utils import DPTensorFastGradientClipping
from peft import PeftModel
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from pipeline import models
from pipeline.errors import UsageError
from pipeline.models import ladder
from pipeline.policy import Lora
from pipeline.recipe import Architecture
from pipeline.train.examples import Even, Example
from pipeline.train.gradients import UnitGradients, autocast, precision_on
from pipeline.train.mechanism import Mechanism
from pipeline.train.optimizer import UnitOptimizer
from pipeline.train.plain import PlainGradients
from pipeline.train.reuse import EntryStates

Step = Callable[[], object]


class Shape:
    """A model shape with random weights, and the batch that is trained on: `batch` records of `tokens` tokens."""

    def __init__(self, make: Callable[[], PreTrainedModel], batch: int, tokens: int) -> None:
        self.make, self.batch, self.tokens = make, batch, tokens
        self.device = torch.device("cpu")

    def on(self, device: torch.device) -> Shape:
        """The same shape on a device."""
        moved = Shape(self.make, self.batch, self.tokens)
        moved.device = device
        return moved

    def autocast(self) -> AbstractContextManager[Any]:
        """What every way's forward pass runs in."""
        return autocast(self.device, precision_on(self.device))


def _smollm2() -> PreTrainedModel:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=49_152,
            hidden_size=576,
            intermediate_size=1536,
            num_hidden_layers=30,
            num_attention_heads=9,
            num_key_value_heads=3,
            max_position_embeddings=2048,
            tie_word_embeddings=True,
        )
    )


SHAPES = {
    "nano": Shape(lambda: LlamaForCausalLM(Architecture().config(8192, 0, 0, 1)), 16, 128),
    "gpt2": Shape(
        lambda: GPT2LMHeadModel(
            GPT2Config(
                n_layer=6,
                n_embd=384,
                n_head=6,
                vocab_size=16_384,
                n_positions=512,
                bos_token_id=0,
                eos_token_id=0,
                resid_pdrop=0.0,
                embd_pdrop=0.0,
                attn_pdrop=0.0,  # for every way: ours never drops
            )
        ),
        16,
        128,
    ),
    "smollm2-135m": Shape(_smollm2, 8, 64),
    "smollm2-135m-gpu": Shape(_smollm2, 32, 256),
}


def _examples(shape: Shape, vocabulary: int, count: int | None = None) -> list[Example]:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(2, vocabulary, (count or shape.batch, shape.tokens), generator=generator).tolist()
    return [Example(f"e{i}", f"u{i}", tuple(row), (-100, *row[1:])) for i, row in enumerate(rows)]


def _adapted(shape: Shape, layers: Any = "all") -> PeftModel:
    torch.manual_seed(0)
    base = cast(Any, shape.make())
    model = base.to(shape.device).eval().requires_grad_(False)
    return models.adapt(model, Lora(layers=layers), 0)


def _trainable(model: torch.nn.Module) -> list[torch.nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def _tensors(shape: Shape, model: Any) -> tuple[torch.Tensor, torch.Tensor]:
    rows = _examples(shape, model.config.vocab_size)
    ids, labels = torch.tensor([e.input_ids for e in rows]), torch.tensor([e.labels for e in rows])
    return ids.to(shape.device), labels.to(shape.device)


def stock(shape: Shape) -> Step:
    """Non-private peft LoRA as it comes: the model's own loss, plain backward, Adam."""
    model = _adapted(shape).train()
    ids, labels = _tensors(shape, model.get_base_model())
    optimizer = torch.optim.Adam(_trainable(model), lr=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        with shape.autocast():
            loss = model(input_ids=ids, labels=labels, use_cache=False).loss
        loss.backward()
        optimizer.step()

    return step


def _mechanism(shape: Shape) -> Mechanism:
    return Mechanism(
        unit="record", units=10**4, expected_batch=shape.batch, steps=1, noise_multiplier=1.0, clipping_norm=1.0, delta=1e-6
    )


def _ours(shape: Shape, kind: type[UnitGradients], layers: Any = "all", folder: Path | None = None) -> Step:
    model = _adapted(shape, layers)
    base = cast(Any, model.get_base_model())
    rows = _examples(shape, base.config.vocab_size)
    states = EntryStates(model, folder / "states", shape.tokens, 10**10, len(rows)) if folder else None
    gradients = kind(model, 1.0, 0, states, precision_on(shape.device), Even(shape.tokens, shape.batch * shape.tokens))
    trained = _trainable(model)
    adam = torch.optim.Adam(trained, lr=1e-4)
    optimizer = UnitOptimizer(adam, _mechanism(shape))

    def step() -> None:
        with gradients.attached():
            gradients.add([[row] for row in rows])
        if kind is not PlainGradients:
            optimizer.step()
            return
        for parameter in trained:
            parameter.grad, parameter.summed_grad = parameter.summed_grad / len(rows), None  # type: ignore[attr-defined]
        adam.step()

    return step


def private(shape: Shape) -> Step:
    """Ours: direct per-unit gradients, clipped, noised."""
    return _ours(shape, UnitGradients)


def plain(shape: Shape) -> Step:
    """Non-private on our own kernels."""
    return _ours(shape, PlainGradients)


def reused(shape: Shape) -> Step:
    """Ours with LoRA on the top half of the layers and the frozen lower half reused: a record's second visit on."""
    folder = TemporaryDirectory()
    step = _ours(shape, UnitGradients, "top_half", Path(folder.name))
    step()
    step.folder = folder  # type: ignore[attr-defined]
    return step


def opacus_hooks(shape: Shape) -> Step:
    """Opacus's grad-sample hooks with its DP optimizer."""
    adapted = _adapted(shape).train()
    model = GradSampleModule(adapted, loss_reduction="mean", strict=False)
    ids, labels = _tensors(shape, adapted.get_base_model())
    optimizer = DPOptimizer(
        torch.optim.Adam(_trainable(model), lr=1e-4),
        noise_multiplier=1.0,
        max_grad_norm=1.0,
        expected_batch_size=shape.batch,
    )

    def step() -> None:
        optimizer.zero_grad()
        with shape.autocast():
            logits = model(input_ids=ids, use_cache=False).logits
        _record_losses(logits, labels).mean().backward()
        optimizer.step()

    return step


def opacus_ghost(shape: Shape) -> Step:
    """Opacus's ghost clipping."""
    adapted = _adapted(shape).train()
    model = GradSampleModuleFastGradientClipping(
        adapted, loss_reduction="mean", max_grad_norm=1, use_ghost_clipping=True, strict=False
    )
    ids, labels = _tensors(shape, adapted.get_base_model())
    optimizer = DPOptimizerFastGradientClipping(
        torch.optim.Adam(_trainable(model), lr=1e-4),
        noise_multiplier=1.0,
        max_grad_norm=1.0,
        expected_batch_size=shape.batch,
    )

    def step() -> None:
        optimizer.zero_grad()
        with shape.autocast():
            logits = model(input_ids=ids, use_cache=False).logits
        losses = _record_losses(logits, labels)
        DPTensorFastGradientClipping(model, optimizer, losses, "mean").backward()
        optimizer.step()

    return step


def _record_losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    losses = torch.nn.functional.cross_entropy(logits[:, :-1].float().transpose(1, 2), labels[:, 1:], reduction="none")
    return losses.mean(1)


WAYS: dict[str, Callable[[Shape], Step]] = {
    "stock": stock,
    "plain": plain,
    "private": private,
    "private_reused": reused,
    "opacus_hooks": opacus_hooks,
    "opacus_ghost": opacus_ghost,
}


def run(shapes: list[str], rounds: int, threads: int = 2, *, memory: bool = True, device: str = "cpu") -> dict[str, Any]:
    """Time every way on every shape.

    Args:
        shapes: names of `SHAPES`.
        rounds: timed rounds; each takes one step of every way, in turn.
        threads: of torch.
        memory: measure peak memory too, each way in a process of its own.
        device: cpu or cuda.

    Returns:
        For each shape: median seconds and tokens/s of each way, the ratios that matter, and peak memory in MB above the
        loaded model; with the versions, threads and batch used. On a GPU also its name, its rate for one large product
        (FLOP/s), and the share of it that each way's matrix products reach.

    Raises:
        UsageError: there is no GPU that computes in bfloat16.
    """
    place = _place(device)
    torch.set_num_threads(threads)
    packages = ("torch", "opacus", "peft", "transformers")
    result: dict[str, Any] = {"threads": threads, "rounds": rounds, "versions": {name: version(name) for name in packages}}
    result["device"] = torch.cuda.get_device_name() if place.type == "cuda" else "cpu"
    rate = result["matrix_flops"] = ladder.matrix_rate(8192, place.type) if place.type == "cuda" else None
    for name in shapes:
        shape = SHAPES[name].on(place)
        result[name] = _shape(shape, rounds)
        if rate:
            speeds = result[name]["tokens_per_second"]
            result[name]["matrix_share"] = {way: speed * _flops(shape) / rate for way, speed in speeds.items()}
        if memory:
            peaks = {way: _peak(name, way, threads, device) for way in WAYS}
            result[name]["peak_mb"] = peaks
            result[name]["ratios"]["memory_private_to_stock"] = peaks["private"] / peaks["stock"]
    return result


def _shape(shape: Shape, rounds: int) -> dict[str, Any]:
    steps = {way: make(shape) for way, make in WAYS.items()}
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    for turn in range(rounds + 1):
        for way, step in steps.items():
            _settle(shape.device)
            started = time.perf_counter()
            step()
            _settle(shape.device)
            if turn:  # the first round warms up
                times[way].append(time.perf_counter() - started)
    median = {way: statistics.median(values) for way, values in times.items()}
    best_opacus = min(median["opacus_hooks"], median["opacus_ghost"])
    return {
        "batch": [shape.batch, shape.tokens],
        "seconds": median,
        "tokens_per_second": {way: shape.batch * shape.tokens / value for way, value in median.items()},
        "ratios": {
            "private_to_stock": median["stock"] / median["private"],
            "private_to_plain": median["plain"] / median["private"],
            "private_to_best_opacus": best_opacus / median["private"],
            "reused_to_stock": median["stock"] / median["private_reused"],
            "plain_to_stock": median["stock"] / median["plain"],
            "opacus_hooks_to_stock": median["stock"] / median["opacus_hooks"],
            "opacus_ghost_to_stock": median["stock"] / median["opacus_ghost"],
        },
    }


def _place(device: str) -> torch.device:
    if device == "cpu":
        return torch.device("cpu")
    if device != "cuda":
        raise UsageError(f"There is no device {device}: give --device cpu or cuda.")
    if not torch.cuda.is_available() or not torch.cuda.is_bf16_supported():
        raise UsageError("There is no GPU here that computes in bfloat16: leave --device cuda out, or run where there is one.")
    return torch.device("cuda")


def _settle(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _flops(shape: Shape) -> int:
    """Of the frozen weights' products, for one token: forward and for the input's gradient; attention and LoRA left out."""
    model = shape.make()
    weights = sum(module.weight.numel() for module in model.modules() if isinstance(module, (torch.nn.Linear, Conv1D)))
    return 4 * weights


def _peak(shape: str, way: str, threads: int, device: str) -> float:
    """Peak memory of three steps above that of the loaded model, MB, measured in a fresh process; on a GPU, the GPU's."""
    code = f"from pipeline.bench.train import _measure; _measure({shape!r}, {way!r}, {threads}, {device!r})"
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    return json.loads(output.splitlines()[-1])


def _measure(shape: str, way: str, threads: int, device: str) -> None:
    torch.set_num_threads(threads)
    place = _place(device)
    step = WAYS[way](SHAPES[shape].on(place))
    before = _memory(place, since=True)
    for _ in range(3):
        step()
    print(json.dumps(_memory(place) - before))


def _memory(device: torch.device, *, since: bool = False) -> float:
    """Peak memory since the last call with `since`, which sets it back to what is held now, MB: the GPU's, or resident."""
    if device.type == "cuda":
        if since:
            torch.cuda.reset_peak_memory_stats()
        return torch.cuda.max_memory_allocated() / 2**20
    if since:  # the kernel's own peak of this process (`ru_maxrss` would carry the parent's over)
        Path("/proc/self/clear_refs").write_text("5")
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024
