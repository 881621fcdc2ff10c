"""E2E NLG (Novikova et al. 2017): what privacy costs, as perplexity of the official test set's references.

    python -m tests.benchmarks.e2e DEVSET.csv TESTSET.csv --model nano --epsilon 8 --steps 60

Trains on the development pairs (meaning representation → sentence), each record a unit, and prints one JSON line. `--epsilon
none` trains without clipping and noise, on the same sampler, steps and batch, at its own learning rate.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from peft import PeftModel

from pipeline import corpus, models, policy
from pipeline.train.examples import IGNORED, Example, encode, pad
from pipeline.train.gradients import UnitGradients
from pipeline.train.mechanism import Mechanism, calibrate
from pipeline.train.optimizer import UnitOptimizer
from pipeline.train.plain import PlainGradients
from pipeline.train.sampling import PoissonSampler, microbatches


def main() -> None:
    """Train once and print the figures."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    private = arguments.epsilon != "none"
    chosen = policy.load("default").override(
        data__prompt_column="mr",
        data__completion_column="ref",
        data__max_tokens=128,
        privacy__epsilon=float(arguments.epsilon) if private else 8.0,
        train__steps=arguments.steps,
        train__expected_batch=arguments.batch,
        train__learning_rate=arguments.learning_rate,
        train__lora__layers=arguments.layers,
    )
    base = models.resolve(arguments.model, arguments.home)
    model, tokenizer = models.load(base)
    train, test = (_examples(path, chosen, tokenizer) for path in (arguments.train, arguments.test))
    run = calibrate(chosen, len(train))
    adapted = models.adapt(model, chosen.train.lora, 0)
    before = perplexity(adapted, test[: arguments.test_records], tokenizer.pad_token_id)
    seconds = fit(adapted, train, run, chosen, tokenizer.pad_token_id, private=private)
    after = perplexity(adapted, test[: arguments.test_records], tokenizer.pad_token_id)
    print(
        json.dumps(
            {
                "model": base.name,
                "epsilon": run.epsilon() if private else None,
                "delta": run.delta if private else None,
                "noise_multiplier": run.noise_multiplier if private else 0,
                "records": len(train),
                "steps": run.steps,
                "expected_batch": run.expected_batch,
                "learning_rate": chosen.train.learning_rate,
                "layers": arguments.layers,
                "test_references": len(test[: arguments.test_records]),
                "perplexity_before": before,
                "perplexity_after": after,
                "log_gain": math.log(before / after),
                "training_seconds": seconds,
            }
        )
    )


def fit(
    adapted: PeftModel, train: list[Example], run: Mechanism, chosen: policy.Policy, padding: int, *, private: bool
) -> float:
    """Take the mechanism's steps; returns seconds."""
    trainable = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    optimizer = UnitOptimizer(torch.optim.Adam(trainable, lr=chosen.train.learning_rate), run)
    if not private:
        optimizer.noise_multiplier = 0.0
    gradients = (UnitGradients if private else PlainGradients)(adapted, run.clipping_norm, padding)
    sampler = PoissonSampler(train, run, 1)
    started = time.monotonic()
    with gradients.attached():
        for _ in range(run.steps):
            for group in microbatches(sampler.draw(), chosen.train.microbatch_tokens):
                gradients.add(group)
            optimizer.step()
    return time.monotonic() - started


@torch.no_grad()
def perplexity(model: PeftModel, examples: list[Example], padding: int) -> float:
    """exp of the mean negative log-likelihood of the learned tokens."""
    nats = tokens = 0.0
    ordered = sorted(examples, key=lambda example: len(example.input_ids))
    for start in range(0, len(ordered), 32):
        ids, labels = pad(ordered[start : start + 32], padding)
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1].flatten(0, 1)
        targets = labels[:, 1:].flatten()
        nats += torch.nn.functional.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum").item()
        tokens += float((targets != IGNORED).sum())
    return math.exp(nats / tokens)


def _examples(path: Path, chosen: policy.Policy, tokenizer: object) -> list[Example]:
    with TemporaryDirectory() as folder:
        read = corpus.read(path, chosen, Path(folder) / "corpus")
        records = list(corpus.load_records(read.folder / "records.jsonl"))
    return encode(records, tokenizer, chosen.data.max_tokens)  # type: ignore[arg-type]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--home", type=Path, default=Path("hushtune-home"))
    parser.add_argument("--epsilon", default="8")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--learning-rate", type=float, default=5e-3)
    parser.add_argument("--layers", default="all")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--test-records", type=int, default=1000)
    return parser.parse_args()


if __name__ == "__main__":
    main()
