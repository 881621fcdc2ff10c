"""One trainer at a time per budget, on a Prefect server that several workers share.

A global concurrency limit makes runs of one budget queue from their reservation to the end of their training. It is there for
memory, cores and order. What keeps the budget safe is the ledger, which takes reservations one by one whatever Prefect does:
where a slot is lost (its lease was not renewed), training goes on.
"""

import contextlib
from collections.abc import Iterator

from prefect import get_run_logger
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound

from flows import server
from flows.deploy import LIMIT
from flows.rules import RULES
from pipeline.errors import StageError

_LEASE = 300.0  # seconds, renewed while the slot is held; what a killed worker held is free again after as long


@contextlib.contextmanager
def one_trainer(budget: str) -> Iterator[None]:
    """Hold the only slot of a budget while the context is open; on our own server, which serves one run, there is none.

    Raises:
        StageError: no slot came free in the time that a training may take, or the server does not answer.
    """
    if server.is_ours():
        yield
        return
    name, hours = LIMIT.format(budget), RULES["train"].hours
    with contextlib.ExitStack() as held:
        why = None
        try:
            _wait_for(name)
            held.enter_context(
                concurrency(
                    name,
                    strict=True,
                    timeout_seconds=hours * 3600,
                    lease_duration=_LEASE,
                    raise_on_lease_renewal_failure=False,
                )
            )
        except Exception as error:
            why = type(error).__name__
        if why:
            raise StageError(
                f"The concurrency limit {name} gave no slot within {hours} h ({why}): if no run of this budget trains, "
                f"free it by `prefect global-concurrency-limit update {name} --active-slots 0`."
            )
        yield


def _wait_for(name: str) -> None:
    """Make the limit where there is none, and say in the run's log that it has to wait, if so."""
    with get_client(sync_client=True) as client:
        try:
            limit = client.read_global_concurrency_limit_by_name(name)
        except ObjectNotFound:
            with contextlib.suppress(ObjectAlreadyExists):
                client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=1))
            return
    if limit.active_slots >= limit.limit:
        get_run_logger().info("waits: another run of this budget trains (%s)", name)
