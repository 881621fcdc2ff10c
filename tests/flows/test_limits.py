"""One trainer at a time per budget on a shared server; none of it on our own."""

import pytest
from prefect import flow
from prefect.client.orchestration import get_client

from flows import limits
from pipeline.errors import StageError


def slots(name: str) -> int:
    with get_client(sync_client=True) as client:
        return client.read_global_concurrency_limit_by_name(name).active_slots


def test_the_slot_is_made_held_and_given_back_and_a_second_trainer_waits(prefect_home, monkeypatch):
    monkeypatch.setattr(limits.server, "is_ours", lambda: False)
    name = limits.LIMIT.format("tried")

    @flow
    def trains():
        with limits.one_trainer("tried"):
            assert slots(name) == 1
            monkeypatch.setattr(limits, "RULES", {"train": limits.RULES["train"]._replace(hours=1e-4)})
            with pytest.raises(StageError, match=f"{name} gave no slot"), limits.one_trainer("tried"):
                pass
            with limits.one_trainer("another"):  # another budget has another slot
                pass
        assert slots(name) == 0
        with pytest.raises(ZeroDivisionError), limits.one_trainer("tried"):
            raise ZeroDivisionError  # what the training raises is its own
        assert slots(name) == 0
        return True

    assert trains()


def test_on_our_own_server_nothing_is_asked(monkeypatch):
    monkeypatch.setattr(limits.server, "is_ours", lambda: True)
    monkeypatch.setattr(limits, "get_client", lambda **_: pytest.fail("it asked"))
    with limits.one_trainer("records"):
        pass
