"""The whole line, nothing faked: a tiny model, 320 short records, every verdict, every exit code."""

import json
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from getpass import getuser
from pathlib import Path

import pytest

from pipeline import cli
from pipeline.errors import StageError
from pipeline.ledger import Ledger
from tests.flows.line import ADDRESS, OPEN_GATES, SENTINEL, files, holding

ROOT = Path(__file__).parents[2]

# `hushtune`, with `run` where the entry point would find it: the tests must not depend on how the package was installed.
COMMAND = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # as at a terminal, wherever the tests run
from pipeline import cli
def plugin(name):
    from flows import commands
    return getattr(commands, name)
cli._plugin = plugin
sys.exit(cli.main(sys.argv[1:]))
"""


def arguments(place: Path, policy: str, *more: str) -> list[str]:
    return ["run", str(place / "data.jsonl"), "--policy", str(place / f"{policy}.yaml"), "--home", str(place / "home"), *more]


def written(home: Path) -> dict[Path, int]:
    """When each file was written, but for the log files of an open database."""
    return {path: path.stat().st_mtime_ns for path in files(home) if path.suffix not in (".db-shm", ".db-wal", ".toml")}


def unordered(content):
    """JSON with its lists in an order of their own: a stage's stored value has its keys sorted."""
    if isinstance(content, dict):
        return {key: unordered(value) for key, value in content.items()}
    if isinstance(content, list):
        return sorted((unordered(value) for value in content), key=json.dumps)
    return content


def words_of(path: Path) -> str:
    """The words of a PDF."""
    from pypdf import PdfReader

    return " ".join(page.extract_text() for page in PdfReader(path).pages)


@pytest.fixture(scope="session")
def released(place) -> subprocess.CompletedProcess:
    """A run in a process of its own, with its own server, as a user would start it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT")}
    return subprocess.run(
        [sys.executable, "-c", COMMAND, *arguments(place, "open", "--json")],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
        check=False,
    )


class TestReleased:
    def test_exits_with_0_and_one_json_object_as_the_last_line(self, released):
        assert released.returncode == 0, released.stderr
        content = json.loads(released.stdout.splitlines()[-1])
        assert content["status"] == "released"
        assert content["unit"] == "record"
        assert 0 < content["epsilon"] <= 8
        assert set(content["gates"]) == set(OPEN_GATES)
        assert all(gate["passed"] for gate in content["gates"].values())
        assert Path(content["report"]).is_file()
        assert Path(content["release"]).name == content["version"] == "1"

    def test_progress_is_one_plain_line_a_stage_on_stderr(self, released):
        lines = released.stderr.splitlines()
        stages = ["start", "read", "probe", "scrub", "plant", "reserve", "train", "audit", "judge", "report", "publish"]
        assert [line.split()[0] for line in lines[: len(stages)]] == stages
        assert "3/3 steps" in lines[6]
        assert "ε" in lines[6]
        assert "RELEASED" in released.stderr
        assert "\x1b" not in released.stderr

    def test_the_terminal_sees_no_log_line_and_no_warning(self, released):
        for noise in ("prefect", "warning", "Warning", "Traceback", " | INFO", "INFO "):
            assert noise not in released.stderr.replace(released_path(released), "")

    def test_the_home_is_for_its_owner_only(self, released, place):
        for folder in (place / "home", place / "home" / "runs", place / "home" / "prefect"):
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700

    def test_the_run_can_be_followed_in_prefect(self, released, place):
        content = json.loads(released.stdout.splitlines()[-1])
        database = sqlite3.connect(place / "home" / "prefect" / "prefect.db")
        ((name, state),) = database.execute("select name, state_name from flow_run").fetchall()
        assert (name, state) == (content["run"], "Released")
        states = dict(database.execute("select substr(name, 1, instr(name, '-') - 1), state_name from task_run").fetchall())
        assert set(states.values()) == {"Completed"}
        assert len(states) == 11
        keys = {key for (key,) in database.execute("select key from artifact").fetchall()}
        assert {"hushtune-scrub", "hushtune-mechanism", "hushtune-evidence", "hushtune-gates", "hushtune-report"} <= keys
        ((page,),) = database.execute("select data from artifact where key = 'hushtune-report'").fetchall()
        assert "| Gate | Judged | Limit | Result |" in json.loads(page)
        assert "(file:///" in page
        logs = [message for (message,) in database.execute("select message from log").fetchall()]
        assert any(message.startswith("train: ") for message in logs)
        assert len(logs) < 40

    def test_parameters_in_prefect_are_paths_and_names(self, released, place):
        database = sqlite3.connect(place / "home" / "prefect" / "prefect.db")
        ((parameters,),) = database.execute("select parameters from flow_run").fetchall()
        assert set(json.loads(parameters)) == {"job"}
        assert set(json.loads(parameters)["job"]) == {
            "data", "policy", "home", "name", "run", "base_model", "processes", "incremental",
        }  # fmt: skip

    def test_no_text_leaves_the_run_folder(self, released, place):
        home = place / "home"
        runs = [path for path in holding(home, SENTINEL) if path.is_relative_to(home / "runs")]
        assert {path.parent.name for path in runs} >= {"corpus", "scrubbed", "planted"}  # the control: it was there to leak
        assert set(holding(home, SENTINEL)) == set(runs)
        assert {path.parent.name for path in holding(home, ADDRESS)} == {"corpus"}
        assert SENTINEL not in released.stdout + released.stderr

    def test_the_release_verifies_generates_and_lists(self, released, place, capsys):
        home = ["--home", str(place / "home")]
        assert cli.main(["verify", "data", *home]) == 0
        assert cli.main(["releases", "--json", *home]) == 0
        assert json.loads(capsys.readouterr().out.splitlines()[-1])[0]["name"] == "data"
        assert cli.main(["generate", "data", "--prompt", "baba", "--max-new-tokens", "4", "--json", *home]) == 0
        assert isinstance(json.loads(capsys.readouterr().out.splitlines()[-1])["text"], str)

    def test_a_release_of_another_home_is_not_loaded_on_its_own_word(self, released, place, tmp_path, capsys):
        folder = str(place / "home" / "releases" / "data" / "1")
        call = ["generate", folder, "--max-new-tokens", "2", "--home", str(tmp_path)]
        assert cli.main(call) == 2
        assert "what lies beside it proves nothing" in capsys.readouterr().err
        (key,) = (place / "home" / "keys").glob("*.pub")
        assert cli.main([*call, "--key", str(key)]) == 0

    def test_a_synthetic_corpus_is_compared_with_the_runs_records(self, released, place, tmp_path):
        out = tmp_path / "synthetic.jsonl"
        call = ["synthesize", "data", "--count", "3", "--output", str(out), "--max-new-tokens", "8"]
        assert cli.main([*call, "--home", str(place / "home")]) == 0
        report = json.loads((tmp_path / "synthetic.jsonl.report.json").read_text())
        assert len(out.read_text().splitlines()) == report["overlap"]["texts"] == 3
        assert report["distance"]["held_out"] > 0
        assert holding(tmp_path, SENTINEL) == []

    def test_the_budget_shows_what_was_spent(self, released, place, capsys):
        content = json.loads(released.stdout.splitlines()[-1])
        home = ["--home", str(place / "home"), "--json"]
        assert cli.main(["budget", *home, "--budget", "records"]) == 0
        (standing,) = json.loads(capsys.readouterr().out)
        assert standing["epsilon_spent"] >= content["lifetime_spent"] - 1e-9
        assert cli.main(["budget", "history", *home]) == 0
        assert json.loads(capsys.readouterr().out)[0]["charged"] == 3
        assert cli.main(["budget", "verify", *home]) == 0

    def test_nothing_of_the_data_stands_in_report_card_or_pdf(self, released, place):
        pytest.importorskip("weasyprint")
        run = json.loads(released.stdout.splitlines()[-1])["run"]
        folder = place / "home" / "runs" / run / "report"
        assert cli.main(["report", run, "--pdf", "--home", str(place / "home")]) == 0
        assert (folder / "report.pdf").read_bytes().startswith(b"%PDF-")
        for path in (folder, place / "home" / "releases"):
            assert holding(path, SENTINEL) == holding(path, ADDRESS) == []
        words = words_of(folder / "report.pdf")
        assert "Released" in words  # the control: its words can be read
        assert SENTINEL not in words

    def test_the_report_can_be_written_again(self, released, place, capsys):
        run = json.loads(released.stdout.splitlines()[-1])["run"]
        path = place / "home" / "runs" / run / "report" / "report.json"
        before = json.loads(path.read_text())
        path.unlink()
        assert cli.main(["report", run, "--home", str(place / "home")]) == 0
        assert unordered(json.loads(path.read_text())) == unordered(before)

    def test_a_release_can_be_audited_again(self, released, place, capsys):
        assert cli.main(["audit", "data", "--home", str(place / "home"), "--json"]) == 0
        content = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert content["status"] == "released"
        assert "epsilon.lower_bound" in content["figures"]

    def test_the_nightly_audit_draws_anew_and_a_broken_gate_leaves_the_release(self, released, place, prefect_home, capsys):
        from flows.parameters import Reaudit
        from flows.reaudit import reaudit

        run = json.loads(released.stdout.splitlines()[-1])["run"]
        job = Reaudit(home=str(place / "home"), target="data", policy=str(place / "closed.yaml"))
        state = reaudit(job, return_state=True)
        assert (state.name, state.is_failed()) == ("Rejected", True)
        assert "hushtune revoke data" in state.message
        (noted,) = Ledger(place / "home").notes("audit again", run)
        sealed = json.loads((place / "home" / "runs" / run / "planted" / "manifest.json").read_text())["seed"]
        assert noted.detail["seed"] != int(sealed, 16)
        found = place / "home" / "runs" / run / "audits" / noted.detail["folder"] / "evidence.json"
        first = place / "home" / "runs" / run / "evidence" / "evidence.json"
        assert figure(found, "epsilon.lower_bound") == figure(first, "epsilon.lower_bound")  # of coins, which were sealed
        assert figure(found, "utility.perplexity_ratio") != figure(first, "utility.perplexity_ratio")  # of records drawn anew
        assert cli.main(["verify", "data", "--home", str(place / "home")]) == 0

    def test_a_plan_agrees_with_what_was_done(self, released, place, capsys):
        done = json.loads(released.stdout.splitlines()[-1])
        before = written(place / "home")
        assert cli.main(["plan", *arguments(place, "open", "--json")[1:]]) == 0
        planned = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert planned["records"] == 320
        assert abs(planned["epsilon"] - done["epsilon"]) < 0.05
        assert planned["fits"] is True
        assert planned["reachable_bound"] > 1
        assert written(place / "home") == before


def figure(path: Path, name: str) -> float:
    """The value of a figure in an evidence.json."""
    return json.loads(path.read_text())["figures"][name]["value"]


def released_path(released: subprocess.CompletedProcess) -> str:
    """The folder of the run's home, which may stand in the closing table."""
    return str(Path(json.loads(released.stdout.splitlines()[-1])["folder"]).parents[1])


def test_a_failed_gate_rejects_with_3_and_publishes_nothing(hushtune, place, capsys):
    assert hushtune(arguments(place, "closed", "--name", "closed", "--json")) == 3
    captured = capsys.readouterr()
    content = json.loads(captured.out.splitlines()[-1])
    assert content["status"] == "rejected"
    assert content["release"] is None
    assert Path(content["report"]).is_file()
    assert [name for name, gate in content["gates"].items() if not gate["passed"]] == ["utility"]
    assert any("utility" in reason for reason in content["reasons"])
    assert not (place / "home" / "releases" / "closed").exists()
    folder = place / "home" / "runs" / content["run"]
    assert list(folder.rglob("*.safetensors")) == []  # its weights are gone, with proof
    deleted = Ledger(place / "home").notes("deleted", content["run"])
    assert [entry.detail["path"] for entry in deleted] == ["trained/adapter"]
    assert cli.main(["report", content["run"], "--home", str(place / "home")]) == 0


def test_a_run_waits_for_approval_with_5_and_is_released_by_it(hushtune, place, capsys, monkeypatch):
    assert hushtune(arguments(place, "asking", "--name", "asking", "--json")) == 5
    content = json.loads(capsys.readouterr().out.splitlines()[-1])
    home = ["--home", str(place / "home")]
    assert content["status"] == "awaiting_approval"
    assert content["release"] is None
    assert not (place / "home" / "releases" / "asking").exists()
    monkeypatch.setenv("HUSHTUNE_USER", "Dana")
    from flows.approve import approve
    from flows.parameters import Approval

    job = Approval(run=content["run"], by="Ann Other", home=str(place / "home"))
    state = approve(job, return_state=True)  # the flow, where the command would do the same
    made = state.result()
    assert (state.name, made.name, made.version) == ("Released", "asking", "1")
    assert cli.main(["approve", content["run"], "--by", "Ann Other", *home]) == 0  # nothing more to do
    assert cli.main(["verify", "asking", *home]) == 0
    manifest = json.loads((place / "home" / "releases" / "asking" / "1" / "manifest.json").read_text())
    assert (manifest["submitter"], manifest["approval"]["by"]) == (getuser(), "Ann Other")


def test_an_inconclusive_run_exits_with_3(hushtune, place, capsys):
    assert hushtune(arguments(place, "vague", "--name", "vague", "--json")) == 3
    content = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert content["status"] == "inconclusive"
    assert content["release"] is None
    assert not (place / "home" / "releases" / "vague").exists()


def test_retention_is_a_flow(prefect_home, tmp_path):
    from flows.parameters import Retention
    from flows.retention import retention
    from tests.test_retention import finished

    folder = finished(tmp_path, days=5000)
    state = retention(Retention(home=str(tmp_path)), return_state=True)
    assert state.is_completed()
    assert "corpus" in {one.path for one in state.result()}
    assert not (folder / "corpus" / "records.jsonl").exists()


def test_an_audit_past_retention_or_before_a_release_is_a_named_state(prefect_home, tmp_path):
    from flows.parameters import Reaudit, Retention
    from flows.reaudit import reaudit
    from flows.retention import retention
    from tests.test_retention import finished

    folder = finished(tmp_path, days=5000)
    assert reaudit(Reaudit(home=str(tmp_path), target="nothing"), return_state=True).name == "NothingReleased"
    retention(Retention(home=str(tmp_path)), return_state=True)
    state = reaudit(Reaudit(home=str(tmp_path), target=folder.name), return_state=True)
    assert (state.name, state.is_completed()) == ("PastRetention", True)
    assert "corpus" in state.message


def test_a_plan_shows_who_was_in_which_runs(released, place, capsys):
    assert cli.main(["plan", *arguments(place, "open")[1:]]) == 0
    out = capsys.readouterr().out
    assert "cohorts" in out
    assert "320 records in" in out


def test_an_exhausted_budget_refuses_with_4_before_training(hushtune, place, capsys, prefect_home):
    assert hushtune(arguments(place, "broke", "--name", "broke", "--json")) == 4
    captured = capsys.readouterr()
    content = json.loads(captured.out.splitlines()[-1])
    assert content["status"] == "budget_exhausted"
    assert "left" in content["error"]
    assert captured.err.splitlines()[-1] == f"hushtune: {content['error']}"
    folder = place / "home" / "runs" / content["run"]
    assert not (folder / "trained").exists()
    database = sqlite3.connect(prefect_home / "prefect.db")
    assert ("BudgetExhausted",) in database.execute("select state_name from flow_run").fetchall()


@pytest.mark.parametrize("stage", ["scrub", "plant", "train", "report"])
def test_a_stage_that_breaks_leaks_nothing(stage, hushtune, place, tmp_path, capsys, monkeypatch, prefect_home):
    from flows import tasks

    secret = f"leak-{stage}-7731"

    def broken(*args, **kwargs):
        private = f"dear {secret}"
        try:
            raise LookupError(private)
        except LookupError as cause:
            raise ValueError(private) from cause

    target = {
        "scrub": (tasks.scrubbing, "scrub"),
        "plant": (tasks, "plant_canaries"),
        "train": (tasks, "train_adapter"),
        "report": (tasks.reports, "build"),
    }[stage]
    monkeypatch.setattr(*target, broken)
    home = tmp_path / "home"
    call = ["run", str(place / "data.jsonl"), "--policy", str(place / "open.yaml"), "--home", str(home), "--json"]
    assert hushtune(call) == 1
    captured = capsys.readouterr()
    assert secret not in captured.out + captured.err
    assert "ValueError" in captured.err.splitlines()[-1]
    assert json.loads(captured.out.splitlines()[-1])["status"] == "error"
    found = holding(home, secret)
    assert [path.name for path in found] == ["traceback.txt"]  # the control: there was something to leak
    assert stat.S_IMODE(found[0].stat().st_mode) == 0o600
    assert holding(prefect_home, secret) == []


def test_ctrl_c_is_130_one_sentence_and_what_is_done_stays(place, tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT")}
    home = tmp_path / "home"
    call = ["run", str(place / "data.jsonl"), "--policy", str(place / "open.yaml"), "--home", str(home)]
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, *call],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment,
        start_new_session=True,
    )
    for line in process.stderr:
        if line.startswith("probe"):  # scrubbing begins
            break
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT)  # what a terminal does
    rest = process.stderr.read().splitlines()
    assert process.wait(timeout=60) == 130
    (folder,) = (home / "runs").iterdir()
    assert rest[-1].startswith(
        f"hushtune: Stopped by you: no privacy was spent; the same command goes on with run {folder.name}"
    )
    assert not any("Traceback" in line for line in rest), "\n".join(rest)
    assert (folder / "corpus" / "stage.json").exists()
    assert not (folder / "claim.json").exists()


@pytest.mark.parametrize("answer", ["nothing", "an error of its own"])
def test_ctrl_c_that_a_library_swallows_still_stops_the_run(answer, hushtune, place, tmp_path, capsys, monkeypatch):
    from flows import tasks

    probes = tasks.write_probes

    def swallow(*args, **kwargs):
        try:
            signal.raise_signal(signal.SIGINT)
        except BaseException as error:
            if answer != "nothing":
                raise AttributeError("no such name") from error
        return probes(*args, **kwargs)

    monkeypatch.setattr(tasks, "write_probes", swallow)
    home = tmp_path / "home"
    call = ["run", str(place / "data.jsonl"), "--policy", str(place / "open.yaml"), "--home", str(home)]
    assert hushtune(call) == 130
    assert "Stopped by you" in capsys.readouterr().err.splitlines()[-1]
    (folder,) = (home / "runs").iterdir()
    assert not (folder / "claim.json").exists()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_stage_error_is_the_flow_result(hushtune, place, tmp_path, monkeypatch):
    from flows import commands, tasks

    def broken(*args, **kwargs):
        raise StageError("The disk is full.")

    monkeypatch.setattr(tasks.corpora, "read", broken)
    with pytest.raises(StageError, match="disk is full"):
        commands.run(cli.parser().parse_args(["run", str(place / "data.jsonl"), "--home", str(tmp_path / "home")]))
