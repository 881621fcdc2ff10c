"""`hushtune metrics`: Prometheus' own parser reads it, its figures are the ledger's and the runs', and it names nobody."""

from __future__ import annotations

import json
import stat

import pytest
from prometheus_client.parser import text_string_to_metric_families

from pipeline import cli, metrics
from pipeline.folders import write_json
from pipeline.ledger import Ledger
from tests.test_anchors import spend
from tests.test_health import home  # noqa: F401 - a fixture
from tests.test_ledger import plan


@pytest.fixture(autouse=True)
def _here(monkeypatch):
    monkeypatch.delenv("HUSHTUNE_LEDGER_URL", raising=False)


def parsed(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_the_figures_are_those_of_ledger_and_runs(home, capsys):  # noqa: F811
    for run, status in (("run-2", "rejected"), ("run-3", None)):
        spend(home, run, steps=2)
        folder = home / "runs" / run
        (folder / "policy.json").write_text("{}")
        if status:
            write_json(folder / "outcome.json", {"status": status, "gates": {"utility": {"passed": False}}})
    ledger = Ledger(home)
    ledger.reserve(**plan("run-4", steps=1))
    assert cli.main(["metrics", "--home", str(home)]) == 0
    found = parsed(out := capsys.readouterr().out)
    runs = {labels[0][1]: value for (name, labels), value in found.items() if name == "hushtune_runs"}
    assert {state: count for state, count in runs.items() if count} == {"released": 1, "rejected": 1, "interrupted": 1}
    assert found["hushtune_gate_verdicts", (("gate", "utility"), ("result", "failed"))] == 1
    assert found["hushtune_gate_verdicts", (("gate", "utility"), ("result", "passed"))] == 1
    standing = ledger.standing("people")
    people = (("budget", "people"),)
    assert found["hushtune_epsilon_spent", people] == standing.epsilon_spent
    assert found["hushtune_epsilon_cap", people] == standing.epsilon_cap
    assert found["hushtune_budget_runs", people] == 4
    assert found["hushtune_claims_open", people] == 1
    assert found["hushtune_stage_seconds", (("stage", "train"),)] == 20
    assert found["hushtune_releases", ()] == 1
    made = home / "releases" / "letters" / "1" / "manifest.json"
    assert found["hushtune_last_release_timestamp_seconds", ()] == made.stat().st_mtime
    for word in ("run-1", "letters", str(home)):  # a run may be called after a data file
        assert word not in out


def test_a_home_without_anything_has_figures_and_is_not_made(tmp_path, capsys):
    assert cli.main(["metrics", "--home", str(tmp_path / "home")]) == 0
    found = parsed(capsys.readouterr().out)
    assert found["hushtune_releases", ()] == 0
    assert not any(name.startswith("hushtune_epsilon") for name, _ in found)
    assert not (tmp_path / "home").exists()


def test_a_label_with_quotes_and_line_ends_is_read_back():
    odd = 'a "quoted\\ name\n'
    text = metrics.text([metrics.Metric("m", "Words.", (({"budget": odd}, 1.5), ({}, 2)))])
    assert parsed(text) == {("hushtune_m", (("budget", odd),)): 1.5, ("hushtune_m", ()): 2.0}


def test_a_file_for_the_collector_is_whole_and_readable(home, tmp_path, capsys):  # noqa: F811
    path = tmp_path / "hushtune.prom"
    for _ in range(2):
        assert cli.main(["metrics", "--home", str(home), "--output", str(path), "--json"]) == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["releases"][0]["value"] == 1
    assert parsed(path.read_text())["hushtune_releases", ()] == 1
    assert [one.name for one in tmp_path.iterdir() if one.name.startswith("hushtune")] == ["hushtune.prom"]
