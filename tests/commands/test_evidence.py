"""`hushtune audit`: what it takes, what it refuses, and what the self-test says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline import cli
from pipeline.audit import selftest


def result(flagged: bool) -> selftest.Tested:
    p = 1e-9 if flagged else 0.5
    return selftest.Tested(p_values=dict.fromkeys(selftest.CHECKS, p), flagged=flagged, seconds=1.0)


@pytest.mark.parametrize("spoilt", [None, "correct", "no noise"])
def test_the_self_test_passes_only_if_every_fault_is_caught_and_nothing_else(
    spoilt: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {name: result((name != "correct") is not (name == spoilt)) for name in ("correct", *selftest.FAULTS)}
    monkeypatch.setattr(selftest, "run", lambda **_: found)
    assert cli.main(["audit", "--self-test", "--json"]) == (1 if spoilt else 0)
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert answer["passed"] is (spoilt is None)
    assert answer["alpha"] == selftest.ALPHA
    assert set(answer["steps"]) == {"correct", *selftest.FAULTS}
    assert cli.main(["audit", "--self-test"]) == (1 if spoilt else 0)
    assert ("SELF-TEST FAILED" in capsys.readouterr().out) is (spoilt is not None)


def test_an_audit_says_what_it_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = ["--home", str(tmp_path / "home")]
    assert cli.main(["audit", *home]) == 2
    assert "Say what to audit" in capsys.readouterr().err
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    assert cli.main(["audit", str(tmp_path / "adapter"), *home]) == 2
    assert "name that run by --run" in capsys.readouterr().err
    assert cli.main(["audit", "no-such-run", "--base-model", "nano", *home]) == 2
    assert "for the folder of an adapter" in capsys.readouterr().err
