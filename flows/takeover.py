"""What a killed run leaves on Prefect's page: nobody told the server of its end, so whoever takes the run up does.

A run's folder names the flow run that works on it. The lock on the folder ends with its process, however that ends; so who
holds it knows that the flow run named before is dead, which otherwise would be shown as running for good, and alert nobody.
"""

import logging
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.runtime import flow_run
from prefect.states import Crashed

from pipeline.folders import write_text
from pipeline.runs import Run


def take_over(run: Run) -> None:
    """Name this flow run in the folder of a run that is held; the one before it, if it never ended, is told to have crashed.

    A run never fails for want of it.
    """
    number = flow_run.get_id()
    if number is None:
        return
    path = run.folder / "flow-run"
    before = path.read_text(encoding="ascii").strip() if path.exists() else number
    write_text(path, number)
    if before == number:
        return
    try:
        with get_client(sync_client=True) as client:
            found = client.read_flow_run(UUID(before)).state
            if found is not None and not found.is_final():
                words = f"Its process died without a word; run {run.id} is gone on with."
                client.set_flow_run_state(UUID(before), Crashed(message=words), force=True)
    except Exception as error:
        logging.getLogger(__name__).warning("The flow run before this one was not told dead (%s).", type(error).__name__)
