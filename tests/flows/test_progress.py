"""The progress artifact: it only grows, ends at 100 whichever way a run ends, and is not made on our own server."""

import pytest

from flows import progress
from flows.rules import RULES


@pytest.fixture
def shown(monkeypatch):
    values = []
    monkeypatch.setattr(progress, "_artifacts", {})
    monkeypatch.setattr(progress.server, "is_ours", lambda: False)
    monkeypatch.setattr(progress, "create_progress_artifact", lambda percent, **_: values.append(percent) or "an id")
    monkeypatch.setattr(progress, "update_progress_artifact", lambda _, progress: values.append(progress))
    return values


@pytest.mark.parametrize("last", ["publish", "hold", "discard"])
def test_progress_grows_to_the_end(shown, monkeypatch, last):
    clock = iter(range(0, 10**6, 20))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    for stage in [name for name in RULES if name not in ("publish", "hold", "discard")] + [last]:
        tell = progress.teller("run", stage)
        for done in (0, 1, 2):
            tell(done, 2)
        progress.passed("run", stage)
    assert shown == sorted(shown)
    assert shown[-1] == 100
    assert len(shown) == 4 * 11


def test_a_stage_tells_now_and_then(shown, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    tell = progress.teller("run", "train")
    for step in range(100):
        clock[0] = step
        tell(step, 100)
    assert len(shown) == 6


def test_none_on_our_own_server_and_no_run_fails_for_want_of_it(shown, monkeypatch):
    monkeypatch.setattr(progress, "create_progress_artifact", lambda *_, **__: 1 / 0)
    progress.passed("run", "read")
    monkeypatch.setattr(progress.server, "is_ours", lambda: True)
    progress.passed("run", "read")
    assert shown == []
