"""One cell in a process of its own: `python -m pipeline.study FOLDER HOME POINT`; its peak memory is then its own.

FOLDER is a study's, with its spec.json; POINT is the JSON of a `Point`. Says nothing but, on stderr, one sentence where it
fails; its exit code is that of the command line.
"""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

from pipeline.cli import complain
from pipeline.errors import HushtuneError
from pipeline.folders import write_text


def main(arguments: list[str]) -> int:
    """Do the cell."""
    from pipeline.commands.common import quiet

    folder, home = Path(arguments[0]), Path(arguments[1])
    try:
        quiet()
        from pipeline.study import cell, grid
        from pipeline.study.spec import Point

        spec = grid.resumed(folder)
        point = Point.model_validate_json(arguments[2])
        cell.run(spec, point, grid.base(spec, point.model, folder, home), folder, home)
    except HushtuneError as error:
        return complain(str(error), error.exit_code)
    except Exception as error:
        write_text(folder / "traceback.txt", "".join(traceback.format_exception(error)))
        return complain(f"The cell stopped on a {type(error).__name__}: traceback.txt in {folder} says where.", 1)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
