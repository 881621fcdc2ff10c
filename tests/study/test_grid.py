"""Models that a study makes: once, and again where their recipe has changed."""

from __future__ import annotations

from pipeline.study import grid, spec
from tests import tiny
from tests.study.conftest import make

RECIPE = {"held_out": 0.5, "tokenizer": {"size": 300}, "schedule": {"tokens": 256, "batch": 2}}


def test_a_model_is_made_once_and_again_for_another_recipe(tmp_path):
    for number in range(4):
        text = "\n".join(tiny.sentence(40 * number + row, 12) for row in range(40))
        (tmp_path / f"{number}.txt").write_text(text)
    home = tmp_path / "home"

    def made(width: int):
        texts = [f"{number}.txt" for number in range(4)]
        recipe = RECIPE | {"architecture": {"layers": 1, "heads": 2, "width": width, "context": 16}}
        asked = spec.load(make(tmp_path, models=[{"name": "own", "pretrain": {"texts": texts, "recipe": recipe}}]))
        folder = grid.start(asked, home)
        (model,) = grid.make_models(asked, folder, home)
        return model, (model / "model.safetensors").stat().st_mtime_ns, grid.base(asked, "own", folder, home)

    first, again, other = made(16), made(16), made(32)
    assert first == again  # the same file: nothing was trained twice
    assert other[0] != first[0]
    assert other[2].parameters > first[2].parameters
    assert first[2].folder == first[0]
