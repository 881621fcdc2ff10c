r"""The training stage of one run, by several processes: what torchrun starts.

`hushtune run DATA --processes N` starts N processes on this machine. For several machines, with the home on storage that all
share (POSIX, with locks) and a network that is as trusted as they are (gradients cross it before they are noised):

    HUSHTUNE_MACHINES=2@HOST:29400 hushtune run DATA --processes 8      # on HOST, as the others reach it

and on each other one, once the run's folder holds claim.json, with its own --node-rank from 1 on:

    torchrun --nnodes 2 --node-rank 1 --master-addr HOST --master-port 29400 --nproc-per-node 8 --max-restarts 0 \
        -m pipeline.train RUN_FOLDER

with one process for each GPU, and the same number on all. Ranks are given by hand, so that process 0, which draws, noises and
speaks to the ledger, is on HOST: the ledger is that of HOME or HUSHTUNE_LEDGER_URL, as seen there. `--max-restarts 0` must
stay: whether a training that failed goes on is for a person to say, since its steps are charged. A machine that does not come
within ten minutes ends the training; the run can be taken up again.

Process 0 prints one JSON object a line: {"done", "total", "epsilon"} after each step. A process that fails prints {"error",
"message"}: the kind of error and one sentence without private text. Its exit code is that of the command line.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from pipeline import folders, models
from pipeline import policy as policies
from pipeline.canaries import Planted
from pipeline.errors import HushtuneError, StageError, UsageError
from pipeline.ledger import Claim, Ledger, Spend
from pipeline.train import continued, distributed
from pipeline.train.loop import train
from pipeline.train.mechanism import Mechanism


def main(arguments: list[str]) -> int:
    """Do this process's part of the training of the run whose folder is the one argument."""
    if len(arguments) != 1 or "RANK" not in os.environ:
        print("usage: torchrun --nproc-per-node N -m pipeline.train RUN_FOLDER", file=sys.stderr)
        return UsageError.exit_code
    folder = Path(arguments[0]).absolute()
    try:
        with distributed.joined() as team:
            _train(folder, team)
    except HushtuneError as error:
        return _failed(error)
    except Exception as error:
        folders.write_text(folder / "traceback.txt", "".join(traceback.format_exception(error)))
        sentence = (
            f"The training stopped on a {type(error).__name__}: traceback.txt in the run's folder {folder.name} says where."
        )
        return _failed(StageError(sentence))
    return 0


def _train(folder: Path, team: distributed.Team) -> None:
    planted = folders.finished(folder / "planted", Planted)
    claim_file, mechanism_file = folder / "claim.json", folder / "mechanism.json"
    if planted is None or not claim_file.is_file() or not mechanism_file.is_file():
        raise UsageError(f"The folder {folder} holds no run that has reserved its budget: give the folder of one.")
    claim = Claim.model_validate_json(claim_file.read_text())
    mechanism = Mechanism.model_validate_json(mechanism_file.read_text())
    if claim.mechanism != Spend(**{name: getattr(mechanism, name) for name in Spend.model_fields}):
        raise StageError(f"The mechanism of run {folder.name} is not the one that its claim reserved: start a new run.")
    rules = policies.load(str(folder / "policy.json"))
    home = folder.parent.parent
    ledger = Ledger(home) if team.leads else None
    train(
        planted,
        continued.of_run(models.resolve(rules.model, home), rules, folder),
        mechanism,
        rules,
        folder / "trained",
        claim=claim.id,
        spend=lambda steps: _of(ledger).spend(claim, steps),
        taken=ledger.taken(claim) if ledger else 0,
        progress=_progress,
        team=team,
    )


def _of(ledger: Ledger | None) -> Ledger:
    if ledger is None:
        raise StageError("Only process 0 of a training may speak to the ledger.")
    return ledger


def _progress(done: int, total: int, **figures: float | int | str) -> None:
    _say({"done": done, "total": total, **figures})


def _failed(error: HushtuneError) -> int:
    try:
        _say({"error": type(error).__name__, "message": str(error)})
    except OSError:
        pass  # whoever started the training is gone
    sys.stderr.flush()
    os._exit(error.exit_code)  # leaving in an orderly way would wait for processes that may be gone


def _say(content: dict[str, Any]) -> None:
    os.write(sys.stdout.fileno(), (json.dumps(content) + "\n").encode())  # one write: lines of several processes never mix


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
