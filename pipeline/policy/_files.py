"""Policy files: find one by name or path, read it, and lay it over the parent that it extends."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import PolicyError


def presets() -> list[str]:
    """Names of the policies that ship with hushtune."""
    return sorted(path.name.removesuffix(".yaml") for path in _shipped().iterdir() if path.name.endswith(".yaml"))


def resolve(name: str, seen: tuple[str, ...]) -> list[tuple[str, dict[str, Any]]]:
    """The policy and its ancestors, the oldest first, each by name and with all that it inherits."""
    path = _locate(name, seen)
    if str(path) in seen:
        raise PolicyError(f"Policy {path} extends itself: remove one `extends`.")
    content = _parse(path)
    parent = content.pop("extends", None)
    if parent is None:
        return [(name, content)]
    if not isinstance(parent, str):
        raise PolicyError(f"Policy {path}: `extends` must be the name or path of one policy.")
    beside = path.parent / parent
    reference = str(beside) if parent.endswith((".yaml", ".yml")) and beside.is_file() else parent
    ancestors = resolve(reference, (*seen, str(path)))
    return [*ancestors, (name, _merge(ancestors[-1][1], content))]


def _locate(name: str, seen: tuple[str, ...]) -> Path:
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or "/" in name:
        if not path.is_file():
            raise PolicyError(f"Policy file {name} does not exist: give a path that does, or one of {', '.join(presets())}.")
        return path.resolve()
    if name not in presets():
        where = f" (extended by {seen[-1]})" if seen else ""
        raise PolicyError(
            f"There is no policy named {name}{where}: choose one of {', '.join(presets())}, or give a .yaml path."
        )
    return _shipped() / f"{name}.yaml"


def _parse(path: Path) -> dict[str, Any]:
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Once)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" (line {mark.line + 1})" if mark else ""
        if isinstance(error, _Twice):
            raise PolicyError(f"Policy file {path} says a key twice{line}: remove the one that does not count.") from error
        raise PolicyError(f"Policy file {path} is not valid YAML{line}: mend it and try again.") from error
    if not isinstance(content, dict):
        raise PolicyError(f"Policy file {path} must hold keys and values, such as `extends: default`.")
    return content


class _Twice(yaml.YAMLError):
    """A mapping says a key twice, of which YAML would take the last without a word."""

    def __init__(self, mark: Any) -> None:
        super().__init__()
        self.problem_mark = mark


class Once(yaml.SafeLoader):
    """Plain values only, as `yaml.safe_load`, and each key once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if str(key.value) in seen:
                raise _Twice(key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def _merge(parent: dict[str, Any], child: dict[str, Any]) -> dict[str, Any]:
    merged = dict(parent)
    for key, value in child.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _shipped() -> Path:
    return Path(str(files("policies")))
