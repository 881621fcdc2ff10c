from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import threading
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from pipeline import policy as policies
from pipeline import release as releasing
from pipeline.errors import IntegrityError, StageError, UsageError
from pipeline.folders import digest, digest_file, digest_folder, write_json
from pipeline.gates import GateResult, Verdict
from pipeline.release import approve, hold, publish, releases, verify

FILES = [
    "README.md",
    "adapter_config.json",
    "adapter_model.safetensors",
    "manifest.json",
    "policy.json",
    "report.html",
    "report.json",
]
DEFAULT = policies.load("default")
STRICT = policies.load("strict")
CARD = "# A model card\n"


class Trained(NamedTuple):
    adapter: Path
    adapter_digest: str


def verdict(status: str) -> dict:
    gate = GateResult(
        name="g", figure="x.y", passed=status != "rejected", value=1.0, bound=1.0, limit=2.0, why="It is.", owner="an owner"
    )
    return Verdict(status=status, gates=(gate,), reasons=("It is.",)).model_dump(mode="json")


def a_run(home: Path, status: str = "released", run: str = "run-1", weights: bytes = b"\x00weights\xff" * 50) -> dict:
    """A finished run, as the arguments of `publish`."""
    folder = home / "runs" / run
    adapter = folder / "trained" / "adapter"
    adapter.mkdir(parents=True)
    (adapter / "adapter_model.safetensors").write_bytes(weights)
    (adapter / "adapter_config.json").write_text('{"r": 8}\n')
    sealed = digest_folder(adapter)
    write_json(folder / "trained" / "stage.json", {"inputs": "0", "value": {"adapter_digest": sealed}})
    (folder / "report").mkdir()
    (folder / "report" / "report.html").write_text(f"<html>{run}</html>\n")
    write_json(folder / "report" / "report.json", {"schema": "hushtune-report/1", "run": run})
    write_json(folder / "verdict.json", verdict(status))
    return {
        "run": folder,
        "name": "letters",
        "trained": Trained(adapter, sealed),
        "report_folder": folder / "report",
        "policy": STRICT if status == "awaiting_approval" else DEFAULT,
        "home": home,
        "card": CARD,
    }


def held(arguments: dict) -> Path:
    return hold(**{key: value for key, value in arguments.items() if key != "home"})


@pytest.fixture(autouse=True)
def _no_waiting_for_disks(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: None)


# Publishing.


def test_a_release_has_exactly_its_files(tmp_path):
    made = publish(**a_run(tmp_path))
    assert (made.name, made.version) == ("letters", "1")
    assert made.folder == tmp_path / "releases" / "letters" / "1"
    assert sorted(os.listdir(made.folder)) == FILES
    assert sorted(os.listdir(made.folder.parent)) == ["1", "latest"]
    manifest = json.loads((made.folder / "manifest.json").read_text())
    assert manifest["schema"] == "hushtune-release/1"
    assert (manifest["name"], manifest["version"], manifest["run"]) == ("letters", "1", "run-1")
    assert manifest["policy"] == DEFAULT.digest
    assert manifest["approval"] is None
    assert manifest["files"] == {
        name: {"sha256": digest_file(made.folder / name), "size": (made.folder / name).stat().st_size}
        for name in FILES
        if name != "manifest.json"
    }
    assert digest(json.loads((made.folder / "policy.json").read_text())) == DEFAULT.digest
    assert policies.load(made.folder / "policy.json") == DEFAULT
    assert (made.folder / "README.md").read_text() == CARD
    assert verify(made.folder) == made
    assert verify(tmp_path / "releases" / "letters" / "latest") == made
    assert made.manifest_digest == digest_file(made.folder / "manifest.json")
    assert {stat.S_IMODE(path.stat().st_mode) & 0o222 for path in made.folder.iterdir()} == {0}


def test_versions_count_up_and_latest_follows(tmp_path):
    made = [publish(**a_run(tmp_path, run=f"run-{k}", weights=bytes([k]))) for k in range(11)]
    assert [one.version for one in made] == [str(k) for k in range(1, 12)]
    assert releases(tmp_path) == made  # 10 comes after 9
    assert os.readlink(tmp_path / "releases" / "letters" / "latest") == "11"
    other = publish(**a_run(tmp_path, run="other") | {"name": "a.lock"})
    assert other.version == "1"
    assert releases(tmp_path) == [other, *made]


def test_a_deleted_version_is_never_used_again(tmp_path):
    publish(**a_run(tmp_path, run="one"))
    second = publish(**a_run(tmp_path, run="two"))
    shutil.rmtree(second.folder)
    assert publish(**a_run(tmp_path, run="three")).version == "3"
    shutil.rmtree(tmp_path / "releases" / "letters")
    assert publish(**a_run(tmp_path, run="four")).version == "4"


def test_a_run_is_published_once(tmp_path):
    arguments = a_run(tmp_path)
    first = publish(**arguments)
    assert publish(**arguments) == first
    publish(**a_run(tmp_path, run="run-2"))
    assert publish(**arguments) == first
    assert len(releases(tmp_path)) == 2
    assert os.readlink(tmp_path / "releases" / "letters" / "latest") == "2"


def test_publishers_of_one_name_take_turns(tmp_path):
    runs = [a_run(tmp_path, run=f"run-{k}") for k in range(6)]
    made = []
    threads = [threading.Thread(target=lambda one=one: made.append(publish(**one))) for one in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(int(one.version) for one in made) == [1, 2, 3, 4, 5, 6]
    for one in made:
        verify(one.folder)


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "../up", "a b", "-x", "x" * 65, "line\n", "ä"])
def test_a_name_that_is_none_is_refused(tmp_path, name):
    with pytest.raises(UsageError, match="cannot name a release"):
        publish(**a_run(tmp_path) | {"name": name})
    assert not (tmp_path / "releases").exists()


@pytest.mark.parametrize(
    ("status", "sentence"), [("rejected", "rejected by its gates"), ("awaiting_approval", "awaits approval")]
)
def test_only_a_released_run_is_published(tmp_path, status, sentence):
    with pytest.raises(StageError, match=sentence):
        publish(**a_run(tmp_path, status))
    assert releases(tmp_path) == []


def test_a_verdict_is_needed_and_must_bear_itself_out(tmp_path):
    arguments = a_run(tmp_path, "rejected")
    path = arguments["run"] / "verdict.json"
    path.write_text(path.read_text().replace('"status": "rejected"', '"status": "released"'))
    with pytest.raises(IntegrityError, match="contradicts its own gates"):
        publish(**arguments)
    path.write_text("{}")
    with pytest.raises(IntegrityError, match="not a verdict"):
        publish(**arguments)
    path.unlink()
    with pytest.raises(StageError, match="no verdict"):
        publish(**arguments)
    with pytest.raises(IntegrityError, match="asks for approval"):
        publish(**a_run(tmp_path, run="run-2") | {"policy": STRICT})
    assert releases(tmp_path) == []


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json"])
def test_an_adapter_that_was_not_audited_is_refused(tmp_path, name):
    arguments = a_run(tmp_path)
    with (arguments["trained"].adapter / name).open("ab") as file:
        file.write(b" ")
    with pytest.raises(IntegrityError, match="not the one that was audited"):
        publish(**arguments)
    assert releases(tmp_path) == []
    assert os.listdir(tmp_path / "releases" / "letters") == []


@pytest.mark.parametrize("name", ["trained/adapter/adapter_config.json", "report/report.html", "report/report.json"])
def test_a_missing_file_is_named(tmp_path, name):
    arguments = a_run(tmp_path)
    (arguments["run"] / name).unlink()
    with pytest.raises(StageError, match=Path(name).name):
        publish(**arguments)
    assert os.listdir(tmp_path / "releases" / "letters") == []


# Verifying.


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_byte_is_found_and_its_file_named(tmp_path, name):
    made = publish(**a_run(tmp_path))
    path = made.folder / name
    sound = path.read_bytes()
    path.chmod(0o644)
    for place in {0, 1, len(sound) // 3, len(sound) // 2, len(sound) - 2, len(sound) - 1}:
        for mask in (0x01, 0x20, 0x80):
            path.write_bytes(sound[:place] + bytes([sound[place] ^ mask]) + sound[place + 1 :])
            with pytest.raises(IntegrityError, match=name):
                verify(made.folder)
    path.write_bytes(sound)
    verify(made.folder)


def test_every_part_of_the_manifest_counts(tmp_path):
    made = publish(**a_run(tmp_path))
    path = made.folder / "manifest.json"
    sound = path.read_bytes()
    path.chmod(0o644)
    for place in range(0, len(sound), 5):
        path.write_bytes(sound[:place] + bytes([sound[place] ^ 1]) + sound[place + 1 :])
        with pytest.raises(IntegrityError, match=r"manifest\.json was changed"):
            verify(made.folder)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_cut_or_linked_file_is_named(tmp_path, name):
    made = publish(**a_run(tmp_path))
    path = made.folder / name
    sound = path.read_bytes()
    path.unlink()
    with pytest.raises(IntegrityError, match=f"{name} is missing"):
        verify(made.folder)
    path.write_bytes(sound[:-1])
    with pytest.raises(IntegrityError, match=name):
        verify(made.folder)
    path.unlink()
    (tmp_path / "elsewhere").write_bytes(sound)
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(IntegrityError, match=name):
        verify(made.folder)


def test_anything_extra_is_named(tmp_path):
    made = publish(**a_run(tmp_path))
    (made.folder / "extra.txt").write_text("hello")
    with pytest.raises(IntegrityError, match=r"extra\.txt does not belong"):
        verify(made.folder)
    (made.folder / "extra.txt").unlink()
    (made.folder / "folder").mkdir()
    with pytest.raises(IntegrityError, match="folder does not belong"):
        verify(made.folder)


def test_files_of_another_version_do_not_pass(tmp_path):
    old, new = publish(**a_run(tmp_path)), publish(**a_run(tmp_path, run="run-2", weights=b"other"))
    for name, wrong in [
        ("adapter_model.safetensors",) * 2,
        ("report.html",) * 2,
        ("manifest.json", "adapter_model.safetensors"),
    ]:
        sound = (new.folder / name).read_bytes()
        (new.folder / name).unlink()
        shutil.copy(old.folder / name, new.folder / name)
        with pytest.raises(IntegrityError, match=wrong):
            verify(new.folder)
        (new.folder / name).unlink()
        (new.folder / name).write_bytes(sound)
    verify(new.folder)
    shutil.rmtree(new.folder)
    shutil.copytree(old.folder, new.folder)  # a whole old release in the new one's place
    with pytest.raises(IntegrityError, match=r"manifest\.json is that of letters version 1"):
        verify(new.folder)


def test_a_release_verifies_where_it_is_deployed(tmp_path):
    made = publish(**a_run(tmp_path))
    shutil.copytree(made.folder, tmp_path / "deployed")
    assert verify(tmp_path / "deployed").version == "1"


def test_no_release_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="no release"):
        verify(tmp_path / "nothing")
    assert releases(tmp_path) == []


def test_a_damaged_release_is_listed_and_does_not_stop_the_next(tmp_path):
    made = publish(**a_run(tmp_path))
    (made.folder / "manifest.json").unlink()
    assert releases(tmp_path)[0].manifest_digest == ""
    assert publish(**a_run(tmp_path, run="run-2")).version == "2"


# Approval.


def test_an_approved_run_publishes_exactly_what_was_audited(tmp_path):
    arguments = a_run(tmp_path, "awaiting_approval")
    candidate = held(arguments)
    assert releases(tmp_path) == []
    kept = {name: (candidate / name).read_bytes() for name in FILES if name != "manifest.json"}
    (arguments["report_folder"] / "report.html").write_text("written again later")
    made = approve(arguments["run"], "Ada Lovelace")
    assert {name: (made.folder / name).read_bytes() for name in kept} == kept
    manifest = json.loads((made.folder / "manifest.json").read_text())
    assert manifest["approval"]["by"] == "Ada Lovelace"
    assert manifest["approval"]["at"].startswith("20")
    assert manifest["adapter"] == arguments["trained"].adapter_digest
    assert verify(made.folder) == made
    assert approve(arguments["run"], "Grace Hopper") == made  # already published
    assert len(releases(tmp_path)) == 1


def test_holding_again_replaces_the_candidate(tmp_path):
    arguments = a_run(tmp_path, "awaiting_approval")
    held(arguments)
    candidate = held(arguments | {"card": "another card"})
    assert (candidate / "README.md").read_text() == "another card"
    assert stat.S_IMODE(candidate.stat().st_mode) == 0o700
    approve(arguments["run"], "Ada", tmp_path)
    assert (tmp_path / "releases" / "letters" / "1" / "README.md").read_text() == "another card"


@pytest.mark.parametrize("status", ["released", "rejected"])
def test_only_a_run_that_awaits_approval_is_approved(tmp_path, status):
    arguments = a_run(tmp_path, status)
    with pytest.raises(StageError):
        held(arguments)
    with pytest.raises(StageError):
        approve(arguments["run"], "Ada")
    assert releases(tmp_path) == []


def test_a_run_without_a_candidate_is_not_approved(tmp_path):
    with pytest.raises(StageError, match="no candidate"):
        approve(a_run(tmp_path, "awaiting_approval")["run"], "Ada")


@pytest.mark.parametrize("name", FILES)
def test_a_candidate_that_was_changed_is_not_approved(tmp_path, name):
    arguments = a_run(tmp_path, "awaiting_approval")
    path = held(arguments) / name
    sound = path.read_bytes()
    path.unlink()
    path.write_bytes(sound[:-3] + b"?" + sound[-2:])
    with pytest.raises(IntegrityError, match=name):
        approve(arguments["run"], "Ada")
    assert releases(tmp_path) == []


def test_an_adapter_exchanged_with_its_manifest_is_not_approved(tmp_path):
    """The candidate is whole in itself, and still not what was audited."""
    arguments, other = a_run(tmp_path, "awaiting_approval"), a_run(tmp_path, "awaiting_approval", "run-2", b"other weights")
    held(arguments)
    shutil.rmtree(arguments["run"] / "candidate")
    shutil.copytree(held(other), arguments["run"] / "candidate")
    with pytest.raises(IntegrityError, match="not the adapter that was audited"):
        approve(arguments["run"], "Ada")
    assert releases(tmp_path) == []


@pytest.mark.parametrize("by", ["", "  ", "a\nb", "x" * 201])
def test_an_approval_has_a_name(tmp_path, by):
    arguments = a_run(tmp_path, "awaiting_approval")
    held(arguments)
    with pytest.raises(UsageError, match="approver's name"):
        approve(arguments["run"], by)


# Crashes.

OPERATIONS = ["open", "write", "fsync", "close", "mkdir", "chmod", "rename", "replace", "symlink", "unlink", "rmdir"]


def _interrupt(monkeypatch, countdown: int, act) -> None:
    """Call `act` in place of the file operation that comes after `countdown` others, once."""
    left = [countdown]

    def wrap(real):
        def operation(*arguments, **more):
            left[0] -= 1
            if left[0] == -1:
                if real.__name__ == "close":  # a close that fails has closed all the same
                    real(*arguments)
                act()
            return real(*arguments, **more)

        return operation

    for name in OPERATIONS:
        monkeypatch.setattr(os, name, wrap(getattr(os, name)))


def _killed(work, countdown: int) -> bool:
    """Do `work` in a child process that is killed before one of its file operations; False when it finished before."""
    child = os.fork()
    if child == 0:
        patch = pytest.MonkeyPatch()
        _interrupt(patch, countdown, lambda: os.kill(os.getpid(), signal.SIGKILL))
        try:
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def _visible(home: Path) -> list[str]:
    """Versions that a reader can see, each of which must be whole; `latest`, if there, leads to one of them."""
    found = releases(home)
    for one in found:
        verify(one.folder)
    link = home / "releases" / "letters" / "latest"
    if os.path.lexists(link):
        assert os.readlink(link) in [one.version for one in found]
        verify(link)
    return [one.version for one in found]


def _after(home: Path, again, before: int) -> None:
    """After a crash: no half release, and the same call finishes the work and leaves nothing behind."""
    seen = _visible(home)
    assert len(seen) in (before, before + 1)
    made = again()
    assert len(seen) == before or made.version == seen[-1]
    assert len(_visible(home)) == before + 1
    shelf = home / "releases" / "letters"
    assert sorted(path.name for path in shelf.iterdir() if path.name.startswith(".")) == []
    assert os.readlink(shelf / "latest") == made.version == verify(shelf / "latest").version


@pytest.mark.parametrize("earlier", [False, True])
def test_killed_at_each_file_operation_of_a_publication(tmp_path, earlier):
    for countdown in range(0, 1000, 1 + earlier):
        home = tmp_path / str(countdown)
        if earlier:
            publish(**a_run(home, run="run-0"))
        arguments = a_run(home)
        killed = _killed(partial(publish, **arguments), countdown)
        _after(home, partial(publish, **arguments), int(earlier))
        shutil.rmtree(home)
        if not killed:
            break
    assert countdown > 30


def test_killed_at_each_file_operation_of_an_approval(tmp_path):
    def whole(arguments):
        if not (arguments["run"] / "candidate").exists():
            held(arguments)
        return approve(arguments["run"], "Ada")

    def afresh(arguments):
        held(arguments)
        return approve(arguments["run"], "Ada")

    for countdown in range(0, 1000, 2):  # the publication itself is the one above
        home = tmp_path / str(countdown)
        arguments = a_run(home, "awaiting_approval")
        killed = _killed(partial(afresh, arguments), countdown)
        _after(home, partial(whole, arguments), 0)
        shutil.rmtree(home)
        if not killed:
            break
    assert countdown > 60


def test_an_error_at_each_file_operation_is_a_sentence_and_leaves_nothing(tmp_path):
    def fail():
        raise OSError(28, "No space left on device")

    for countdown in range(1000):
        home = tmp_path / str(countdown)
        arguments = a_run(home)
        with pytest.MonkeyPatch.context() as patch:
            _interrupt(patch, countdown, fail)
            told = ""
            try:
                publish(**arguments)
            except StageError as error:
                told = str(error)
        if not told:
            break
        assert "No space left on device" in told
        _after(home, partial(publish, **arguments), 0)
        shutil.rmtree(home)
    assert countdown > 30


def test_everything_is_synced_before_the_rename_and_the_rename_after(tmp_path, monkeypatch):
    events, opened = [], {}

    def watch(name, real):
        def operation(*arguments, **more):
            result = real(*arguments, **more)
            if name == "open":
                opened[result] = Path(arguments[0])
            events.append((name, opened.get(arguments[0]) if name == "fsync" else Path(os.fsdecode(arguments[0]))))
            return result

        return operation

    for name in ("open", "fsync", "rename"):
        monkeypatch.setattr(os, name, watch(name, getattr(os, name)))
    made = publish(**a_run(tmp_path))
    moved = next(place for place, (name, path) in enumerate(events) if name == "rename" and path.parent == made.folder.parent)
    staging = events[moved][1]
    before = [path for name, path in events[:moved] if name == "fsync"]
    after = [path for name, path in events[moved:] if name == "fsync"]
    assert {staging / name for name in FILES} <= set(before)
    assert before.index(staging) > max(before.index(staging / name) for name in FILES)
    assert made.folder.parent in after


def test_the_staging_is_beside_the_target(tmp_path, monkeypatch):
    seen = []
    real = os.rename
    monkeypatch.setattr(os, "rename", lambda old, new: (seen.append((Path(old), Path(new))), real(old, new)))
    made = publish(**a_run(tmp_path))
    assert [(old.parent, new) for old, new in seen] == [(made.folder.parent, made.folder)]
    assert not releasing._VERSION.fullmatch(seen[0][0].name)
