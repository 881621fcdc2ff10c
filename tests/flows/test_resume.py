"""An interrupted run is taken up by the same command, wherever it was interrupted, and pays once."""

import errno
import functools
import json
import os
import random
import subprocess
import sys
import time

import pytest

from pipeline import cli
from pipeline.ledger import Ledger
from tests.flows.test_finetune import COMMAND, ROOT


def killed_in(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Break a run where a kill would: inside training after two spends, or at the first word of a later stage."""
    from flows import tasks
    from pipeline.train import checkpoint

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    if stage == "train":
        monkeypatch.setattr(checkpoint, "SECONDS", 0.0)
        spend = Ledger.spend
        monkeypatch.setattr(Ledger, "spend", lambda self, claim, steps: spend(self, claim, steps) if steps < 3 else full())
    elif stage == "reserve":  # between the ledger's commit and claim.json
        reserve = Ledger.reserve
        monkeypatch.setattr(Ledger, "reserve", lambda self, **plan: (reserve(self, **plan), full()))
    elif stage == "close":
        monkeypatch.setattr(Ledger, "close", full)
    else:  # after the release is in its place, before anybody is told
        monkeypatch.setattr(tasks, "outcome", full)


SLOW = [pytest.param(stage, marks=pytest.mark.slow) for stage in ("reserve", "close", "outcome")]


@pytest.mark.parametrize("stage", ["train", *SLOW])
def test_the_same_command_takes_up_an_interrupted_run(stage, hushtune, place, tmp_path, capsys, monkeypatch):
    home = tmp_path / "home"
    call = ["run", str(place / "data.jsonl"), "--policy", str(place / "open.yaml"), "--home", str(home), "--json"]
    with monkeypatch.context() as patch:
        killed_in(stage, patch)
        assert hushtune(call) == 1
    broken = json.loads(capsys.readouterr().out.splitlines()[-1])
    (folder,) = (home / "runs").iterdir()
    kept = [(folder / "planted" / "manifest.json"), folder / "probes.jsonl"]
    before = [path.read_bytes() for path in kept]
    assert hushtune(call) == 0
    captured = capsys.readouterr()
    content = json.loads(captured.out.splitlines()[-1])
    assert content["run"] == folder.name
    assert broken["run"] in (folder.name, None)
    assert f"Taking up run {folder.name}, interrupted: " in captured.err
    if stage == "train":
        assert "2 of its 3 steps are charged to budget records" in captured.err
    assert [path.read_bytes() for path in kept] == before
    statement = json.loads((folder / "trained" / "privacy.json").read_text())
    assert (statement["steps_charged"], statement["steps_taken"]) == (3, 3)
    assert (
        statement["canary_manifest"] == json.loads((folder / "planted" / "stage.json").read_text())["value"]["manifest_digest"]
    )
    assert cli.main(["budget", "history", "--home", str(home), "--json"]) == 0
    (charge,) = json.loads(capsys.readouterr().out)
    assert charge["charged"] == 3
    assert [path.name for path in (home / "releases" / "data").iterdir() if path.name != "latest"] == ["1"]


@pytest.mark.slow
def test_new_leaves_an_interrupted_run_and_says_what_it_costs(hushtune, place, tmp_path, capsys, monkeypatch):
    home = tmp_path / "home"
    call = ["run", str(place / "data.jsonl"), "--policy", str(place / "open.yaml"), "--home", str(home), "--json"]
    with monkeypatch.context() as patch:
        killed_in("train", patch)
        assert hushtune(call) == 1
    (folder,) = (home / "runs").iterdir()
    capsys.readouterr()
    assert hushtune([*call, "--new"]) == 0
    captured = capsys.readouterr()
    assert (
        f"Left run {folder.name}, interrupted: all 3 steps that it reserved stay charged to budget records (2 were"
        in captured.err
    )
    assert json.loads(captured.out.splitlines()[-1])["run"] != folder.name


@pytest.mark.slow
@pytest.mark.parametrize("row", ["probe", "plant", "reserve", "train", "audit"])
def test_kill_minus_nine_of_the_command_is_mended_by_the_same_command(row, place, tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT")}
    home = tmp_path / "home"
    call = ["run", str(place / "data.jsonl"), "--policy", str(place / "open.yaml"), "--home", str(home), "--json"]
    start = functools.partial(
        subprocess.Popen, [sys.executable, "-c", COMMAND, *call], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        cwd=ROOT, env=environment,
    )  # fmt: skip
    process = start()
    for line in process.stderr:
        if line.startswith(row):  # the row has ended, the next one begins
            break
    time.sleep(0 if row == "audit" else random.random())  # what follows the audit takes no second
    process.kill()
    process.communicate()
    (folder,) = (home / "runs").iterdir()
    manifest = folder / "planted" / "manifest.json"
    before = manifest.read_bytes() if manifest.exists() else None
    process = start()
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert errors.startswith(f"Taking up run {folder.name}, interrupted: ")
    assert json.loads(out.splitlines()[-1])["run"] == folder.name
    assert before is None or manifest.read_bytes() == before
    ((charge,),) = [Ledger(home).charges("records")]
    assert (charge.charged, charge.closed) == (3, True)
