"""What a study is asked to do: one YAML file, validated into one frozen object.

    spec = load(Path("study.yaml"))
    [cell.name for cell in spec.cells()]      # one for each model, ε and seed

Public data must be declared so by a named person. Private data is refused unless the ledger is charged for every cell.
"""

from __future__ import annotations

import json
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from pipeline import policy as policies
from pipeline.errors import InputError, PolicyError
from pipeline.folders import Value
from pipeline.policy import Policy, Section, wrong_key

_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,39}$"
_ABOUT = {"path", "public", "declared_by", "source"}  # all other keys of the data are those of a policy's


def _target(value: Any) -> Any:
    return None if value == "none" else value


def _by_name(value: Any) -> Any:
    return {"ref": value} if isinstance(value, str) else value


Epsilon = Annotated[Annotated[float, Field(gt=0, le=50)] | None, BeforeValidator(_target)]
"""A target, or None (in YAML: none) for training without clipping and noise."""


class Data(Section):
    """The records; without a path, the bundled example, whose people and texts are invented."""

    path: Path | None = None
    public: bool = Field(default=False, description="whether anybody may read the data already")
    declared_by: str | None = Field(default=None, min_length=2, description="the person who says that it is public")
    source: str | None = Field(default=None, max_length=400, description="where the data comes from, for the page")
    text_column: str | None = None
    prompt_column: str | None = None
    completion_column: str | None = None
    messages_column: str | None = None
    id_column: str | None = None
    unit_column: str | None = None
    unit_pattern: str | None = None
    limit: int | None = Field(default=None, ge=1)
    max_tokens: int | None = Field(default=None, ge=8)
    held_out: float | None = Field(default=None, gt=0, le=0.5)

    @model_validator(mode="after")
    def _declared(self) -> Data:
        if self.public and self.path and not self.declared_by:
            raise ValueError("is declared public by nobody: name the person who says so in data.declared_by")
        return self

    @property
    def is_public(self) -> bool:
        """Whether nobody's privacy is at stake."""
        return self.path is None or self.public


class Pretrain(Section):
    """A model that the study makes on PUBLIC text before it begins; `recipe` holds the sections of a recipe but its data."""

    texts: tuple[Path, ...] = Field(min_length=1)
    recipe: dict[str, Any] = Field(default_factory=dict)


class Model(Section):
    """A rung of the grid: a base model by `ref` (a name or a folder), or one to be made; `train` overrides the study's."""

    name: str = Field(default="", pattern=r"^[A-Za-z0-9._-]{0,40}$")
    ref: str | None = None
    pretrain: Pretrain | None = None
    train: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _named(cls, content: Any) -> Any:
        if isinstance(content, dict) and content.get("ref") and not content.get("name"):
            return content | {"name": Path(str(content["ref"])).name}
        return content

    @model_validator(mode="after")
    def _one_source(self) -> Model:
        if (self.ref is None) == (self.pretrain is None):
            raise ValueError("needs exactly one of ref and pretrain")
        if not self.name:
            raise ValueError("needs a name: it is made here and has none of its own")
        return self


class Point(Value):
    """The place of a cell in the grid."""

    model: str
    epsilon: float | None
    seed: int

    @property
    def name(self) -> str:
        """How it is called in messages."""
        return f"{self.model}, {label(self.epsilon)}, seed {self.seed}"


class Spec(Section):
    """A grid over models, ε and seeds. `canaries`, `train` and `audit` hold keys of the policy's sections of these names."""

    name: str = Field(pattern=_NAME)
    description: str = Field(min_length=8)
    data: Data = Data()
    policy: str = Field(default="default", description="what the cells' policies start from")
    scrub: bool = Field(default=False, description="scrub public data too; private data always is")
    charge_ledger: bool = Field(
        default=False, description="for private data: charge the policy's lifetime budget for every cell"
    )
    models: tuple[Annotated[Model, BeforeValidator(_by_name)], ...] = Field(min_length=1)
    epsilons: tuple[Epsilon, ...] = Field(min_length=1)
    seeds: tuple[int, ...] = Field(default=(0, 1), min_length=1)
    canaries: dict[str, Any] = Field(default_factory=dict)
    train: dict[str, Any] = Field(default_factory=dict)
    audit: dict[str, Any] = Field(default_factory=dict)
    parallel: int = Field(default=1, ge=1, le=64, description="cells at work at one time")
    threads: int = Field(default=1, ge=1, description="threads of a cell")
    watts: float = Field(default=10, gt=0, description="of one busy core, or of the GPU; for an estimate of energy")

    @field_validator("epsilons", "seeds")
    @classmethod
    def _once(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(set(value)) < len(value):
            raise ValueError("names a value twice")
        return value

    @model_validator(mode="after")
    def _distinct(self) -> Spec:
        names = [model.name for model in self.models]
        if len(set(names)) < len(names):
            raise ValueError("models: two have the same name; give one of them another")
        return self

    def points(self) -> list[Point]:
        """The grid: all ε and seeds of the first model, then of the next."""
        grid = product(self.models, self.seeds, self.epsilons)
        return [Point(model=model.name, epsilon=epsilon, seed=seed) for model, seed, epsilon in grid]

    def model(self, name: str) -> Model:
        """The model of that name."""
        return next(model for model in self.models if model.name == name)

    def rules(self, point: Point) -> Policy:
        """The policy of a cell. Without a target ε the policy's own only proposes a schedule, as every `auto` does.

        Raises:
            PolicyError: a key or a value is not one of the policy's.
        """
        changes: dict[str, Any] = {"privacy__epsilon": point.epsilon or max(filter(None, self.epsilons), default=None)}
        changes |= {f"data__{key}": value for key, value in self.data.model_dump(exclude=_ABOUT).items()}
        trained = self.train | self.model(point.model).train
        for section, content in (("canaries", self.canaries), ("train", trained), ("audit", self.audit)):
            changes |= _flat(section, content)
        base = policies.load(self.policy)
        known = base.model_dump(mode="json")
        for path in changes:
            _check_key(known, path)
        return base.override(name=f"study-{self.name}", train__seed=point.seed, **changes)

    def check(self) -> None:
        """Refuse what a study may not do, before anything is read.

        Raises:
            InputError: the data is private and nothing is charged for it, or nothing could be.
            PolicyError: a cell's policy cannot be had, or promises less than the one that it starts from.
        """
        where = self.data.path
        for point in self.points():
            rules = self.rules(point)
            if rules.continued_pretraining is not None:
                raise PolicyError(
                    f"The policy {self.policy} asks for continued pretraining, which a study does not do: start from another."
                )
            if self.data.is_public:
                continue
            if not self.charge_ledger:
                raise InputError(
                    f"The study {self.name} would train models on {where}, which nobody has declared public: set "
                    "data.public and data.declared_by if it is, or charge_ledger to charge the lifetime budget for every cell."
                )
            if point.epsilon is None:
                raise InputError(
                    f"The study {self.name} would train on {where} without clipping and noise, and the data is not declared "
                    "public: such a training has no ε that a budget could be charged with, so take none out of epsilons."
                )
            promised = policies.load(self.policy).privacy.epsilon
            if rules.privacy.epsilon > promised:
                raise PolicyError(
                    f"The study {self.name} asks for ε {point.epsilon:g} on private data and the policy {self.policy} promises "
                    f"{promised:g}: lower it."
                )


def _flat(path: str, content: dict[str, Any]) -> dict[str, Any]:
    """Nested keys as the dotted paths that `Policy.override` takes."""
    found: dict[str, Any] = {}
    for key, value in content.items():
        inner = f"{path}__{key}"
        found |= _flat(inner, value) if isinstance(value, dict) else {inner: value}
    return found


def _check_key(known: dict[str, Any], path: str) -> None:
    section: Any = known
    for part in path.split("__"):
        if not isinstance(section, dict) or part not in section:
            raise PolicyError(
                f"The study names {path.replace('__', '.')}, which is no key of a policy: see policies/base.yaml."
            )
        section = section[part]


def label(epsilon: float | None) -> str:
    """A target ε in words."""
    return "no DP" if epsilon is None else f"ε {epsilon:g}"


def bundled() -> Path:
    """The spec that comes with hushtune: small, on the bundled example."""
    return Path(str(files("pipeline") / "assets" / "study" / "example.yaml"))


def load(path: Path) -> Spec:
    """Read and validate a spec; paths in it are relative to its folder.

    Raises:
        InputError: the file cannot be read.
        PolicyError: it is not YAML, has an unknown key or a value out of range.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The study {path} cannot be read ({type(error).__name__}): give the path of a YAML file.") from None
    except yaml.YAMLError:
        raise PolicyError(f"The study {path} is not YAML: mend it.") from None
    if not isinstance(content, dict):
        raise PolicyError(f"The study {path} holds no keys: see `hushtune study --help` for an example.")
    return parse(content, f"study {path.name}", path.absolute().parent)


def parse(content: dict[str, Any], where: str, folder: Path) -> Spec:
    """Validate a spec; relative paths are taken from `folder`.

    Raises:
        PolicyError: an unknown key, or a value out of range.
    """
    try:
        spec = Spec.model_validate_json(json.dumps(content))
    except (TypeError, ValueError) as error:
        if not isinstance(error, ValidationError):
            raise PolicyError(f"In {where}, a value is of a kind that YAML allows and a study does not.") from None
        raise PolicyError(wrong_key(error, where, keys=f"the bundled {bundled().name}")) from None
    return _rooted(spec, folder)


def _rooted(spec: Spec, folder: Path) -> Spec:
    data = spec.data.model_copy(update={"path": folder / spec.data.path if spec.data.path else None})
    models = tuple(
        model.model_copy(
            update={
                "ref": str(folder / model.ref) if model.ref and (folder / model.ref).is_dir() else model.ref,
                "pretrain": model.pretrain
                and model.pretrain.model_copy(update={"texts": tuple(folder / text for text in model.pretrain.texts)}),
            }
        )
        for model in spec.models
    )
    return spec.model_copy(update={"data": data, "models": models})
