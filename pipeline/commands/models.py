"""`hushtune models list | pull | export | pretrain`."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.commands.common import answer, columns, quiet, watched
from pipeline.commands.generation import adapted

if TYPE_CHECKING:
    from pipeline.models import Base
    from pipeline.models.ladder import Rung
    from pipeline.recipe import Recipe

_FLAGS = {
    "architecture": {"layers": "layers", "width": "width", "heads": "heads", "context": "context"},
    "tokenizer": {"vocab": "size"},
    "schedule": {name: name for name in ("tokens", "batch", "seed", "minutes", "learning_rate")},
}
"""Flags of `pretrain`, by the section of the recipe and the key there that they take the place of."""


def listing(arguments: argparse.Namespace) -> int:
    """List the rungs of the ladder and what else is on this machine."""
    quiet()
    from pipeline import models
    from pipeline.models import ladder

    home: Path = arguments.home
    rate, speeds = ladder.matrix_rate(), ladder.measured(home)
    here = [*models.BUNDLED, *sorted(path.parent.name for path in (home / "models").glob("[!.]*/config.json"))]
    content = [_here(models.resolve(ref, home), rate, speeds) for ref in here]
    content += [_rung(rung, rate) for name, rung in ladder.LADDER.items() if name not in here]
    content.sort(key=lambda model: (model["name"] not in models.BUNDLED, model["parameters"]))
    rows = [
        (
            model["name"],
            f"{model['parameters'] / 1e6:,.1f} M",
            f"{model['context']:,}",
            model["licence"],
            f"{model['memory'] / 2**30:.1f} GiB",
            f"{model['tokens_per_second']:,.0f}{'' if model['measured'] else ' (estimate)'}",
            "yes" if model["here"] else f"hushtune models pull {model['name']}",
        )
        for model in content
    ]
    heads = ("model", "weights", "context", "licence", "memory to train", "tokens/s", "here")
    answer(arguments, content, columns(rows, heads))
    return 0


def _here(base: Base, rate: float, speeds: dict[str, float]) -> dict[str, Any]:
    from transformers import AutoConfig

    from pipeline.models import ladder

    shape = AutoConfig.from_pretrained(base.folder, local_files_only=True)
    speed = speeds.get(base.digest)
    return base.model_dump(mode="json") | {
        "here": True,
        "memory": ladder.memory(base.parameters, shape.num_hidden_layers, shape.hidden_size),
        "tokens_per_second": speed or ladder.tokens_per_second(base.parameters, rate),
        "measured": speed is not None,
    }


def _rung(rung: Rung, rate: float) -> dict[str, Any]:
    from pipeline.models import ladder

    return {
        "name": rung.name,
        "parameters": rung.parameters,
        "context": rung.context,
        "licence": rung.licence,
        "here": False,
        "memory": ladder.memory(rung.parameters, rung.layers, rung.width),
        "tokens_per_second": ladder.tokens_per_second(rung.parameters, rate),
        "measured": False,
    }


def pull(arguments: argparse.Namespace) -> int:
    """Fetch a base model once; it serves offline from then on."""
    quiet()
    from pipeline.models.pull import pull as fetch

    with watched("pull", "bytes") as line:
        base = fetch(
            arguments.model,
            arguments.home.absolute(),
            source=arguments.source,
            revision=arguments.revision,
            progress=line,
            say=lambda sentence: print(sentence, file=sys.stderr),
        )
    size = f"{base.parameters / 1e6:,.1f} M weights, {base.licence}, digest {base.digest[:12]}"
    answer(arguments, base.model_dump(mode="json"), f"{base.folder}: {size}. Train on it by --base-model {arguments.model}.")
    return 0


def export(arguments: argparse.Namespace) -> int:
    """Write a release as a model folder that other tools read."""
    quiet()
    from pipeline import models

    base, adapter = adapted(
        arguments.release,
        arguments.home,
        keys=arguments.key or (),
        unverified=arguments.unverified,
        of=arguments.base_model,
    )
    folder = models.export(base, adapter, arguments.output, merge=not arguments.keep_adapter)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    answer(
        arguments,
        {"folder": str(folder), "bytes": size},
        f"{folder}: {size / 2**20:,.1f} MB, ready for transformers and llama.cpp.",
    )
    return 0


def pretrain(arguments: argparse.Namespace) -> int:
    """Pretrain a small model and its tokenizer on public text, by a recipe and the flags that change it."""
    quiet()
    from pipeline.pretrain import pretrain

    recipe = _recipe(arguments)
    with watched("pretrain", "tokens", rated=True) as line:

        def progress(figures: dict[str, float]) -> None:
            line(int(figures["tokens"]), int(figures["total"]), loss=figures["loss"])

        made = pretrain(recipe, arguments.output, arguments.home, progress=progress)
    content = asdict(made) | {"folder": str(made.folder)}
    size = f"{made.parameters / 1e6:.1f} M weights, {made.bits_per_byte:.3f} bits per byte on held-out text"
    answer(arguments, content, f"{made.folder}: {size}, {made.seconds / 60:.1f} minutes.")
    return 0


def _recipe(arguments: argparse.Namespace) -> Recipe:
    """The recipe that is named first, if one is; texts take the place of its data, and flags that of its keys."""
    from pipeline import recipe as recipes

    first, *texts = arguments.texts
    content: dict[str, Any] = {"name": arguments.output.name}
    if recipes.is_recipe(first):
        content = recipes.load(first).model_dump(mode="json")
    else:
        texts = arguments.texts
    if texts:
        content["data"] = [{"files": [str(path) for path in texts]}]
    for section, flags in _FLAGS.items():
        given = {key: value for flag, key in flags.items() if (value := getattr(arguments, flag)) is not None}
        content[section] = content.get(section, {}) | given
    if arguments.tokens is not None:
        content["schedule"]["epochs"] = None
    return recipes.check(content, "the recipe with the flags given")
