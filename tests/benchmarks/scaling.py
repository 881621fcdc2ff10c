"""Two workers against one: the same corpus scrubbed under threads, Dask and Ray, and the same model trained by two processes.

    python -m tests.benchmarks.scaling scrub --records 3000
    python -m tests.benchmarks.scaling train --steps 4

Prints one JSON object. Scrubbing is timed as a user waits for it: what starts and ends with the stage is in it. Every way must
give the same bytes. A worker is one process on one core, in training too.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ENGINES = ("threads", "dask", "ray")


def scrub(records: int, engines: list[str], rounds: int) -> dict[str, Any]:
    """Seconds of the stage by engine and number of workers, and of one process without any engine."""
    from flows import server

    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        with server.running(home, lambda: None):
            from prefect import flow

            from flows import runners
            from pipeline import corpus as corpora
            from pipeline import example, mapping
            from pipeline import policy as policies
            from pipeline.scrub import scrub as work

            rules = policies.load("default").override(scrub__rescan="off", scrub__sample=0, data__limit=records)
            corpus = corpora.read(example.path(), rules, home / "corpus")
            seconds: dict[str, list[float]] = {}
            digests = set()

            @flow(persist_result=False)
            def once(way: str, turn: int) -> None:
                os.environ[runners.SETTING] = way
                folder = home / f"{way.replace(':', '-')}-{turn}"
                folder.mkdir()
                mapper = mapping.processes(1) if way == "plain" else runners.mapper(folder, "scrub")
                began = time.perf_counter()
                made = work(corpus, rules, folder / "scrubbed", probes=None, mapper=mapper)
                seconds.setdefault(way, []).append(time.perf_counter() - began)
                print(way, round(seconds[way][-1], 2), file=sys.stderr, flush=True)
                digests.add((made.digest, tuple(sorted(made.entities.items()))))

            for turn in range(rounds):
                for way in ("plain", *(f"{engine}:{count}" for count in (1, 2) for engine in engines)):
                    os.environ[runners.SETTING] = "threads"
                    once(way, turn)
    medians = {way: round(statistics.median(taken), 2) for way, taken in seconds.items()}
    return {
        "records": corpus.records,
        "characters": corpus.characters,
        "seconds": medians,
        "two_to_one": {engine: round(medians[f"{engine}:1"] / medians[f"{engine}:2"], 3) for engine in engines},
        "same_bytes": len(digests) == 1,
    }


def train(steps: int) -> dict[str, Any]:
    """Seconds a step, and whole seconds, of a training by one process and by two, on one thread each."""
    from pipeline import models
    from pipeline import policy as policies
    from pipeline.canaries import Planted
    from pipeline.corpus import Part, Record, save_records
    from pipeline.folders import digest_file, write_json
    from pipeline.ledger import Ledger
    from pipeline.train import launch
    from pipeline.train.mechanism import Mechanism

    found: dict[str, Any] = {}
    for processes in (1, 2):
        with tempfile.TemporaryDirectory() as name:
            home = Path(name)
            folder = home / "runs" / "job"
            (folder / "planted").mkdir(parents=True)
            words = "the letter came late and nobody at the office knew when the next one would be sent to us "
            save_records(
                folder / "planted" / "train.jsonl",
                (Record(f"r{n}", f"r{n}", (Part("text", f"{n} {words * 6}"),)) for n in range(256)),
            )
            counts = dict.fromkeys(("held_out_records", "held_out_units", "canaries", "included", "secrets"), 0)
            digest = digest_file(folder / "planted" / "train.jsonl")
            planted = Planted(
                folder=folder / "planted", manifest_digest="m", digest=digest, train_records=256, train_units=256,
                secrets_included=0, **counts,
            )  # fmt: skip
            write_json(folder / "planted" / "stage.json", {"inputs": "k", "value": planted.model_dump(mode="json")})
            rules = policies.load("default").override(train__expected_batch=128, train__steps=steps, data__max_tokens=128)
            rules = rules.override(model="nano")
            models.resolve("nano", home)
            write_json(folder / "policy.json", rules.model_dump(mode="json"))
            mechanism = Mechanism(
                unit="record", units=256, expected_batch=64, steps=steps, noise_multiplier=2.0, clipping_norm=1.0, delta=1e-3
            )
            claim = Ledger(home).reserve(
                run="job", lifetime=rules.privacy.lifetime.model_copy(update={"epsilon": 100.0}),
                sampling_rate=mechanism.sampling_rate, noise_multiplier=2.0, steps=steps, epsilon=8.0, delta=1e-3,
                policy_digest="p", unit="record",
            )  # fmt: skip
            write_json(folder / "claim.json", claim.model_dump(mode="json"))
            write_json(folder / "mechanism.json", mechanism.model_dump(mode="json"))
            ticks: list[float] = []
            began = time.perf_counter()
            launch.train(folder, processes, lambda *_, ticks=ticks, **__: ticks.append(time.perf_counter()))
            gaps = [after - before for before, after in itertools.pairwise(ticks)]
            found[str(processes)] = {
                "step": round(statistics.median(gaps), 3),
                "whole": round(time.perf_counter() - began, 2),
            }
    return found | {"two_to_one": round(found["1"]["step"] / found["2"]["step"], 3)}


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("scrub", "train"))
    parser.add_argument("--records", type=int, default=3000)
    parser.add_argument("--engines", nargs="+", default=list(ENGINES), choices=ENGINES)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--steps", type=int, default=5)
    given = parser.parse_args()
    found = scrub(given.records, given.engines, given.rounds) if given.what == "scrub" else train(given.steps)
    print(json.dumps(found, sort_keys=True))


if __name__ == "__main__":
    main()
