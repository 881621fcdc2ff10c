"""The section on training."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from pipeline.policy._section import Count, Section


class Lora(Section):
    """Which weights are trained."""

    rank: int = Field(default=8, ge=1, le=256)
    alpha: float = Field(default=16, gt=0)
    layers: Literal["all", "top_half"] | Count = "all"
    dropout: float = Field(
        default=0, ge=0, lt=1, description="share of a layer's inputs that LoRA does not see; takes a slower path"
    )
    dora: bool = Field(default=False, description="also train the magnitude of each weight (DoRA); takes the slowest path")
    also_train: tuple[str, ...] = Field(default=(), description="modules to train whole, lm_head for one; takes a slower path")


class Selection(Section):
    """Which step is released, chosen by the loss on public records; without this section it is the last one."""

    rule: Literal["best_checkpoint", "early_stopping"] = Field(
        description="the best of all steps looked at; early_stopping also ends training, and is charged for every planned step"
    )
    public_data: str | None = Field(
        default=None, description="path of a file of PUBLIC records, in the form of the data; required"
    )
    every: int = Field(default=5, ge=1, description="steps between two looks at the public loss")
    patience: int = Field(default=3, ge=1, description="looks without a better loss after which early_stopping ends training")

    @model_validator(mode="after")
    def _public(self) -> Selection:
        if not self.public_data:
            raise ValueError(
                "needs public_data: a step chosen on private records would spend privacy that nobody counts, so name a file of "
                "public records or remove the section"
            )
        return self


class ContinuedPretraining(Section):
    """More training of the base model on PUBLIC text of the domain, without noise, before private training begins."""

    public_data: str = Field(min_length=1, description="path of a file of PUBLIC records, in the form of the data")
    epochs: float = Field(default=1, gt=0, description="visits of all public text, where steps is auto")
    steps: Count | Literal["auto"] = Field(default="auto", description="steps of `batch` windows")
    batch: int = Field(default=16, ge=1, description="windows in a step")
    max_tokens: int = Field(default=128, ge=8, description="tokens of a window; the text is joined and cut into such windows")
    learning_rate: float = Field(default=2e-3, gt=0)
    warmup: float = Field(
        default=0.05, ge=0, lt=1, description="share of the steps in which the rate rises; then it falls to 0"
    )
    rank: int = Field(default=16, ge=1, le=256, description="of its LoRA adapter, on all layers")
    seed: int = Field(default=0, ge=0)
    overlap: Literal["refuse", "count"] = Field(
        default="refuse",
        description="what to do if private records share 13 words in a row with the public text; whole ones are always refused",
    )


class Train(Section):
    """DP-SGD: the schedule and the optimizer."""

    lora: Lora = Lora()
    epochs: float = Field(default=1, gt=0, description="expected visits of each unit, where expected_batch or steps is auto")
    expected_batch: Count | Literal["auto"] = Field(
        default="auto", description="expected number of units in a step (Poisson sampling)"
    )
    steps: Count | Literal["auto"] = Field(default="auto", description="noisy steps; auto takes as many as the noise bears")
    learning_rate: float = Field(gt=0)
    clipping_norm: float = Field(gt=0, allow_inf_nan=False)
    microbatch_tokens: int = Field(default=4096, ge=64, description="tokens held in memory at once; does not change the result")
    reuse_gigabytes: float = Field(
        default=4,
        ge=0,
        description="disk for the states of the layers below the first adapted one; 0 computes them at every visit",
    )
    selection: Selection | None = Field(
        default=None, description="choose the released step by public data; null takes the last one"
    )
    seed: int = Field(
        default=0, ge=0, description="seeds LoRA's initialisation only; noise and sampling are never seeded from it"
    )
