"""The command line: what it parses, what it prints, and which exit code each ending has."""

import argparse
import ast
import importlib
import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from pipeline import cli
from pipeline.commands import common
from pipeline.errors import (
    BudgetExhausted,
    HushtuneError,
    InputError,
    IntegrityError,
    ModelError,
    PolicyError,
    StageError,
    UsageError,
)

ROOT = Path(__file__).parents[1]
SENTINEL = "zq-private-sentinel-7731"
CONTRACT = {
    "run", "plan", "scrub", "recall", "audit", "report", "approve", "verify", "releases", "budget", "policy", "models",
    "generate", "synthesize", "bench", "revoke", "keys", "retention", "deploy", "study", "health", "metrics",
}  # fmt: skip


def leaves(parser: argparse.ArgumentParser, path: tuple[str, ...] = ()):
    """Every command of a parser with its own parser."""
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not groups:
        yield path, parser
    for name, child in groups[0].choices.items() if groups else ():
        yield from leaves(child, (*path, name))


COMMANDS = dict(leaves(cli.parser()))


def raising(monkeypatch, error: BaseException) -> None:
    def call(arguments):
        raise error

    monkeypatch.setattr(cli, "_call", call)


def test_has_the_commands_of_the_contract():
    assert {path[0] for path in COMMANDS} == CONTRACT


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_has_help_and_a_function(path, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([*path, "--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert "--json" in out
    assert "exit codes" in out
    function = COMMANDS[path].get_default("function")
    if path in {("run",), ("deploy",), ("study",)}:  # found by their entry points
        assert function == path[0]
    else:
        module, _, name = function.partition(":")
        assert callable(getattr(importlib.import_module(module), name))


@pytest.mark.parametrize("argv", [[], ["nonsense"], ["scrub", "x.jsonl"], ["run", "--nonsense"], ["policy"]])
def test_wrong_usage_is_exit_code_2(argv, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(argv)
    assert stop.value.code == 2
    assert "usage" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (HushtuneError, 1),
        (StageError, 1),
        (IntegrityError, 1),
        (UsageError, 2),
        (InputError, 2),
        (PolicyError, 2),
        (ModelError, 2),
        (BudgetExhausted, 4),
    ],
)
def test_each_error_has_its_exit_code_and_one_line(kind, code, monkeypatch, capsys):
    raising(monkeypatch, kind("What, where, and how to mend it."))
    assert cli.main(["releases"]) == code
    captured = capsys.readouterr()
    assert captured.err == "hushtune: What, where, and how to mend it.\n"
    assert captured.out == ""


def test_an_unexpected_error_is_one_line_that_quotes_nothing(monkeypatch, capsys):
    raising(monkeypatch, ValueError(f"bad value {SENTINEL}"))
    assert cli.main(["releases"]) == 1
    err = capsys.readouterr().err
    assert SENTINEL not in err
    assert "ValueError" in err
    assert err.count("\n") == 1


def test_developers_can_ask_for_the_traceback(monkeypatch):
    raising(monkeypatch, ValueError("x"))
    monkeypatch.setenv("HUSHTUNE_TRACEBACK", "1")
    with pytest.raises(ValueError, match="x"):
        cli.main(["releases"])


def test_ctrl_c_is_130_and_one_sentence(monkeypatch, capsys):
    raising(monkeypatch, KeyboardInterrupt())
    assert cli.main(["releases"]) == 130
    assert capsys.readouterr().err == "hushtune: Stopped by you; nothing half-written is left.\n"


def test_a_command_without_its_entry_point_says_how_to_install(monkeypatch, capsys):
    monkeypatch.setattr(metadata, "entry_points", lambda **_: ())
    assert cli.main(["run"]) == 1
    assert "pip install" in capsys.readouterr().err


def test_run_is_found_by_entry_point(monkeypatch):
    seen = {}

    def fake(arguments):
        seen.update(vars(arguments))
        return 5

    entry = type("Entry", (), {"load": staticmethod(lambda: fake)})
    monkeypatch.setattr(metadata, "entry_points", lambda **where: [entry] if where["name"] == "run" else [])
    assert cli.main(["run", "mail.jsonl", "--text-column", "body", "--limit", "7", "--name", "mail"]) == 5
    assert (seen["data"], seen["text_column"], seen["limit"], seen["name"]) == (Path("mail.jsonl"), "body", 7, "mail")


def test_the_project_declares_the_entry_point():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["hushtune.commands"] == {
        "run": "flows.commands:run",
        "deploy": "flows.deploy:deploy",
        "study": "flows.study_command:study",
    }
    assert project["scripts"]["hushtune"] == "pipeline.cli:main"


def test_home_comes_from_flag_then_environment_then_default(monkeypatch):
    monkeypatch.delenv("HUSHTUNE_HOME", raising=False)
    assert cli.parser().parse_args(["releases"]).home == Path("hushtune-home")
    monkeypatch.setenv("HUSHTUNE_HOME", "/somewhere")
    assert cli.parser().parse_args(["releases"]).home == Path("/somewhere")
    assert cli.parser().parse_args(["releases", "--home", "here"]).home == Path("here")


def test_help_imports_nothing_heavy():
    code = (
        "import sys, pipeline.cli as cli\ntry:\n    cli.main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print([m for m in ('torch','pydantic','yaml','rich','prefect','numpy','sqlalchemy') if m in sys.modules])"
    )
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert made.stdout.splitlines()[-1] == "[]"


HEAVY = ("torch", "transformers", "peft", "opacus", "prefect", "spacy", "presidio_analyzer", "matplotlib", "pandas", "pyarrow")
COLD = """
import sys
from pipeline import cli
heavy, calls = sys.argv[1].split(","), [call.split() for call in sys.argv[2].split(";")]
for call in calls:
    assert cli.main(call) in (0, 1), call
    print(*call[:2], [name for name in heavy if name in sys.modules], file=sys.stderr)
"""


def test_light_commands_import_nothing_heavy(tmp_path):
    """What a person or a monitor asks often answers at once: what is not imported costs no time anywhere."""
    from pipeline.release import publish
    from tests.test_release import a_run

    publish(**a_run(tmp_path))
    home = f"--home {tmp_path}"
    calls = [
        "policy list", "policy show gdpr", "policy diff default strict", "keys new --replace", "releases", "verify letters",
        "budget show", "budget history", "budget verify", "retention --dry-run", "health", "metrics",
    ]  # fmt: skip
    script = [sys.executable, "-c", COLD, ",".join(HEAVY), ";".join(f"{call} {home}" for call in calls)]
    made = subprocess.run(script, capture_output=True, text=True, cwd=ROOT, check=False)
    assert made.returncode == 0, made.stderr
    told = [line for line in made.stderr.splitlines() if line.endswith("]")]
    assert len(told) == len(calls)
    assert [line for line in told if not line.endswith("[]")] == []


def test_a_plan_imports_what_it_counts_with_and_no_more(tmp_path):
    """Two accountants and the model's speed, without PyTorch; the two that it reads and counts with are found."""
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps({"text": f"The {number}th small record."}) + "\n" for number in range(600)))
    names = ",".join((*HEAVY, "dp_accounting"))
    script = [sys.executable, "-c", COLD, names, f"plan {data} --home {tmp_path / 'home'}"]
    made = subprocess.run(script, capture_output=True, text=True, cwd=ROOT, check=False)
    assert made.returncode == 0, made.stderr
    assert made.stderr.splitlines()[-1].endswith("['pyarrow', 'dp_accounting']")


def test_the_library_never_imports_the_flows():
    guilty = []
    for path in (ROOT / "pipeline").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            guilty += [f"{path.name}: {name}" for name in names if name.split(".")[0] in {"prefect", "flows"}]
    assert guilty == []


def test_flow_files_do_not_postpone_annotations():
    """Prefect resolves a flow's parameter types when it serves it, and cannot where annotations are strings."""
    files = list((ROOT / "flows").glob("*.py"))
    assert files
    assert [path.name for path in files if "from __future__ import annotations" in path.read_text()] == []


def flags(*argv: str) -> argparse.Namespace:
    return cli.parser().parse_args(argv)


def test_column_flags_override_the_policy_and_change_its_digest():
    plain = common.resolved_policy(flags("plan", "x.jsonl"))
    changed = common.resolved_policy(
        flags("plan", "x.jsonl", "--text-column", "body", "--unit-pattern", "^[^_]+", "--base-model", "some/folder")
    )
    assert (changed.data.text_column, changed.data.unit_pattern, changed.model) == ("body", "^[^_]+", "some/folder")
    assert changed.data.id_column == plain.data.id_column
    assert changed.digest != plain.digest


@pytest.mark.parametrize("flag", [("--limit", "0"), ("--unit-pattern", "(")])
def test_a_flag_out_of_range_is_a_policy_error(flag):
    with pytest.raises(PolicyError):
        common.resolved_policy(flags("plan", "x.jsonl", *flag))


def test_a_missing_file_is_named(tmp_path, capsys):
    path = tmp_path / "nothing.jsonl"
    assert cli.main(["plan", str(path), "--home", str(tmp_path / "home")]) == 2
    assert str(path) in capsys.readouterr().err
    assert not (tmp_path / "home").exists()


def test_the_bundled_example_is_the_default_and_says_so(capsys):
    path = common.data_file(flags("run"))
    assert path.is_file()
    assert path.name in capsys.readouterr().err


def test_columns_align():
    assert common.columns([("a", 1), ("bcd", 22)], heads=("name", "n")) == "name  n\na     1\nbcd   22"


class TestPolicy:
    def test_list_names_the_presets(self, capsys):
        assert cli.main(["policy", "list", "--json"]) == 0
        assert {"base", "default", "strict", "gdpr"} <= json.loads(capsys.readouterr().out).keys()
        assert cli.main(["policy", "list"]) == 0
        assert "ε 3" in capsys.readouterr().out

    def test_show_prints_yaml_that_loads_again_as_the_same_policy(self, capsys, tmp_path):
        from pipeline import policy

        assert cli.main(["policy", "show", "gdpr"]) == 0
        path = tmp_path / "copy.yaml"
        path.write_text(capsys.readouterr().out, encoding="utf-8")
        assert policy.load(path).digest == policy.load("gdpr").digest

    def test_diff_names_what_changed(self, capsys):
        assert cli.main(["policy", "diff", "default", "strict"]) == 0
        out = capsys.readouterr().out
        assert "privacy.epsilon: 8 → 3, tighter" in out.replace("8.0", "8").replace("3.0", "3")
        assert cli.main(["policy", "diff", "default", "default"]) == 0
        assert "do not differ" in capsys.readouterr().out

    def test_check_names_the_unknown_key(self, capsys, tmp_path):
        path = tmp_path / "ours.yaml"
        path.write_text("extends: default\nprivacy:\n  epsilonn: 3\n", encoding="utf-8")
        assert cli.main(["policy", "check", str(path)]) == 2
        err = capsys.readouterr().err
        assert "privacy.epsilonn" in err
        assert str(path) in err
        path.write_text("extends: default\nprivacy: {epsilon: 3}\n", encoding="utf-8")
        assert cli.main(["policy", "check", str(path)]) == 0

    def test_schema_is_json(self, capsys):
        assert cli.main(["policy", "schema"]) == 0
        assert "extends" in json.loads(capsys.readouterr().out)["properties"]


def test_python_m_pipeline_is_the_command():
    made = subprocess.run(
        [sys.executable, "-m", "pipeline", "--version"], capture_output=True, text=True, cwd=ROOT, env=os.environ, check=True
    )
    assert made.stdout.startswith("hushtune ")
