"""Stage folders: whole or absent, done once for their inputs, private."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import folders


class Count(folders.Value):
    """A stage value for the tests."""

    folder: Path
    count: int


def test_a_stage_is_done_once_for_its_inputs(tmp_path: Path) -> None:
    calls = []

    def work(partial: Path) -> Count:
        calls.append(partial)
        (partial / "out.txt").write_text("x")
        return Count(folder=tmp_path / "s", count=len(calls))

    first = folders.stage(tmp_path / "s", Count, {"a": 1}, work)
    assert folders.stage(tmp_path / "s", Count, {"a": 1}, work) == first
    assert folders.stage(tmp_path / "s", Count, {"a": 2}, work).count == 2
    assert len(calls) == 2
    assert (tmp_path / "s" / "out.txt").exists()
    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o700


def test_a_stage_that_fails_leaves_no_stage_and_its_parts_serve_the_next_try(tmp_path: Path) -> None:
    def broken(partial: Path) -> Count:
        (partial / "shard-0").write_text("done")
        raise RuntimeError

    def work(partial: Path) -> Count:
        return Count(folder=tmp_path / "s", count=len(list(partial.glob("shard-*"))))

    with pytest.raises(RuntimeError):
        folders.stage(tmp_path / "s", Count, {"a": 1}, broken)
    assert not (tmp_path / "s").exists()
    assert folders.stage(tmp_path / "s", Count, {"a": 1}, work).count == 1


def test_parts_of_other_inputs_are_not_mixed_in(tmp_path: Path) -> None:
    def broken(partial: Path) -> Count:
        (partial / "shard-0").write_text("done")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        folders.stage(tmp_path / "s", Count, {"a": 1}, broken)
    found = folders.stage(tmp_path / "s", Count, {"a": 2}, lambda p: Count(folder=p, count=len(list(p.glob("shard-*")))))
    assert found.count == 0


def test_files_are_private_and_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    folders.write_json(path, {"b": 1, "a": "é"})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(ValueError, match="JSON compliant"):
        folders.write_json(path, {"a": float("nan")})
    assert '"a": "é"' in path.read_text()
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


@given(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5) | st.none(), max_size=6))
def test_a_digest_does_not_depend_on_the_order_of_keys(content: dict[str, object]) -> None:
    assert folders.digest(content) == folders.digest(dict(reversed(content.items())))


def test_a_folders_digest_sees_names_and_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    first = folders.digest_folder(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    second = folders.digest_folder(tmp_path)
    (tmp_path / "b").write_text("2")
    assert len({first, second, folders.digest_folder(tmp_path)}) == 3


@pytest.mark.parametrize("point", ["before the rename", "after the old one is gone", "after the rename"])
def test_a_stage_that_was_killed_after_its_last_word_is_not_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    folder, calls = tmp_path / "s", []

    def work(partial: Path) -> Count:
        calls.append(partial)
        return Count(folder=folder, count=len(calls))

    folders.stage(folder, Count, {"a": 1}, work)
    replace, rmtree = folders.os.replace, folders.shutil.rmtree

    def killed(source: Path, target: Path) -> None:
        if Path(target) == folder and point == "after the rename":
            replace(source, target)
        if Path(target) == folder and point != "after the old one is gone":
            raise KeyboardInterrupt
        replace(source, target)

    def gone(path: Path) -> None:
        rmtree(path)
        if point == "after the old one is gone":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(folders.os, "replace", killed)
        patch.setattr(folders.shutil, "rmtree", gone)
        with pytest.raises(KeyboardInterrupt):
            folders.stage(folder, Count, {"a": 2}, work)
    assert folders.stage(folder, Count, {"a": 2}, work).count == 2
    assert len(calls) == 2
    assert not folder.with_name("s.partial").exists()
