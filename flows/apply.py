"""What `hushtune deploy --up` tells its server: pool, limit and deployments, and whom to hold for dead."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate, WorkPoolCreate
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import ObjectAlreadyExists
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

from flows.deploy import POOL, VANISHED, Plan
from pipeline.errors import StageError

HEARTBEAT = "PREFECT_FLOWS_HEARTBEAT_FREQUENCY"
_MISSED = 5  # signs of life that a run misses before it is held for dead


def apply(plan: Plan, environment: dict[str, str], log: Path) -> None:
    """Create pool, limit, deployments and automation, by Prefect's own commands; what exists already stays as it is.

    Raises:
        StageError: the server refuses the deployments; the message names the log.
    """
    names = (PREFECT_API_URL, PREFECT_API_AUTH_STRING)
    settings = {setting: environment[setting.name] for setting in names if setting.name in environment}
    with temporary_settings(settings), get_client(sync_client=True) as client:
        with contextlib.suppress(ObjectAlreadyExists):
            client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
        with contextlib.suppress(ObjectAlreadyExists):
            client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=plan.limit, limit=1))
        _tell_dead(client, _MISSED * int(environment[HEARTBEAT]))
        _deploy(plan, environment, log)


def _deploy(plan: Plan, environment: dict[str, str], log: Path) -> None:
    with open(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
        command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(plan.file)]
        done = subprocess.run(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, env=environment, check=False)
    if done.returncode:
        raise StageError(f"Prefect's server refused the deployments: see {log}.")


def _tell_dead(client: SyncPrefectClient, seconds: int) -> None:
    """Have the server tell those runs dead that give no sign of life for so long; one that a person paused stays paused."""
    (wanted,) = yaml.safe_load(VANISHED.read_text(encoding="utf-8"))["automations"]
    wanted["trigger"]["within"] = seconds
    found = client.read_automations_by_name(wanted["name"])
    if found:
        wanted["enabled"] = found[0].enabled
        client.update_automation(found[0].id, AutomationCore.model_validate(wanted))
    else:
        client.create_automation(AutomationCore.model_validate(wanted))
