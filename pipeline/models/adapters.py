"""LoRA adapters: put on a base model, saved, loaded again, merged into it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from pipeline.errors import ModelError
from pipeline.folders import check_parent
from pipeline.models.base import Adaptation, Base, load
from pipeline.policy import Lora


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

    An adapter that was trained on an adapted base holds that adaptation too (`save_adapter`), so it stands on the bare base.

    Raises:
        ModelError: the folder holds no adapter for this model.
    """
    model, tokenizer = load(base.model_copy(update={"adaptation": None}))
    if not (adapter / "adapter_config.json").is_file():
        raise ModelError(f"The folder {adapter} holds no adapter_config.json: give the folder of a release or of an adapter.")
    return PeftModel.from_pretrained(model, str(adapter)).eval(), tokenizer


def save_adapter(model: PeftModel, folder: Path, over: Adaptation | None = None) -> Path:
    """Write adapter_model.safetensors and adapter_config.json, naming the base by name and never by this machine's path.

    Args:
        model: a base model with its adapter.
        folder: where to.
        over: what was merged into the base that the adapter was trained on: then the sum of both is written, an adapter of
            the bare base.
    """
    model.save_pretrained(str(folder), save_embedding_layers=False)  # "auto" would ask the Hub about the base
    (folder / "README.md").unlink(missing_ok=True)  # peft writes a template; the model card is the release's own
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    config["base_model_name_or_path"] = Path(config["base_model_name_or_path"] or "base").name
    if over is not None:
        config = _add(over.folder, folder, config)
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    return folder


def _add(first: Path, folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Make the weights in `folder` the sum of those in `first` and their own, and return the configuration of the sum.

    Of two adapters of one layer, s₁B₁A₁ + s₂B₂A₂ = [B₁ B₂] [s₁A₁; s₂A₂]: one adapter whose rank is the sum of theirs. `first`
    is on every layer; a layer that has no second one is filled up with zeros.
    """
    known = json.loads((first / "adapter_config.json").read_text())
    ranks = known["r"], config["r"]
    scales = known["lora_alpha"] / known["r"], config["lora_alpha"] / config["r"]
    one, other = (load_file(path / "adapter_model.safetensors") for path in (first, folder))
    if not other.keys() <= one.keys() or any(settings.get("use_dora") for settings in (known, config)):
        raise ModelError(
            "The private adapter changes what the public one does not: give train.lora plain LoRA of linear layers."
        )
    made = {}
    for name, weight in one.items():
        rows = name.endswith("lora_A.weight")
        shape = (ranks[1], weight.shape[1]) if rows else (weight.shape[0], ranks[1])
        second = other.get(name, weight.new_zeros(shape))
        parts = (scales[0] * weight, scales[1] * second) if rows else (weight, second)
        made[name] = torch.cat(parts, dim=0 if rows else 1).contiguous()
    save_file(made, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    base = config["base_model_name_or_path"]
    return known | {"r": sum(ranks), "lora_alpha": sum(ranks), "lora_dropout": 0.0, "base_model_name_or_path": base}


def export(base: Base, adapter: Path, folder: Path, *, merge: bool = True, precision: torch.dtype = torch.bfloat16) -> Path:
    """Write a model folder for other tools: the adapter merged into its base, in safetensors, with the tokenizer.

    That is what Hugging Face's own loaders and llama.cpp's `convert_hf_to_gguf.py` read. Without `merge` the folder holds
    the base and, below `adapter/`, the adapter as it is.

    Raises:
        UsageError: the folder cannot be made.
        ModelError: the folder exists and is not empty, or `adapter` holds none for this model.
    """
    check_parent(folder)
    if folder.exists() and any(folder.iterdir()):
        raise ModelError(f"The folder {folder} is not empty: give another, or empty it.")
    model, tokenizer = with_adapter(base, adapter)
    if merge:
        whole: Any = model.merge_and_unload()  # type: ignore[operator] - peft forwards to the tuner
    else:
        save_adapter(model, folder / "adapter")
        whole = model.unload()  # type: ignore[operator]
    whole.to(precision).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
