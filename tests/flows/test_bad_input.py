"""Wrong input is one sentence that names what is wrong, leaves nothing behind, and quotes nothing private."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.flows import line
from tests.flows.line import SENTINEL


class Case(NamedTuple):
    """What is wrong: makes (data, policy) in a folder; the message must hold all of `names`."""

    make: Callable[[Path, Path], tuple[Path, Path]]
    names: tuple[str, ...]


def with_lines(change: Callable[[list[str]], list[str]]):
    def make(folder: Path, place: Path) -> tuple[Path, Path]:
        lines = [json.dumps(line.record(index)) for index in range(320)]
        (folder / "data.jsonl").write_text("\n".join(change(lines)))
        return folder / "data.jsonl", place / "open.yaml"

    return make


def with_bytes(content: bytes | None):
    def make(folder: Path, place: Path) -> tuple[Path, Path]:
        if content is not None:
            (folder / "data.jsonl").write_bytes(content)
        return folder / "data.jsonl", place / "open.yaml"

    return make


def with_policy(changes: dict):
    def make(folder: Path, place: Path) -> tuple[Path, Path]:
        content = line.policy(place) | {"name": "bad"}
        for key, value in changes.items():
            content[key] = content.get(key, {}) | value if isinstance(value, dict) else value
        return place / "data.jsonl", line.write(folder / "bad.yaml", content)

    return make


CASES = {
    "missing file": Case(with_bytes(None), ("data.jsonl",)),
    "empty file": Case(with_bytes(b""), ("data.jsonl", "empty")),
    "binary file": Case(with_bytes(b"\x7fELF\0\0" + SENTINEL.encode() + bytes(64)), ("data.jsonl", "binary")),
    "broken line": Case(
        with_lines(lambda lines: [*lines[:6], f'{{"text": "{SENTINEL} ', *lines[7:]]), ("data.jsonl", "line 7")
    ),
    "missing column": Case(
        with_lines(lambda lines: [one.replace('"text"', '"body"') for one in lines]), ("data.jsonl", "text")
    ),
    "too few records": Case(with_lines(lambda lines: lines[:30]), ("units", "canaries.count")),
    "overlong record": Case(with_policy({"data": {"overlong": "refuse", "max_tokens": 8}}), ("data.max_tokens",)),
    "beyond the context": Case(with_policy({"data": {"max_tokens": 4096}}), ("data.max_tokens", "context")),
    "unknown key": Case(with_policy({"privacy": {"epsilonn": 3}}), ("bad.yaml", "privacy.epsilonn")),
    "no epsilon": Case(with_policy({"privacy": {"epsilon": 0}}), ("bad.yaml", "privacy.epsilon")),
    "unknown model": Case(with_policy({"model": "nobodys-model"}), ("nobodys-model",)),
    "unknown entity": Case(with_policy({"scrub": {"entities": ["SHOE_SIZE"]}}), ("SHOE_SIZE",)),
}


@pytest.mark.parametrize("name", CASES)
def test_is_one_sentence_with_code_2_and_leaves_nothing(name, hushtune, place, tmp_path, capsys, prefect_home):
    data, policy = CASES[name].make(tmp_path, place)
    home = tmp_path / "home"
    assert hushtune(["run", str(data), "--policy", str(policy), "--home", str(home), "--json"]) == 2
    captured = capsys.readouterr()
    sentence = captured.err.splitlines()[-1]
    assert sentence.startswith("hushtune: ")
    assert all(word in sentence for word in CASES[name].names)
    assert "Traceback" not in captured.err
    assert SENTINEL not in captured.err + captured.out
    assert json.loads(captured.out.splitlines()[-1])["error"] == sentence.removeprefix("hushtune: ")
    assert list(home.rglob("*")) in ([], [home / "runs"])
    assert line.holding(prefect_home, SENTINEL) == []
