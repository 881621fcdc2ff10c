"""The grid of a study: its folder, its models, what is done already, and a cell at work in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import BudgetExhausted, HushtuneError, StageError
from pipeline.folders import digest, digest_file, private_folder, write_json
from pipeline.runs import open_home
from pipeline.study.spec import Point, Spec, parse

if TYPE_CHECKING:
    from pipeline.models import Base
    from pipeline.study.cell import Cell


def start(spec: Spec, home: Path) -> Path:
    """Refuse what may not be done, and make HOME/studies/NAME, mode 0700, with the spec in it.

    Raises:
        InputError: the data is private and nothing is charged for it (`Spec.check`).
        PolicyError: a cell's policy cannot be had.
    """
    spec.check()
    folder = private_folder(open_home(home) / "studies") / spec.name
    private_folder(folder)
    write_json(folder / "spec.json", spec.model_dump(mode="json"))
    return folder


def resumed(folder: Path) -> Spec:
    """The spec of the study in a folder."""
    return parse(json.loads((folder / "spec.json").read_text(encoding="utf-8")), f"study {folder.name}", folder)


def make_models(
    spec: Spec, folder: Path, home: Path, *, progress: Callable[[str, dict[str, float]], None] | None = None
) -> list[Path]:
    """Pretrain the models that the spec wants made; one that is there already is not made again."""
    from pipeline import recipe as recipes
    from pipeline.pretrain import pretrain

    made = []
    for model in spec.models:
        if model.pretrain is None:
            continue
        output = _home_of(model.name, model.pretrain.model_dump(mode="json"), folder)
        if not _is_whole(output):
            content = model.pretrain.recipe | {"name": model.name, "data": [{"files": list(map(str, model.pretrain.texts))}]}
            recipe = recipes.check(content, f"the recipe of {model.name}")
            told = (lambda figures, name=model.name: progress(name, figures)) if progress else None
            pretrain(recipe, output, home, progress=told)
        made.append(output)
    return made


def base(spec: Spec, name: str, folder: Path, home: Path) -> Base:
    """The base model of that name.

    Raises:
        ModelError: it is not on this machine.
    """
    from pipeline import models

    model = spec.model(name)
    if model.pretrain is None:
        return models.resolve(str(model.ref), home)
    return models.resolve(str(_home_of(name, model.pretrain.model_dump(mode="json"), folder)), home)


def finished(spec: Spec, folder: Path, home: Path) -> dict[Point, Cell]:
    """The cells that are done.

    Raises:
        IntegrityError: one of them was changed after it was written.
    """
    from pipeline.study import cell

    data = digest_file(cell.source(spec))
    bases = {model.name: base(spec, model.name, folder, home) for model in spec.models}
    found = {point: cell.stored(folder, cell.inputs(spec, point, bases[point.model], data)) for point in spec.points()}
    return {point: done for point, done in found.items() if done is not None}


def work(spec: Spec, point: Point, folder: Path, home: Path) -> None:
    """Do one cell in a process of its own.

    Raises:
        BudgetExhausted: the lifetime budget does not hold it.
        HushtuneError: it failed; the sentence is the cell's own.
    """
    command = [sys.executable, "-m", "pipeline.study", str(folder), str(home), point.model_dump_json()]
    environment = os.environ | {"OMP_NUM_THREADS": str(spec.threads)}
    done = subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode == 0:
        return
    lines = [line for line in done.stderr.splitlines() if line.startswith("hushtune: ")]
    said = lines[-1].removeprefix("hushtune: ") if lines else f"its process ended with code {done.returncode}."
    kind: Any = {BudgetExhausted.exit_code: BudgetExhausted}.get(done.returncode, StageError)
    raise kind(f"The cell {point.name} failed: {said}")


def ending(failed: list[HushtuneError]) -> HushtuneError | None:
    """One error for those of the cells that failed, the first of them in its own words."""
    if not failed:
        return None
    more = f" {len(failed) - 1} more cells failed." if len(failed) > 1 else ""
    kind = BudgetExhausted if any(isinstance(error, BudgetExhausted) for error in failed) else StageError
    return kind(f"{failed[0]}{more} The finished cells stay: the same command does the others.")


def _home_of(name: str, made_by: dict[str, Any], folder: Path) -> Path:
    return folder / "models" / f"{name}-{digest(made_by)[:8]}"


def _is_whole(model: Path) -> bool:
    return (model / "pretraining.json").is_file() and not (model / ".pretrain").exists()
