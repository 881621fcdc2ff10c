"""Which models per-unit gradients can be taken of: what the direct path covers, and that rows do not mix."""

from __future__ import annotations

from typing import Any, cast

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers.pytorch_utils import Conv1D

from pipeline.errors import ModelError
from pipeline.train.examples import IGNORED, Example


def check_rows_are_independent(gradients: Any, tokens: int, vocabulary: int) -> None:
    """Refuse a model in which a neighbour in the micro-batch changes a record's gradient, so that no clipping bounds it.

    Made on random tokens, before any private record is seen: the gradient of a short record alone against what it adds to a
    record of `tokens` tokens. Some rotary embeddings, for one, choose their frequencies by the longest row of the batch.

    Args:
        gradients: an attached `UnitGradients` or fallback, whose clipping norm is set aside for the check. It is checked in
            float32, and where its precision is lower in that one too: if rounding then tells of a neighbour after all, it
            goes on in float32.
        tokens: length of the longest record that will be trained on.
        vocabulary: token ids are drawn below it.

    Raises:
        ModelError: the two differ.
    """
    generator = torch.Generator().manual_seed(0)

    def example(name: str, length: int) -> Example:
        ids = tuple(torch.randint(vocabulary, (length,), generator=generator).tolist())
        return Example(name, name, ids, (IGNORED, *ids[1:]))

    def mixing(one: Example, other: Example) -> float:
        alone, together, beside = (gradients.unclipped(units) for units in ([[one]], [[one], [other]], [[other]]))
        return float((together - beside - alone).norm()) / float(together.norm() + alone.norm())

    long = example("check-long", tokens)
    precision = gradients.precision
    gradients.compute_in(torch.float32)
    if not mixing(example("check-short", max(3, tokens // 4)), long) <= 1e-3:
        raise ModelError(
            "The base model computes a record's gradient from its neighbours in the batch too, so that no clipping bounds it: "
            "use another base model, or a smaller data.max_tokens."
        )
    gradients.compute_in(precision)
    if gradients.even:
        length = max(3, min(tokens, gradients.even.tokens // 3))  # so that two fit into one micro-batch
        if not mixing(example("check-one", length), example("check-other", length)) <= 1e-5:
            gradients.compute_in(torch.float32)


def uncovered(model: PeftModel) -> list[str]:
    """Names of what the direct path cannot differentiate per unit: other trained modules, dropout, DoRA, scaled logits."""
    names = []
    ours = set()
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            adapter = module.active_adapters[0]
            ours |= {module.lora_A[adapter].weight, module.lora_B[adapter].weight} if adapter in module.lora_A else set()
            if not isinstance(module.get_base_layer(), (nn.Linear, Conv1D)):
                names.append(f"{name} (LoRA on {type(module.get_base_layer()).__name__})")
            if not isinstance(module.lora_dropout[adapter], nn.Identity):
                names.append(f"{name} (dropout)")
            if module.use_dora.get(adapter):
                names.append(f"{name} (DoRA)")
    names += [name for name, p in model.named_parameters() if p.requires_grad and p not in ours]
    base = cast(Any, model.get_base_model())
    scaled = ("final_logit_softcapping", "logits_scaling", "logit_scale")
    names += [f"config.{key}" for key in scaled if getattr(base.config, key, None) not in (None, 0, 1, 1.0)]
    if getattr(base.get_output_embeddings(), "bias", None) is not None:
        names.append("a bias on the output layer")
    return names if names or _head_makes_logits(base) else ["logits that are more than the output layer's product"]


@torch.no_grad()
def _head_makes_logits(base: Any) -> bool:
    """Whether the logits are the output layer's, as the direct path's loss takes them: tried on made-up tokens.

    Families scale them under many names: a loss on other logits would be bounded all the same, and learn something else.
    """
    ids = torch.arange(2, 10, device=base.device)[None] % base.config.vocab_size
    hidden = base.base_model(input_ids=ids, use_cache=False).last_hidden_state
    logits = base(input_ids=ids, use_cache=False).logits
    return torch.allclose(base.get_output_embeddings()(hidden), logits, rtol=1e-3, atol=1e-4 * float(logits.abs().max()))
