"""The study flow: the cells of a grid, each a task, as many at one time as the task runner has room for.

Prefect's parameters and results are paths, names and numbers of the grid. A finished cell lies in the study's folder and is not
done again; a crash loses only the cells at work.
"""

from pathlib import Path

from prefect import flow, task
from prefect.artifacts import create_table_artifact
from prefect.futures import PrefectFuture, as_completed
from prefect.states import Completed, Failed, State

from flows import console, stages
from pipeline.errors import HushtuneError, StageError
from pipeline.folders import digest_file
from pipeline.study import cell as cells
from pipeline.study import grid, page, results
from pipeline.study.spec import Point


@task(name="prepare", **stages.BARE)
def prepare(folder: Path, home: Path) -> list[Point]:
    """Make the models and read the records that the cells share; returns the cells that are left to do."""

    def work() -> list[Point]:
        spec = grid.resumed(folder)
        with console.line("models") as line:
            made = grid.make_models(spec, folder, home, progress=lambda name, now: line(int(now["tokens"]), int(now["total"])))
            line.say(f"{len(spec.models)} models, {len(made)} of them made here")
        done = grid.finished(spec, folder, home)
        left = [point for point in spec.points() if point not in done]
        with console.line("read") as line:
            if left and spec.data.is_public:
                ready = cells.prepare(spec, spec.rules(left[0]), folder / "data", home, progress=line)
                line.say(f"{ready.corpus.records:,} records, {len(done)} cells done before")
        return left

    return stages.clean("prepare", None, work)


@task(name="cell", task_run_name="{point.name}", **stages.BARE)
def cell(point: Point, folder: Path, home: Path) -> str:
    """Do one cell in a process of its own; returns its name."""

    def work() -> str:
        if console.stopped():
            raise StageError("The study was stopped before this cell.")
        grid.work(grid.resumed(folder), point, folder, home)
        return point.name

    return stages.clean("cell", None, work)


@task(name="draw", **stages.BARE)
def draw(folder: Path, home: Path, output: Path) -> Path:
    """Write the page, its JSON and its table from the cells that are done."""

    def work() -> Path:
        spec = grid.resumed(folder)
        content = results.content(spec, grid.finished(spec, folder, home))
        rows = [{key: group[key] for key in ("model", "label", "spent", "kept", "busy_seconds")} for group in content["groups"]]
        stages.keep(create_table_artifact, key="hushtune-study", table=rows, description=f"Study {spec.name}")
        return page.write(content, output)

    return stages.clean("draw", None, work)


@flow(name="study", retries=0, persist_result=False, log_prints=False)
def study(folder: Path, home: Path, output: Path | None = None) -> State:
    """Do the cells of a study that are left, and draw what all of them say.

    Args:
        folder: of the study (`grid.start`), with its spec.json.
        home: folder of all state.
        output: where the page goes; the study's folder by default.

    Returns:
        Completed with the path of the page, or Failed with an error where a cell failed: the page then shows the others.
    """
    left = prepare(folder, home)
    failed: list[HushtuneError] = []
    with console.line("cells") as line:
        at_work: list[PrefectFuture] = [cell.submit(point, folder, home) for point in left]
        line(0, max(1, len(left)))
        for done, future in enumerate(as_completed(at_work), 1):
            found = future.result(raise_on_failure=False)
            if isinstance(found, BaseException):
                failed.append(found if isinstance(found, HushtuneError) else StageError("A cell ended without a word."))
            line(done, len(left), failed=len(failed))
    with console.line("draw"):
        made = draw(folder, home, output or folder)
    if error := grid.ending(failed):
        return Failed(message=str(error), data=error)
    return Completed(message=f"{made.name}, {digest_file(made)[:12]}", data=made)
