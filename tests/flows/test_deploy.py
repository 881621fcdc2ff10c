"""The deployments: what is filled in is what the flows take, and what --up cannot use is one sentence."""

import importlib
import json
import socket
import stat
import subprocess
import sys
import time

import pytest
import yaml
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools import validate

from flows import deploy, supervisor
from flows.deploy import AUTOMATIONS, VANISHED
from pipeline import cli
from pipeline.errors import UsageError

CHILD = """
import time
from flows import supervisor
supervisor.runpy.run_module = lambda *_, **__: (print("up", flush=True), time.sleep(60))
supervisor._child([])
"""
NAMES = {"finetune-weekly", "audit-nightly", "retention-daily", "approve"}


@pytest.fixture
def hushtune_deploy(monkeypatch, tmp_path):
    monkeypatch.setattr(cli, "_plugin", lambda name: getattr(deploy, name))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    return lambda *flags: cli.main(["deploy", "--home", str(tmp_path / "home"), *flags])


def filled(tmp_path) -> dict:
    content = yaml.safe_load((tmp_path / "home" / "prefect.yaml").read_text())
    return {one["name"]: one for one in content["deployments"]}


def test_the_commands_deploy_what_the_flows_take(hushtune_deploy, tmp_path, place, capsys):
    flags = ("--data", str(place), "--policy", str(place / "open.yaml"), "--name", "letters", "--incremental")
    assert hushtune_deploy(*flags, "--cron", "0 1 * * 6", "--timezone", "Europe/Berlin", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    path = tmp_path / "home" / "prefect.yaml"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [command.split()[1] for command in said["commands"][:2]] == ["work-pool", "global-concurrency-limit"]
    assert "hushtune-budget-records" in said["commands"][1]
    assert f"--prefect-file {path}" in said["commands"][2]
    made = filled(tmp_path)
    assert set(made) == NAMES
    for one in made.values():
        module, _, name = one["entrypoint"].rpartition(".")
        flow = getattr(importlib.import_module(module), name)
        job = one["parameters"]["job"] | ({"run": "a-run", "by": "Ann"} if one["name"] == "approve" else {})
        assert validate({"job": job}, parameter_schema(flow).model_dump_for_openapi()) == []
        assert job["home"] == str(tmp_path / "home")
        assert one["enforce_parameter_schema"] is True
        assert one["work_pool"] == {"name": "hushtune"}
    assert made["finetune-weekly"]["parameters"]["job"]["incremental"] is True
    assert made["finetune-weekly"]["schedules"] == [{"cron": "0 1 * * 6", "timezone": "Europe/Berlin", "active": True}]
    assert made["audit-nightly"]["parameters"]["job"]["target"] == "letters"
    assert "schedules" not in made["approve"]


def test_without_data_there_is_a_private_drop_folder(hushtune_deploy, tmp_path, capsys):
    assert hushtune_deploy() == 0
    assert "prefect worker start --pool hushtune" in capsys.readouterr().out
    inbox = tmp_path / "home" / "inbox"
    assert stat.S_IMODE(inbox.stat().st_mode) == 0o700
    assert filled(tmp_path)["finetune-weekly"]["parameters"]["job"]["data"] == str(inbox)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--data", "nowhere/at/all"], "does not exist"),
        (["--policy", "nobodys"], "nobodys"),
        (["--cron", "every day"], "no schedule"),
        (["--timezone", "Mars/Olympus"], "no schedule"),
        (["--name", "../x"], "cannot name a run"),
        (["--up", "--port", "70000"], "no port"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(hushtune_deploy, capsys, flags, words):
    assert hushtune_deploy(*flags) == 2
    assert words in capsys.readouterr().err.splitlines()[-1]


def test_a_taken_port_is_named():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UsageError, match=f"Port {port} is taken"):
            supervisor._check_port(port)
    supervisor._check_port(port)  # the control


def test_one_server_a_home(tmp_path):
    with supervisor._alone(tmp_path), pytest.raises(UsageError, match="Another"), supervisor._alone(tmp_path):
        pass
    with supervisor._alone(tmp_path):
        pass


def test_a_process_that_dies_is_named_and_started_again_later_each_time(tmp_path, monkeypatch, capsys):
    clock = [0.0]
    monkeypatch.setattr(supervisor.time, "monotonic", lambda: clock[0])
    child = supervisor.Child("worker", [sys.executable, "-c", "raise SystemExit(7)"], {}, tmp_path / "worker.log")
    waits = []
    for _ in range(3):
        child.start()
        child.process.wait()
        child.watch()
        assert child.process is None
        before = clock[0]
        while child.process is None:
            clock[0] += 0.5
            child.watch()
        waits.append(clock[0] - before)
        child.process.wait()
    assert waits == [1, 2, 4]
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith(f"The worker ended (exit code 7): see {tmp_path / 'worker.log'}")


def test_a_child_ends_when_its_supervisor_does(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "up\n"
    assert process.poll() is None  # the control
    began = time.monotonic()
    process.stdin.close()
    process.wait(timeout=20)
    assert time.monotonic() - began < 20
    process.stdout.close()


def test_the_alerts_are_automations_of_this_prefect_and_wait_for_events_that_are_sent():
    from prefect.events.schemas.automations import AutomationCore
    from prefect.server.utilities.user_templates import validate_user_template

    from flows import endings

    content = yaml.safe_load(AUTOMATIONS.read_text())["automations"]
    made = [AutomationCore.model_validate(one) for one in content]
    assert {action.type for one in made for action in one.actions} == {"call-webhook", "send-notification"}
    sent = {f"hushtune.run.{what}" for what in (*endings._NAMES, "budget_exhausted", "nothing_new", "timed_out", "at_work")}
    sent |= {f"hushtune.audit.{what}" for what in ("rejected", "inconclusive", "confirmed", "past_retention")}
    waited = {event for one in made for event in one.trigger.expect}
    assert {event for event in waited if event.startswith("hushtune.")} <= sent
    assert {"hushtune.run.rejected", "hushtune.run.budget_exhausted", "hushtune.run.awaiting_approval"} <= waited
    assert "prefect.flow-run.Crashed" in waited
    for action in (action for one in content for action in one["actions"]):
        for template in (action[key] for key in ("payload", "subject", "body") if key in action):
            assert validate_user_template(template) is None
            assert "{{" in template


def test_whoever_vanishes_is_told_dead_by_one_automation_however_often_it_is_deployed(prefect_home):
    from prefect.client.orchestration import get_client

    from flows import apply

    name = yaml.safe_load(VANISHED.read_text())["automations"][0]["name"]
    with get_client(sync_client=True) as client:
        apply._tell_dead(client, 300)
        apply._tell_dead(client, 150)
        (made,) = client.read_automations_by_name(name)
        assert made.trigger.within.total_seconds() == 150
        assert made.enabled
        client.pause_automation(made.id)
        apply._tell_dead(client, 150)
        (made,) = client.read_automations_by_name(name)
        assert not made.enabled  # what a person paused stays paused
        client.delete_automation(made.id)


def test_a_run_that_ends_under_a_name_of_ours_counts_as_a_sign_of_life():
    from prefect.events.schemas.automations import AutomationCore
    from prefect.server.events.schemas.automations import EventTrigger

    (one,) = yaml.safe_load(VANISHED.read_text())["automations"]
    AutomationCore.model_validate(one)
    trigger = EventTrigger.model_validate(one["trigger"])
    for name in ("Released", "BudgetExhausted", "Superseded", "Completed", "Crashed", "heartbeat", "Running"):
        assert trigger.expects(f"prefect.flow-run.{name}")
    assert trigger.starts_after("prefect.flow-run.heartbeat")
    assert trigger.starts_after("prefect.flow-run.Pending")
    assert not trigger.starts_after("prefect.flow-run.Released")


@pytest.mark.parametrize("given", [None, "me:mine", ""])
def test_the_server_asks_for_a_login_unless_it_is_told_not_to(tmp_path, monkeypatch, given):
    monkeypatch.delenv("PREFECT_SERVER_API_AUTH_STRING", raising=False)
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "somebody:else")
    if given is not None:
        monkeypatch.setenv("PREFECT_SERVER_API_AUTH_STRING", given)
    login = supervisor._login(tmp_path)
    assert supervisor._login(tmp_path) == login  # a browser that has logged in stays so
    plan = deploy.Plan(home=tmp_path, file=tmp_path / "prefect.yaml", budget="records", schedules={})
    environment = supervisor._environment(plan, "http://127.0.0.1:1/api", login)
    assert "PREFECT_SERVER_API_AUTH_STRING" not in environment  # a flow run needs it for nothing
    assert environment.get("PREFECT_API_AUTH_STRING") == login
    path, said = tmp_path / "login", supervisor._welcome(plan, 1, tmp_path, login)
    if given is None:
        name, _, word = login.partition(":")
        assert (name, len(word) >= 32) == ("hushtune", True)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert f"the line in {path}" in said
    else:
        assert login == (given or None)
        assert not path.exists()
    assert ("login" in said) == bool(login)
    assert login is None or login not in said
