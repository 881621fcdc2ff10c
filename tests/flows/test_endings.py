"""Each ending has its named state and its event, and no event holds a sentence."""

from datetime import UTC, datetime

import pytest
from prefect.states import StateType

from flows import endings
from flows.parameters import Finetune, Reaudit
from pipeline import policy
from pipeline.errors import BudgetExhausted, BusyError
from pipeline.gates import judge
from pipeline.runs import Run
from tests.flows.test_console import outcome
from tests.test_gates import POOR, good

RULES = policy.load("default")
RUN = Run(name="letters", id="letters-20250101-000000-abcd", home="/home")
JOB = Finetune(data="/srv/inbox", name="letters")


def audited(**poor):
    return endings.audited_again(Reaudit(target="letters"), RUN.id, judge(RULES, good(**poor)))


ENDINGS = {
    "Released": (lambda: endings.ended(outcome(status="released")), "hushtune.run.released"),
    "AwaitingApproval": (lambda: endings.ended(outcome(status="awaiting_approval")), "hushtune.run.awaiting_approval"),
    "Rejected": (lambda: endings.ended(outcome(status="rejected")), "hushtune.run.rejected"),
    "Inconclusive": (lambda: endings.ended(outcome(status="inconclusive")), "hushtune.run.inconclusive"),
    "BudgetExhausted": (
        lambda: endings.budget_exhausted(RUN, RULES, BudgetExhausted("Nothing is left.")),
        "hushtune.run.budget_exhausted",
    ),
    "NothingNew": (lambda: endings.nothing_new(JOB), "hushtune.run.nothing_new"),
    "Superseded": (
        lambda: endings.superseded("audit", "letters", datetime(2025, 1, 5, 2, 17, tzinfo=UTC)),
        "hushtune.audit.superseded",
    ),
    "AtWork": (lambda: endings.at_work(JOB, BusyError("Another process works on it.")), "hushtune.run.at_work"),
    "TimedOut": (lambda: endings.timed_out(RUN, TimeoutError("too long")), "hushtune.run.timed_out"),
    "Confirmed": (audited, "hushtune.audit.confirmed"),
    "PastRetention": (
        lambda: endings.past_retention(Reaudit(target="letters"), RUN.id, ("corpus",)),
        "hushtune.audit.past_retention",
    ),
}
COMPLETED = {"Released", "AwaitingApproval", "NothingNew", "Superseded", "Confirmed", "PastRetention"}


@pytest.fixture
def sent(monkeypatch):
    events = []
    monkeypatch.setattr(endings, "emit_event", lambda **event: events.append(event))
    return events


@pytest.mark.parametrize("name", ENDINGS)
def test_an_ending_is_a_named_state_and_one_event(name, sent):
    make, event = ENDINGS[name]
    state = make()
    assert state.name == name
    assert state.type == (StateType.COMPLETED if name in COMPLETED else StateType.FAILED)
    (only,) = sent
    assert only["event"] == event
    assert only["resource"]["prefect.resource.id"].startswith("hushtune.run.")
    for value in only["payload"].values():
        assert isinstance(value, (int, float, list, type(None))) or " " not in value


def test_a_release_says_what_it_cost(sent):
    endings.ended(outcome())
    payload = sent[0]["payload"]
    assert (payload["run"], payload["name"], payload["version"], payload["epsilon"]) == (
        "mail-20250101-000000-abcd", "mail", "3", 7.91,
    )  # fmt: skip
    assert payload["failed"] == ["utility"]


def test_an_audit_that_breaks_a_gate_is_rejected_and_leaves_the_decision_to_a_person(sent):
    state = audited(**POOR)
    assert (state.name, state.type) == ("Rejected", StateType.FAILED)
    assert "hushtune revoke letters --why" in state.message
    assert sent[0]["event"] == "hushtune.audit.rejected"
    assert sent[0]["payload"]["failed"]


def test_a_run_does_not_fail_for_want_of_an_event(monkeypatch):
    def refuse(**_):
        raise ConnectionError("no server")

    monkeypatch.setattr(endings, "emit_event", refuse)
    assert endings.nothing_new(JOB).name == "NothingNew"
