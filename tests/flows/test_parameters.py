"""A wrong parameter is refused by the schema that Prefect's server checks, and by the model, in words that do not repeat it."""

import pytest
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools import is_valid_schema, validate
from pydantic import ValidationError

from flows.approve import approve
from flows.finetune import finetune
from flows.parameters import Approval, Finetune, Reaudit, Retention
from flows.reaudit import reaudit
from flows.retention import retention

FLOWS = {finetune: Finetune, reaudit: Reaudit, retention: Retention, approve: Approval}
GOOD = {
    Finetune: {"data": "s3://bucket/inbox", "policy": "gdpr", "name": "letters", "processes": 2, "incremental": True},
    Reaudit: {"target": "letters/3", "home": "/srv/home"},
    Retention: {"home": "/srv/home"},
    Approval: {"run": "letters-20250101-000000-abcd", "by": "Ann Other"},
}
SECRET = "dear zqsentinelword"
WRONG = [
    (Finetune, {"data": f"{SECRET}\nsecond line"}),
    (Finetune, {"data": "x" * 1025}),
    (Finetune, {"data": ""}),
    (Finetune, {"name": SECRET}),
    (Finetune, {"name": "../elsewhere"}),
    (Finetune, {"run": SECRET}),
    (Finetune, {"processes": 0}),
    (Finetune, {"processes": SECRET}),
    (Finetune, {"epsilon": 100}),
    (Reaudit, {"target": SECRET}),
    (Reaudit, {"target": "letters/../../etc"}),
    (Retention, {"home": f"{SECRET}\n"}),
    (Approval, {"by": f"{SECRET}\n{SECRET}"}),
    (Approval, {"by": ""}),
    (Approval, {"run": "no/run"}),
]


def schema(kind: type) -> dict:
    flow = next(flow for flow, model in FLOWS.items() if model is kind)
    return parameter_schema(flow).model_dump_for_openapi()


@pytest.mark.parametrize("kind", GOOD)
def test_what_is_right_passes_both(kind):
    assert is_valid_schema(schema(kind)) is None
    assert validate({"job": GOOD[kind]}, schema(kind), raise_on_error=True) == []
    assert kind(**GOOD[kind])


@pytest.mark.parametrize(("kind", "change"), WRONG)
def test_what_is_wrong_is_refused_by_both_and_not_repeated(kind, change):
    content = GOOD[kind] | change
    assert validate({"job": content}, schema(kind)) or change == {"home": f"{SECRET}\n"}  # its $ allows a last line end
    with pytest.raises(ValidationError) as caught:
        kind(**content)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.name)
def test_a_flow_takes_one_job_and_is_never_tried_again(flow):
    assert set(flow.parameters.properties) == {"job"}
    assert (flow.retries, flow.persist_result, flow.log_prints) == (0, False, False)


def test_home_is_the_workers_unless_given(monkeypatch, tmp_path):
    monkeypatch.setenv("HUSHTUNE_HOME", str(tmp_path))
    assert Retention().folder == tmp_path
    assert Retention(home="/srv/home").folder.as_posix() == "/srv/home"
