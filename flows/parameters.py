"""What each flow takes: one frozen model of paths, names and small numbers, never text.

Prefect's server checks a new run against the JSON Schema of these models, so that a wrong parameter is refused before there is
a run. It stores what passes in its database, in plain sight. So every string is one line of bounded length, every name has a
form, and a message about a wrong one does not repeat it.
"""

import os
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from pipeline.runs import ID, NAME, name_for

_LINE = r"^[^\x00-\x1f\x7f]+$"

Place = Annotated[str, Field(min_length=1, max_length=1024, pattern=_LINE)]
"""A path, a URL, or the name of a preset or of a base model."""

Name = Annotated[str, Field(pattern=NAME)]
RunId = Annotated[str, Field(pattern=ID)]
Target = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._-]{0,63})?$")]


class Job(BaseModel):
    """What all flows take: the folder of all state; HUSHTUNE_HOME of the worker unless given, else ./hushtune-home."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    home: Place | None = None

    @property
    def folder(self) -> Path:
        """The home as an absolute path."""
        return Path(self.home or os.environ.get("HUSHTUNE_HOME") or "hushtune-home").expanduser().absolute()


class Finetune(Job):
    """A fine-tuning run.

    `data` is a file, a URL, or a drop folder. `policy` is a preset or the path of a policy file. `name` is what the release is
    called, the data's name by default. `run` takes up one run; without it the interrupted run of the same name, policy and
    data goes on, or a new one begins. `base_model` overrides the policy's. `processes` train together on one machine.
    `incremental`, for a drop folder: read only the files that are in no released run of this name.
    """

    data: Place
    policy: Place = "default"
    name: Name | None = None
    run: RunId | None = None
    base_model: Place | None = None
    processes: Annotated[int, Field(ge=1, le=1024)] = 1
    incremental: bool = False

    @property
    def called(self) -> str:
        """What its releases are called."""
        return self.name or name_for(Path(self.data))


class Reaudit(Job):
    """An audit with fresh seeds: of the latest release of a name, of NAME/VERSION, or of a run; by its policy or another."""

    target: Target
    policy: Place | None = None


class Retention(Job):
    """A sweep of everything in a home that the policies keep no longer."""


class Approval(Job):
    """The approval of a run that awaits it, by a person."""

    run: RunId
    by: Annotated[str, Field(min_length=1, max_length=200, pattern=_LINE)]
