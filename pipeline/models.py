"""Base models and their LoRA adapters: find, load, adapt, generate.

base = resolve("nano", home)
model, tokenizer = load(base)
"""

from __future__ import annotations

import json
from collections import Counter
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.pytorch_utils import Conv1D
from transformers.utils import logging as hf_logging

from pipeline.errors import ModelError
from pipeline.folders import Value, digest_folder
from pipeline.policy import Lora

hf_logging.disable_progress_bar()  # the command line has its own
BUNDLED = ("nano",)
Decoding = Literal["greedy", "sample", "beam"]


class Base(Value):
    """A base model on this machine.

    `digest` is taken over every file of its folder; `parameters` counts weights, `context` tokens.
    """

    name: str
    folder: Path
    digest: str
    parameters: int
    context: int
    licence: str


def resolve(ref: str, home: Path) -> Base:
    """Find a base model: bundled, pulled into `home/models`, or a Hugging Face folder given by path.

    Raises:
        ModelError: there is no such model here, or its folder does not hold one.
    """
    folder = _locate(ref, home)
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"The folder {folder} holds no model that transformers can read: its config.json is unfit.") from error
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise ModelError(f"The folder {folder} holds no .safetensors weights: save the model with save_pretrained first.")
    return Base(
        name=ref if ref in BUNDLED else folder.name,
        folder=folder,
        digest=digest_folder(folder),
        parameters=sum(_count(path) for path in weights),
        context=int(getattr(config, "max_position_embeddings", 0) or getattr(config, "n_positions", 0) or 1024),
        licence=_licence(folder),
    )


def load(base: Base) -> tuple[PreTrainedModel, Any]:
    """The model in fp32 on this machine's device, in eval mode and frozen, and its tokenizer (with a padding token)."""
    model = AutoModelForCausalLM.from_pretrained(base.folder, dtype=torch.float32, local_files_only=True)
    cast(nn.Module, model).to(device()).eval().requires_grad_(False)
    return model, load_tokenizer(base)


def load_tokenizer(base: Base) -> Any:
    """The base model's tokenizer, with the end token as padding where it has none of its own.

    It is typed as Any since transformers' own annotations leave open whether a token's id is a number.
    """
    tokenizer = AutoTokenizer.from_pretrained(base.folder, local_files_only=True)
    if tokenizer.eos_token_id is None:
        raise ModelError(f"The tokenizer of {base.name} has no end-of-text token: set eos_token in its tokenizer_config.json.")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def adapt(model: PreTrainedModel, lora: Lora, seed: int) -> PeftModel:
    """Put fresh LoRA layers on every linear layer of the chosen blocks (Hu et al. 2021); A is random, B is zero.

    The model must already be on its device: adapters made before a move can end up outside the optimizer. Nothing here
    sees data, and the initialisation is fixed: one fitted to private records would spend privacy that nobody counts.

    Raises:
        ModelError: the model has fewer layers or other modules than `lora` asks for, or a part that no clipping bounds.
    """
    blocks = int(model.config.num_hidden_layers)
    count = {"all": blocks, "top_half": (blocks + 1) // 2}[lora.layers] if isinstance(lora.layers, str) else lora.layers
    if not 1 <= count <= blocks:
        raise ModelError(f"train.lora.layers asks for {count} layers and the model has {blocks}: lower it.")
    _refuse_unbounded(model, lora.also_train)
    head = model.get_output_embeddings()
    linear = {name: m for name, m in model.named_modules() if isinstance(m, (nn.Linear, Conv1D)) and m is not head}
    whole = {name for name in linear for wanted in lora.also_train if _matches(name, wanted)}
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type] - peft says int, but only divides it by the rank
        target_modules=sorted({name.rpartition(".")[2] for name in linear.keys() - whole}),
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in linear.values()),
        layers_to_transform=None if count == blocks else list(range(blocks - count, blocks)),
        lora_dropout=lora.dropout,
        use_dora=lora.dora,
        modules_to_save=list(lora.also_train) or None,
        exclude_modules=sorted(whole) or None,
        init_lora_weights=True,
        bias="none",
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        adapted = get_peft_model(model, config)
    return cast(PeftModel, adapted.eval())  # dropout in the base stays off, whoever restores the mode later


def _refuse_unbounded(model: PreTrainedModel, also_train: tuple[str, ...]) -> None:
    """Refuse what would let one record move another's gradient, or two modules share a weight that is clipped as two."""
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            raise ModelError(
                f"The base model's {name} is a batch norm, which mixes the records of a batch, so that no clipping bounds one: "
                "use a base model without."
            )
    everywhere = model.named_modules(remove_duplicate=False)  # a module that stands in two places counts twice
    uses = Counter(id(parameter) for _, module in everywhere for parameter in module.parameters(recurse=False))
    for wanted in also_train:
        found = {name: module for name, module in model.named_modules() if _matches(name, wanted)}
        for name, module in found.items():
            if next(module.children(), None) is not None or next(module.parameters(), None) is None:
                raise ModelError(
                    f"train.lora.also_train names {wanted} and {name} is no layer with weights of its own: name single layers."
                )
            if any(uses[id(parameter)] > 1 for parameter in module.parameters()):
                raise ModelError(
                    f"train.lora.also_train names {wanted} and {name} shares its weight with another module (tied embeddings): "
                    "leave it out, or use a base model whose weights are not tied."
                )
        if not found:
            raise ModelError(f"train.lora.also_train names {wanted} and the base model has no such module: correct the name.")


def _matches(name: str, wanted: str) -> bool:
    """As peft matches `modules_to_save`: by the end of the module's name."""
    return name.endswith(wanted)


def with_adapter(base: Base, adapter: Path) -> tuple[PeftModel, Any]:
    """The base model with a trained adapter on it, in eval mode, and the tokenizer.

    Raises:
        ModelError: the folder holds no adapter for this model.
    """
    model, tokenizer = load(base)
    if not (adapter / "adapter_config.json").is_file():
        raise ModelError(f"The folder {adapter} holds no adapter_config.json: give the folder of a release or of an adapter.")
    return PeftModel.from_pretrained(model, str(adapter)).eval(), tokenizer


def save_adapter(model: PeftModel, folder: Path) -> Path:
    """Write adapter_model.safetensors and adapter_config.json, naming the base by name and never by this machine's path."""
    model.save_pretrained(str(folder))
    (folder / "README.md").unlink(missing_ok=True)  # peft writes a template; the model card is the release's own
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    config["base_model_name_or_path"] = Path(config["base_model_name_or_path"] or "base").name
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    return folder


@torch.no_grad()
def generate(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    *,
    decoding: Decoding = "greedy",
    max_new_tokens: int = 64,
    temperature: float = 0.8,
    top_p: float = 0.95,
    beams: int = 4,
    seed: int | None = None,
) -> str:
    """Continue a prompt; returns the new text only. `temperature`, `top_p` and `seed` serve sampling, `beams` beam search.

    An empty prompt starts from the beginning of a text.
    """
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    ids = [start, *tokenizer(prompt, add_special_tokens=False)["input_ids"]]
    options: dict[str, Any] = {
        "greedy": {"do_sample": False, "num_beams": 1},
        "sample": {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": 0},
        "beam": {"do_sample": False, "num_beams": beams, "early_stopping": True},
    }[decoding]
    inputs = torch.tensor([ids], device=model.device)
    with torch.random.fork_rng():
        if seed is not None:
            torch.manual_seed(seed)
        output = cast(Any, model).generate(
            input_ids=inputs,
            attention_mask=torch.ones_like(inputs),
            max_new_tokens=max_new_tokens,
            pad_token_id=tokenizer.pad_token_id,
            **options,
        )
    return cast(str, tokenizer.decode(output[0, len(ids) :], skip_special_tokens=True))


def device() -> torch.device:
    """CUDA if present, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _locate(ref: str, home: Path) -> Path:
    if ref in BUNDLED:
        return Path(str(files("pipeline") / "assets" / ref))
    for folder in (Path(ref), home / "models" / ref):
        if (folder / "config.json").is_file():
            return folder.resolve()
    known = ", ".join(BUNDLED)
    raise ModelError(f"There is no base model {ref} here: give {known}, or the path of a folder saved by save_pretrained.")


def _count(weights: Path) -> int:
    """Number of weights in a safetensors file, from its header (8-byte little-endian length, then JSON)."""
    with weights.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    shapes = [entry["shape"] for name, entry in header.items() if name != "__metadata__"]
    return sum(int(torch.Size(shape).numel()) for shape in shapes)


def _licence(folder: Path) -> str:
    card = folder / "README.md"
    if card.is_file():
        for line in card.read_text(encoding="utf-8").splitlines()[:40]:
            if line.startswith("license:"):
                return line.partition(":")[2].strip()
    return "not stated"
