"""`hushtune models list | pretrain` and `hushtune generate`."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from pipeline.commands.common import answer, columns, watched

_RECIPE = ("layers", "width", "heads", "vocab", "context", "tokens", "batch", "seed", "minutes", "learning_rate")


def listing(arguments: argparse.Namespace) -> int:
    """List the base models that are on this machine."""
    from pipeline import models

    refs = [*models.BUNDLED, *sorted(path.parent.name for path in (arguments.home / "models").glob("*/config.json"))]
    bases = [models.resolve(ref, arguments.home) for ref in refs]
    rows = [(base.name, f"{base.parameters / 1e6:.1f} M", base.context, base.licence, base.digest[:12]) for base in bases]
    content = [base.model_dump(mode="json") for base in bases]
    answer(arguments, content, columns(rows, ("model", "weights", "context", "licence", "digest")))
    return 0


def pretrain(arguments: argparse.Namespace) -> int:
    """Pretrain a small model and its tokenizer on public text."""
    from pipeline.pretrain import Recipe, pretrain

    given = {name: value for name in _RECIPE if (value := getattr(arguments, name)) is not None}
    recipe = Recipe(**given)
    with watched("pretrain", "tokens", rated=True) as line:

        def progress(figures: dict[str, float]) -> None:
            line(int(figures["tokens"]), int(figures["total"]), loss=figures["loss"])

        made = pretrain(arguments.texts, arguments.output, recipe, progress=progress)
    content = asdict(made) | {"folder": str(made.folder)}
    size = f"{made.parameters / 1e6:.1f} M weights, {made.bits_per_byte:.3f} bits per byte on held-out text"
    answer(arguments, content, f"{made.folder}: {size}, {made.seconds / 60:.1f} minutes.")
    return 0


def generate(arguments: argparse.Namespace) -> int:
    """Continue a prompt with a verified release, or with a base model."""
    from pipeline import models
    from pipeline.commands.common import quiet

    quiet()
    model, tokenizer = _load(arguments.model, arguments.home)
    text = models.generate(
        model,
        tokenizer,
        arguments.prompt,
        decoding=arguments.decoding,
        max_new_tokens=arguments.max_new_tokens,
        temperature=arguments.temperature,
        top_p=arguments.top_p,
        beams=arguments.beams,
        seed=arguments.seed,
    )
    answer(arguments, {"model": arguments.model, "prompt": arguments.prompt, "text": text}, f"{arguments.prompt}{text}")
    return 0


def _load(ref: str, home: Path):
    """The model of a release, checked against its manifest first, or a base model."""
    from pipeline import models, policy, release
    from pipeline.commands.govern import release_folder

    folder = release_folder(ref, home)
    if folder is None:
        return models.load(models.resolve(ref, home))
    release.verify(folder)
    base = models.resolve(policy.load(folder / "policy.json").model, home)
    return models.with_adapter(base, folder)
