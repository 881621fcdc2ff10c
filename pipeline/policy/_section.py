"""What every section of a policy is made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Share = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
Limit = Annotated[float, Field(allow_inf_nan=False)]
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"


class Section(BaseModel):
    """Base of the policy's sections: frozen, and a key that is not listed is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def wrong_key(error: ValidationError, where: str, *, keys: str, add: str = "add it") -> str:
    """What is wrong with a file of keys, in a sentence: the first error, its key and how to mend it.

    `where` is the kind of the file and its name, `keys` the place that lists the keys there are, `add` what to do when one
    is missing.
    """
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"]) or f"the {where.partition(' ')[0]}"
    if first["type"] == "extra_forbidden":
        return f"In {where}, the key {key} is unknown: remove it, or see {keys} for the keys there are."
    if first["type"] == "missing":
        return f"In {where}, the key {key} is missing: {add}."
    found = "" if isinstance(first["input"], dict) else f" (it is {first['input']!r})"
    return f"In {where}, {key} {first['msg'].removeprefix('Value error, ').removeprefix('Input ')}{found}."
