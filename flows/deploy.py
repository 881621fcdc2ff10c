"""`hushtune deploy`: the commands that put the flows on a schedule, or all of it on this machine with --up.

What differs from place to place (data, policy, home, times) is filled into a copy of prefect.yaml in the home, so that the
commands, and what --up does, read the same file.
"""

import argparse
import json
import os
import shlex
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from flows import server
from flows.parameters import Finetune
from pipeline import policy, runs
from pipeline.errors import UsageError
from pipeline.folders import Value, private_folder, write_text
from pipeline.strictness import check_name

POOL = "hushtune"
LIMIT = "hushtune-budget-{}"
AUTOMATIONS = resources.files("flows") / "automations.yaml"
VANISHED = resources.files("flows") / "vanished.yaml"


class Plan(Value):
    """What is deployed: the filled-in file, the home, the budget whose trainers queue, and when each deployment runs."""

    home: Path
    file: Path
    budget: str
    schedules: dict[str, str]

    @property
    def limit(self) -> str:
        """Name of the global concurrency limit: one trainer at a time (see flows/limits.py)."""
        return LIMIT.format(self.budget)

    def commands(self) -> list[str]:
        """What brings the deployments to a Prefect server that runs already."""
        home, file = shlex.quote(str(self.home)), shlex.quote(str(self.file))
        return [
            f"prefect work-pool create {POOL} --type process",
            f"prefect global-concurrency-limit create {self.limit} --limit 1",
            f"prefect --no-prompt deploy --all --prefect-file {file}",
            f"prefect automation create --from-file {shlex.quote(str(VANISHED))}",
            f"HUSHTUNE_HOME={home} prefect worker start --pool {POOL} --type process",
        ]


def deploy(arguments: argparse.Namespace) -> int:
    """Print the commands for an existing server, or run everything here until Ctrl-C.

    Raises:
        UsageError: the policy, the data, a schedule or the port cannot be used.
    """
    server.configure(runs.open_home(arguments.home))
    made = plan(arguments)
    if arguments.up:
        from flows import supervisor

        return supervisor.up(made, arguments.port)
    said = [f"# The deployments are in {made.file}. On the machine of the server or of a worker:"]
    if not os.environ.get("PREFECT_API_URL"):
        said.append("export PREFECT_API_URL=http://SERVER:4200/api")
    said += [*made.commands(), f"# Alerts: fill in a copy of {AUTOMATIONS}, then: prefect automation create --from-file COPY"]
    if arguments.json:
        content = {"file": str(made.file), "commands": made.commands(), "schedules": made.schedules}
        print(json.dumps(content, ensure_ascii=False, sort_keys=True))
    else:
        print("\n".join(said))
    return 0


def plan(arguments: argparse.Namespace) -> Plan:
    """Check what is to be deployed, and write HOME/prefect.yaml.

    Raises:
        UsageError: the policy, the data or a schedule cannot be used.
    """
    home = runs.open_home(arguments.home)
    data = _data(arguments.data, home)
    where = _absolute(arguments.policy)
    rules = policy.load(where).override(model=arguments.base_model)
    check_name(rules)
    name = arguments.name or runs.name_for(Path(data))
    runs.check_name(name)
    finetune = Finetune(
        home=str(home), data=data, policy=where, name=name, base_model=arguments.base_model, incremental=arguments.incremental
    )
    crons = {
        "finetune-weekly": arguments.cron,
        "audit-nightly": arguments.audit_cron,
        "retention-daily": arguments.retention_cron,
    }
    content = yaml.safe_load((resources.files("flows") / "prefect.yaml").read_text(encoding="utf-8"))
    _fill(content, finetune, crons, arguments.timezone)
    write_text(home / "prefect.yaml", yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    schedules = {deployment: f"{cron} ({arguments.timezone})" for deployment, cron in crons.items()}
    return Plan(home=home, file=home / "prefect.yaml", budget=rules.privacy.lifetime.budget, schedules=schedules)


def _fill(content: dict[str, Any], finetune: Finetune, crons: dict[str, str], zone: str) -> None:
    """Put parameters and times into the deployments of prefect.yaml."""
    for deployment in content["deployments"]:
        job = deployment["parameters"]["job"]
        job["home"] = finetune.home
        if "target" in job:
            job["target"] = finetune.name
        if "data" in job:
            job.update(finetune.model_dump(mode="json", exclude_none=True, exclude_defaults=True))
        if cron := crons.get(deployment["name"]):
            _check_cron(cron, zone)
            deployment["schedules"] = [{"cron": cron, "timezone": zone, "active": True}]


def _data(given: str | None, home: Path) -> str:
    """The data as the flow takes it: a URL, or an absolute path that exists; HOME/inbox unless given."""
    if given is None:
        return str(private_folder(home / "inbox"))
    if "://" in given:
        return given
    path = Path(given).expanduser().absolute()
    if not path.exists():
        raise UsageError(f"{path} does not exist: make the folder, or give another file or folder by --data.")
    return str(path)


def _absolute(given: str) -> str:
    """A policy file by its absolute path, since a worker has another working folder; a preset by its name."""
    path = Path(given).expanduser()
    return str(path.absolute()) if path.is_file() else given


def _check_cron(cron: str, zone: str) -> None:
    from prefect.client.schemas.schedules import CronSchedule

    fine = False
    try:
        fine = bool(CronSchedule(cron=cron, timezone=zone))
    except ValueError:
        pass
    if not fine:
        raise UsageError(
            f"{cron!r} in {zone} is no schedule: give five cron fields, as in '17 2 * * 0', and a time zone's name."
        )


def say(words: str) -> None:
    """Tell the person at the terminal."""
    print(words, file=sys.stderr, flush=True)
