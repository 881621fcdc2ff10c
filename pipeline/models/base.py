"""Base models that are on this machine: found by name, folder or GGUF file, and loaded."""

from __future__ import annotations

import json
import math
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pipeline.errors import IntegrityError, ModelError
from pipeline.folders import Value, digest_folder
from pipeline.models import ladder

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

BUNDLED = ("nano",)


class Adaptation(Value):
    """What continued pretraining on public text added to a base model: a LoRA adapter over it, in `folder`.

    `digest` is taken over every file of the adapter's folder; `source` names the public file and `source_digest` is its
    SHA-256. `records`, `tokens` and `steps` count what it was trained on and how long, `loss` its mean loss over the first and
    over the last tenth of the steps (nats a token). `sharing` counts the private records of this run that share 13 words in a
    row with the public text.
    """

    folder: Path
    digest: str
    source: str
    source_digest: str
    records: int
    tokens: int
    steps: int
    loss: tuple[float, float]
    seconds: float
    sharing: int = 0


class Base(Value):
    """A base model on this machine.

    `digest` is taken over every file of its folder; `parameters` counts weights, `context` tokens. Where the policy asks for
    continued pretraining, `adaptation` is what that added to it.
    """

    name: str
    folder: Path
    digest: str
    parameters: int
    context: int
    licence: str
    adaptation: Adaptation | None = None


def resolve(ref: str, home: Path) -> Base:
    """Find a base model: bundled, pulled into `home/models`, a Hugging Face folder given by path, or a GGUF file.

    A GGUF file is converted once, into `home/models`.

    Raises:
        ModelError: there is no such model here, or its folder does not hold one.
    """
    folder = _locate(ref, home)
    config = _config(folder)
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise ModelError(f"The folder {folder} holds no .safetensors weights: save the model with save_pretrained first.")
    return Base(
        name=ref if ref in BUNDLED else folder.name,
        folder=folder,
        digest=digest_folder(folder),
        parameters=sum(_count(path) for path in weights),
        context=int(config.get("max_position_embeddings") or config.get("n_positions") or 1024),
        licence=_licence(folder),
    )


def load(base: Base) -> tuple[PreTrainedModel, Any]:
    """The model in fp32 on this machine's device, in eval mode and frozen, and its tokenizer (with a padding token).

    The base's adaptation, if it has one, is merged into its weights.

    Raises:
        IntegrityError: the adaptation is not the one that was made.
        ModelError: transformers cannot read the model.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # the command line has its own
    try:
        loaded = AutoModelForCausalLM.from_pretrained(base.folder, dtype=torch.float32, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(_unfit(base.folder)) from error
    model = cast(Any, loaded).to(device())
    if base.adaptation is not None:
        model = _merged(model, base.adaptation)
    return model.eval().requires_grad_(False), load_tokenizer(base)


def _config(folder: Path) -> dict[str, Any]:
    """A model's config.json, read as what it is: whoever only looks for a model does not wait for transformers."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        known = isinstance(config["model_type"], str)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(_unfit(folder)) from error
    if not known:
        raise ModelError(_unfit(folder))
    return config


def _unfit(folder: Path) -> str:
    return f"The folder {folder} holds no model that transformers can read: its config.json is unfit."


def _merged(model: PreTrainedModel, adaptation: Adaptation) -> PreTrainedModel:
    folder = adaptation.folder
    if not folder.is_dir() or digest_folder(folder) != adaptation.digest:
        raise IntegrityError(
            f"The public adapter in {folder} is gone or was changed since it was made: delete {folder.parent} and run again."
        )
    from peft import PeftModel  # only a base with a public adapter needs it

    return cast(Any, PeftModel.from_pretrained(model, str(folder))).merge_and_unload()


def load_tokenizer(base: Base) -> Any:
    """The base model's tokenizer, with the end token as padding where it has none of its own.

    It is typed as Any since transformers' own annotations leave open whether a token's id is a number.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base.folder, local_files_only=True)
    if tokenizer.eos_token_id is None:
        raise ModelError(f"The tokenizer of {base.name} has no end-of-text token: set eos_token in its tokenizer_config.json.")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def device() -> torch.device:
    """CUDA if present, else the CPU."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _locate(ref: str, home: Path) -> Path:
    if ref in BUNDLED:
        return Path(str(files("pipeline") / "assets" / ref))
    if ref.endswith(".gguf") and Path(ref).is_file():
        from pipeline.models import gguf

        return gguf.converted(Path(ref), home / "models")
    for folder in (Path(ref), ladder.folder(ref, home)):
        if (folder / "config.json").is_file():
            return folder.resolve()
    if ladder.is_pullable(ref):
        raise ModelError(f"The base model {ref} is not on this machine: fetch it with `hushtune models pull {ref}`.")
    known = ", ".join((*BUNDLED, *ladder.LADDER))
    raise ModelError(f"There is no base model {ref} here: give {known}, an id of the Hub, or the path of a saved folder.")


def _count(weights: Path) -> int:
    """Number of weights in a safetensors file, from its header (8-byte little-endian length, then JSON)."""
    with weights.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    shapes = [entry["shape"] for name, entry in header.items() if name != "__metadata__"]
    return sum(math.prod(shape) for shape in shapes)


def _licence(folder: Path) -> str:
    card = folder / "README.md"
    if card.is_file():
        for line in card.read_text(encoding="utf-8").splitlines()[:40]:
            if line.startswith("license:"):
                return line.partition(":")[2].strip()
    return "not stated"
