"""E2E NLG (Novikova et al. 2017): what privacy costs, as perplexity of the official test set's references.

    python -m tests.benchmarks.e2e DEVSET.csv TESTSET.csv --epsilon 8 --schedule 60x256 --learning-rate 5e-3 --layers all

Trains on the development pairs (meaning representation → sentence), each record a unit, and prints one JSON line for each
combination of the options given more than once. With `--output FILE` lines are kept there, and those that it holds already
are not run again: the sweep behind `policies/base.yaml` is such a file. `--epsilon none` trains without clipping and noise,
on the same sampler, steps and batch.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from peft import PeftModel

from pipeline import corpus, models, policy
from pipeline.train.examples import IGNORED, Example, encode, pad
from pipeline.train.gradients import UnitGradients
from pipeline.train.mechanism import Mechanism, calibrate
from pipeline.train.optimizer import UnitOptimizer
from pipeline.train.plain import PlainGradients
from pipeline.train.reuse import EntryStates, first_adapted
from pipeline.train.sampling import PoissonSampler, microbatches


def main() -> None:
    """Train once for each combination that the output file does not hold yet."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    known = arguments.output.read_text().splitlines() if arguments.output and arguments.output.exists() else []
    done = [json.loads(line)["run"] for line in known]
    options = arguments.epsilon, arguments.schedule, arguments.learning_rate, arguments.layers, arguments.clipping_norm
    for epsilon, schedule, rate, layers, norm in product(*options):
        run = {"model": arguments.model, "epsilon": epsilon, "schedule": schedule, "learning_rate": rate, "layers": layers,
               "clipping_norm": norm, "max_tokens": arguments.max_tokens}  # fmt: skip
        if run in done:
            continue
        line = json.dumps({"run": run} | figures(run, arguments))
        print(line, flush=True)
        if arguments.output:
            with arguments.output.open("a") as file:
                file.write(line + "\n")


def figures(run: dict[str, Any], arguments: argparse.Namespace) -> dict[str, Any]:
    """Train as `run` says; the promise, the perplexities and the time."""
    private = run["epsilon"] != "none"
    steps, batch = map(int, run["schedule"].split("x"))
    chosen = policy.load("default").override(
        data__prompt_column="mr",
        data__completion_column="ref",
        data__max_tokens=run["max_tokens"],
        privacy__epsilon=float(run["epsilon"]) if private else 8.0,
        train__steps=steps,
        train__expected_batch=batch,
        train__learning_rate=run["learning_rate"],
        train__clipping_norm=run["clipping_norm"],
        train__lora__layers=run["layers"],
    )
    base = models.resolve(run["model"], arguments.home)
    model, tokenizer = models.load(base)
    train, test = (_examples(path, chosen, tokenizer) for path in (arguments.train, arguments.test))
    test = test[: arguments.test_records]
    mechanism = calibrate(chosen, len(train))
    adapted = models.adapt(model, chosen.train.lora, 0)
    before = perplexity(adapted, test, tokenizer.pad_token_id)
    seconds, tokens = fit(adapted, train, mechanism, chosen, tokenizer.pad_token_id, private=private)
    after = perplexity(adapted, test, tokenizer.pad_token_id)
    return {
        "epsilon": mechanism.epsilon() if private else None,
        "delta": mechanism.delta if private else None,
        "noise_multiplier": mechanism.noise_multiplier if private else 0,
        "records": len(train),
        "test_references": len(test),
        "perplexity_before": before,
        "perplexity_after": after,
        "log_gain": math.log(before / after),
        "training_seconds": seconds,
        "training_tokens": tokens,
    }


def fit(
    adapted: PeftModel, train: list[Example], run: Mechanism, chosen: policy.Policy, padding: int, *, private: bool
) -> tuple[float, int]:
    """Take the mechanism's steps; returns seconds, and tokens trained on."""
    trainable = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    optimizer = UnitOptimizer(torch.optim.Adam(trainable, lr=chosen.train.learning_rate), run)
    if not private:
        optimizer.noise_multiplier = 0.0
    sampler, tokens = PoissonSampler(train, run, 1), 0
    with TemporaryDirectory() as folder:
        longest = max(len(example.input_ids) for example in train)
        states = EntryStates(adapted, Path(folder) / "states", longest, 10**10, len(train)) if first_adapted(adapted) else None
        gradients = (UnitGradients if private else PlainGradients)(adapted, run.clipping_norm, padding, states)
        started = time.monotonic()
        with gradients.attached():
            for _ in range(run.steps):
                for group in microbatches(sampler.draw(), chosen.train.microbatch_tokens):
                    gradients.add(group)
                    tokens += sum(len(example.input_ids) for unit in group for example in unit)
                optimizer.step()
        return time.monotonic() - started, tokens


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
    parser.add_argument("--epsilon", nargs="+", default=["8"])
    parser.add_argument("--schedule", nargs="+", default=["60x256"], metavar="STEPSxBATCH")
    parser.add_argument("--learning-rate", nargs="+", type=float, default=[5e-3])
    parser.add_argument("--layers", nargs="+", default=["all"])
    parser.add_argument("--clipping-norm", nargs="+", type=float, default=[1.0])
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--test-records", type=int, default=1000)
    parser.add_argument("--output", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
