"""What Prefect adds to a run: the same tiny line by `hushtune run` and by calling the stages bare, each in its own process.

    python -m tests.benchmarks.overhead --rounds 5

The two are interleaved, the first round is not counted (it makes Prefect's database and warms the disk), and the overhead is
the difference of the medians of wall seconds, start of Python included. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory


def main() -> None:
    """Measure, or be the bare process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--bare", nargs=3, type=Path, metavar=("DATA", "POLICY", "HOME"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.bare:
        bare(*arguments.bare)
        return
    from tests.flows import line

    with TemporaryDirectory() as folder:
        place = line.make(Path(folder))
        calls = {
            "run": ["-m", "pipeline", "run", "{data}", "--policy", "{policy}", "--home", str(place / "home"), "--new"],
            "bare": ["-m", "tests.benchmarks.overhead", "--bare", "{data}", "{policy}", str(place / "bare")],
        }
        names = {"{data}": str(place / "data.jsonl"), "{policy}": str(place / "open.yaml")}
        line.write(place / "open.yaml", line.policy(place) | {"name": "open", "privacy": LIFETIME})
        seconds: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(arguments.rounds + 1):
            for name, call in calls.items():
                seconds[name].append(_timed([names.get(word, word) for word in call]))
    medians = {name: statistics.median(found[1:]) for name, found in seconds.items()}
    content = {
        "overhead_seconds": round(medians["run"] - medians["bare"], 2),
        "median_seconds": {name: round(value, 2) for name, value in medians.items()},
        "first_seconds": {name: round(found[0], 2) for name, found in seconds.items()},
        "rounds": arguments.rounds,
        "versions": {name: version(name) for name in ("prefect", "torch")},
        "cores": len(os.sched_getaffinity(0)),
    }
    print(json.dumps(content))


LIFETIME = {"lifetime": {"budget": "bench", "epsilon": 1000, "delta": 1e-4}}  # that holds every round


def _timed(call: list[str]) -> float:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT", "HUSHTUNE"))}
    started = time.monotonic()
    subprocess.run([sys.executable, *call], check=True, capture_output=True, env=clean)
    return time.monotonic() - started


def bare(data: Path, policy_file: Path, home: Path) -> None:
    """The line of `flows.finetune`, stage by stage, without Prefect, progress or artifacts."""
    from pipeline import facts, gates, models, policy, release, report, runs, scrub, waivers
    from pipeline.audit import audit
    from pipeline.canaries import plant
    from pipeline.commands.common import quiet
    from pipeline.corpus import read
    from pipeline.folders import write_json
    from pipeline.ledger import Ledger
    from pipeline.reserve import reserve
    from pipeline.scrub.probes import write_probes
    from pipeline.train.loop import rehearse, train

    quiet()
    run, rules = runs.start(home, "data"), policy.load(policy_file)
    runs.keep_policy(run.folder, rules)
    facts.start(run.folder, "bare")
    base = models.resolve(rules.model, home)
    corpus = read(data, rules, run.folder / "corpus")
    probes = run.folder / "probes.jsonl"
    write_probes(probes, rules.scrub.probes, seed=1, entities=rules.scrub.entities)
    key = scrub.key_for(rules, home)
    scrubbed = scrub.scrub(corpus, rules, run.folder / "scrubbed", probes=probes, key=key)
    planted = plant(scrubbed, base, rules, run.folder / "planted")
    rehearse(planted, base, rules)
    plan, ledger = reserve(run, rules, corpus, planted), Ledger(home)
    claim = plan.claim
    trained = train(
        planted, base, plan.mechanism, rules, run.folder / "trained",
        claim=claim.id, spend=lambda steps: ledger.spend(claim, steps), taken=ledger.taken(claim),
    )  # fmt: skip
    ledger.close(claim, trained.steps)
    standing = ledger.standing(claim.budget, lifetime=rules.privacy.lifetime)
    evidence = audit(planted, trained, scrubbed, rules, run.folder / "evidence", registered=True, corpus=corpus)
    ledger.note_once(run.id, "evidence", {"digest": gates.seal(evidence)})
    verdict = gates.judge(rules, evidence, waivers.load(home, rules, ledger), ledger.now().date())
    write_json(run.folder / "verdict.json", verdict.model_dump(mode="json"))
    known = facts.for_report(run.folder) | report.keep(run.folder, home, rules, corpus, trained, verdict)
    content = report.build(rules, corpus, scrubbed, planted, trained, evidence, verdict, standing, known)
    page = report.write(content, run.folder / "report")
    release.publish(run.folder, run.name, trained, page.parent, rules, home, report.card(content, base))


if __name__ == "__main__":
    main()
