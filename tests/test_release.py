from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import sqlite3
import stat
import threading
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from pipeline import _chain, _shelf, approval, cli, revocation, signing
from pipeline import ledger as ledgers
from pipeline import policy as policies
from pipeline._manifest import Manifest
from pipeline.approval import approve, hold
from pipeline.errors import IntegrityError, StageError, UsageError
from pipeline.folders import digest, digest_file, digest_folder, write_json
from pipeline.gates import GateResult, Verdict
from pipeline.ledger import Ledger
from pipeline.release import attestation, publish, releases, revoke, verify

SIGNATURES = ["attestation.json", "model.sig"]
AUDITED = [
    "README.md",
    "adapter_config.json",
    "adapter_model.safetensors",
    "manifest.json",
    "policy.json",
    "report.html",
    "report.json",
]
FILES = sorted([*AUDITED, *SIGNATURES])
DEFAULT = policies.load("default")
STRICT = policies.load("strict")
CARD = "# A model card\n"


# What an attestation takes from a report, in the report's own shape.
REPORT = {
    "schema": "hushtune-report/1",
    "run": {"policy": "default"},
    "promise": {"epsilon": 7.9, "delta": 1e-5, "unit": "record", "adjacency": "add_or_remove_one"},
    "training": {
        "mechanism": "DP-SGD",
        "noise_multiplier": 0.8,
        "sampling_rate": 0.01,
        "clipping_norm": 1.0,
        "steps": 20,
        "units": 5000,
        "base": {"name": "nano", "digest": "b" * 64, "parameters": 1},
    },
    "budget": {"name": "records", "epsilon_spent": 7.9, "epsilon_cap": 32.0, "delta": 1e-5, "runs": 1},
    "data": {"fingerprint": "d" * 64},
    "verdict": {
        "status": "released",
        "waivers": [],
        "gates": [
            {
                "name": "g",
                "figure": "x.y",
                "passed": True,
                "value": 1.0,
                "judge": "value",
                "bound": 1.0,
                "rule": "at_most",
                "limit": 2.0,
                "owner": "an owner",
                "title": "G",
            }
        ],
    },
}


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
    write_json(folder / "report" / "report.json", REPORT | {"of": run})
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


KEYS = {}


@pytest.fixture(scope="session", autouse=True)
def _one_key(tmp_path_factory):
    """An organisation's key, so that not every home makes one of its own."""
    home = tmp_path_factory.mktemp("organisation")
    KEYS["public"] = signing.new_key(home)
    KEYS["private"] = home / "keys" / "release.key"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HUSHTUNE_SIGNING_KEY", str(KEYS["private"]))
        patch.delenv("HUSHTUNE_LEDGER_URL", raising=False)
        yield


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
        if name != "manifest.json" and name not in SIGNATURES
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


def test_a_report_that_was_written_again_makes_no_second_release(tmp_path):
    """A crash after the rename: the line goes on, writes its report anew, with another date, and publishes."""
    arguments = a_run(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Ledger, "note", lambda *_: (_ for _ in ()).throw(StageError("killed before the ledger noted it")))
        with pytest.raises(StageError, match="killed"):
            publish(**arguments)
    (seen,) = releases(tmp_path)
    (arguments["report_folder"] / "report.html").write_text("<html>another date</html>")
    assert publish(**arguments) == seen
    assert releases(tmp_path) == [seen]
    assert len(Ledger(tmp_path).notes("release", "run-1")) == 1
    weights = arguments["trained"].adapter / "adapter_model.safetensors"
    weights.write_bytes(b"other")
    other = Trained(arguments["trained"].adapter, digest_folder(arguments["trained"].adapter))
    with pytest.raises(IntegrityError, match="with another adapter or policy"):
        publish(**arguments | {"trained": other})


def test_a_release_that_was_taken_away_is_not_published_anew(tmp_path):
    """Withdrawn and deleted, it would come back under a version that nobody has revoked."""
    arguments = a_run(tmp_path)
    made = publish(**arguments)
    revoke(made.folder, tmp_path, "It remembers a name.")
    shutil.rmtree(made.folder)
    for again in (arguments, arguments | {"name": "other"}):
        with pytest.raises(StageError, match="was released as letters version 1, which is gone"):
            publish(**again)
    assert releases(tmp_path) == []


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
    assert verify(tmp_path / "deployed", keys=[KEYS["public"]]).version == "1"
    with pytest.raises(UsageError, match="no public key"):
        verify(tmp_path / "deployed")


def test_keys_that_lie_beside_a_release_prove_nothing(tmp_path, capsys, monkeypatch):
    """A stranger's whole home: keys, release and signatures agree with each other."""
    mine, strangers = tmp_path / "mine", tmp_path / "stranger"
    publish(**a_run(mine))
    monkeypatch.setenv("HUSHTUNE_SIGNING_KEY", str(signing.new_key(strangers).with_name("release.key")))
    forged = publish(**a_run(strangers, weights=b"evil"))
    for path in (forged.folder, forged.folder.parent / "latest"):
        assert cli.main(["verify", str(path), "--home", str(mine)]) == 2
        assert "proves nothing" in capsys.readouterr().err
    assert cli.main(["verify", str(forged.folder), "--home", str(mine), "--key", str(KEYS["public"])]) == 1
    assert cli.main(["verify", "letters", "--home", str(strangers)]) == 0  # the control: whoever trusts that home says so


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
    kept = {name: (candidate / name).read_bytes() for name in AUDITED if name != "manifest.json"}
    (arguments["report_folder"] / "report.html").write_text("written again later")
    made = approve(arguments["run"], "Ada Lovelace")
    assert {name: (made.folder / name).read_bytes() for name in kept} == kept
    manifest = json.loads((made.folder / "manifest.json").read_text())
    assert manifest["approval"]["by"] == "Ada Lovelace"
    assert manifest["approval"]["at"].startswith("20")
    assert manifest["adapter"] == arguments["trained"].adapter_digest
    assert verify(made.folder) == made
    assert approve(arguments["run"], "Grace Hopper") == made  # already published
    assert approval.approver(made) == "Ada Lovelace"
    assert len(releases(tmp_path)) == 1


def test_the_ledger_names_who_approved_and_not_who_asked_after_a_crash(tmp_path, monkeypatch):
    arguments = a_run(tmp_path, "awaiting_approval")
    held(arguments)
    with monkeypatch.context() as patch:
        patch.setattr(_shelf, "note_release", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            approve(arguments["run"], "Ada Lovelace")
    assert Ledger(tmp_path).notes("release") == []
    approve(arguments["run"], approval.submitter())  # nothing is left to approve, so four eyes are not asked for
    (noted,) = Ledger(tmp_path).notes("release")
    assert noted.detail["approved_by"] == "Ada Lovelace"


def test_a_release_that_two_approve_at_once_is_noted_once(tmp_path, monkeypatch):
    arguments = a_run(tmp_path, "awaiting_approval")
    held(arguments)
    real, ready = Ledger.note, threading.Event()

    def slow(ledger, run, what, content):
        if what == "release":
            ready.set()
            time.sleep(0.5)  # in which the other could find nothing noted yet
        real(ledger, run, what, content)

    monkeypatch.setattr(Ledger, "note", slow)
    first = threading.Thread(target=approve, args=(arguments["run"], "Ada"))
    first.start()
    assert ready.wait(30)
    approve(arguments["run"], "Grace")
    first.join()
    assert [entry.detail["approved_by"] for entry in Ledger(tmp_path).notes("release")] == ["Ada"]


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


@pytest.mark.parametrize("name", AUDITED)
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


def test_an_approval_comes_in_time_and_from_somebody_else(tmp_path, monkeypatch):
    monkeypatch.setenv("HUSHTUNE_USER", "Grace Hopper")
    arguments = a_run(tmp_path, "awaiting_approval")
    manifest = json.loads((held(arguments) / "manifest.json").read_text())
    assert manifest["submitter"] == "Grace Hopper"
    with pytest.raises(UsageError, match="another pair of eyes"):
        approve(arguments["run"], " grace  HOPPER ")
    now = datetime.fromisoformat(manifest["expires"])
    assert 13 < (now - datetime.now(UTC)).total_seconds() / 86400 <= 14

    late = clock(now + timedelta(seconds=1))
    with monkeypatch.context() as patch:
        patch.setattr(ledgers, "datetime", late)
        with pytest.raises(StageError, match="could be approved until"):
            approve(arguments["run"], "Ada")
    assert releases(tmp_path) == []
    made = approve(arguments["run"], "Ada")
    with monkeypatch.context() as patch:
        patch.setattr(ledgers, "datetime", late)
        assert approve(arguments["run"], "Ada") == made  # it was in time


def clock(at: datetime) -> type[datetime]:
    """A `datetime` for which it is always `at`."""

    class Stopped(datetime):
        @classmethod
        def now(cls, zone=None):
            return at

    return Stopped


@pytest.mark.parametrize("by", ["ann smith", "ANN  SMITH", "Ann\u00a0Smith", "\uff21nn Smith", "AnnSmith"])
def test_a_submitter_is_known_under_any_spelling(tmp_path, monkeypatch, by):
    monkeypatch.setenv("HUSHTUNE_USER", "  Ann Smith ")
    arguments = a_run(tmp_path, "awaiting_approval")
    held(arguments)
    with pytest.raises(UsageError):
        approve(arguments["run"], by)
    assert approve(arguments["run"], "Ann Smythe").version == "1"  # the control


def test_a_clock_that_was_set_back_does_not_bring_an_approval_back(tmp_path, monkeypatch):
    arguments = a_run(tmp_path, "awaiting_approval")
    expires = datetime.fromisoformat(json.loads((held(arguments) / "manifest.json").read_text())["expires"])

    with monkeypatch.context() as patch:
        patch.setattr(_chain, "datetime", clock(expires + timedelta(days=1)))
        Ledger(tmp_path).note("another-run", "test", {})  # something happened after the approval had expired
    with pytest.raises(StageError, match="could be approved until"):  # and the clock is right again, or was set back
        approve(arguments["run"], "Ada")
    assert releases(tmp_path) == []


def test_two_eyes_are_enough_where_the_policy_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("HUSHTUNE_USER", "Ada")
    alone = STRICT.override(release__four_eyes=False)
    arguments = a_run(tmp_path, "awaiting_approval") | {"policy": alone}
    held(arguments)
    assert approve(arguments["run"], "Ada").version == "1"


def test_dates_and_bytes_that_the_ledger_did_not_note_are_not_approved(tmp_path):
    """The candidate is whole in itself, and its manifest another than the one that was kept."""
    arguments = a_run(tmp_path, "awaiting_approval")
    path = held(arguments) / "manifest.json"
    content = json.loads(path.read_text())
    content["expires"] = content["expires"].replace("20", "21", 1)
    del content["digest"]
    path.chmod(0o644)
    path.write_text(Manifest.model_validate(content).text())
    with pytest.raises(IntegrityError, match="not the one that was kept"):
        approve(arguments["run"], "Ada")


# Signatures.


def test_an_attestation_says_what_was_promised_and_shown(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.note("run-0", "test", {})
    head = ledger.head()
    made = publish(**a_run(tmp_path))
    found = attestation(made.folder)
    assert found["promise"] == {"epsilon": 7.9, "delta": 1e-5, "unit": "record", "adjacency": "add_or_remove_one"}
    assert found["mechanism"]["accountant"].startswith("privacy loss distributions")
    assert found["lifetime"]["epsilon_spent"] == 7.9
    assert found["policy"] == {"name": "default", "digest": DEFAULT.digest}
    assert (found["dataset"]["fingerprint"], found["base_model"]["digest"]) == ("d" * 64, "b" * 64)
    assert [gate["name"] for gate in found["gates"]] == ["g"]
    assert found["ledger"] == head.model_dump()
    ledger.verify(head)
    envelope = json.loads((made.folder / "attestation.json").read_text())
    statement = json.loads(base64.b64decode(envelope["payload"]))
    assert statement["predicateType"].endswith("dp-release/v1")
    assert {one["name"]: one["digest"]["sha256"] for one in statement["subject"]} == {
        name: digest_file(made.folder / name) for name in FILES if name != "attestation.json"
    }
    (note,) = ledger.notes("release", "run-1")
    assert note.detail["manifest"] == made.manifest_digest


def test_model_signing_itself_verifies_a_release(tmp_path):
    """An independent reader of model.sig: the tool that others use."""
    from model_signing import hashing, verifying

    made = publish(**a_run(tmp_path))
    config = verifying.Config().use_elliptic_key_verifier(public_key=KEYS["public"])
    left_out = hashing.Config().set_ignored_paths(paths=["model.sig", "attestation.json"], ignore_git_paths=False)
    config.set_hashing_config(left_out).verify(made.folder, made.folder / "model.sig")


def test_a_key_that_is_not_trusted_convinces_nobody(tmp_path, monkeypatch):
    """Somebody with another key makes a whole release: manifest, signature and attestation all agree."""
    made = publish(**a_run(tmp_path))
    other = signing.new_key(tmp_path / "other")
    monkeypatch.setenv("HUSHTUNE_SIGNING_KEY", str(tmp_path / "other" / "keys" / "release.key"))
    forged = publish(**a_run(tmp_path / "forger", weights=b"evil"))
    verify(forged.folder)
    shutil.rmtree(made.folder)
    shutil.copytree(forged.folder, made.folder)
    with pytest.raises(IntegrityError, match=r"attestation\.json is by none of the 1 keys"):
        verify(made.folder)
    verify(made.folder, keys=[other])  # the control


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "report.json"])
def test_a_file_exchanged_with_its_manifest_is_found_by_the_signature(tmp_path, name):
    made = publish(**a_run(tmp_path))
    for path in (made.folder / name, made.folder / "manifest.json"):
        path.chmod(0o644)
    (made.folder / name).write_bytes(b"{}")
    content = json.loads((made.folder / "manifest.json").read_text())
    del content["digest"]
    content["files"][name] = {"sha256": digest_file(made.folder / name), "size": 2}
    (made.folder / "manifest.json").write_text(Manifest.model_validate(content).text())
    with pytest.raises(IntegrityError, match=name):
        verify(made.folder)


def test_keys(tmp_path):
    public = signing.new_key(tmp_path)
    private = tmp_path / "keys" / "release.key"
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert stat.S_IMODE(private.parent.stat().st_mode) == 0o700
    with pytest.raises(UsageError, match="There is a key"):
        signing.new_key(tmp_path)
    sealed = signing.seal({"a": 1}, "x/y", private)
    signing.new_key(tmp_path, replace=True)
    keys = signing.trusted_keys(tmp_path)
    assert len(keys) == 2
    assert signing.unseal(sealed, "x/y", keys, public) == {"a": 1}
    with pytest.raises(IntegrityError):
        signing.unseal(sealed, "x/z", keys, public)
    private.chmod(0o644)
    with pytest.raises(UsageError, match="chmod 600"):
        signing.seal({}, "x/y", private)
    (tmp_path / "rsa").write_text("no key")
    (tmp_path / "rsa").chmod(0o600)
    with pytest.raises(UsageError, match="no key that can sign"):
        signing.seal({}, "x/y", tmp_path / "rsa")


def test_each_byte_of_an_envelope_counts(tmp_path):
    public = signing.new_key(tmp_path)
    sealed = signing.seal({"epsilon": 3}, "x/y", tmp_path / "keys" / "release.key").encode()
    for place in range(len(sealed)):
        for mask in (0x01, 0x02, 0x20):
            changed = sealed[:place] + bytes([sealed[place] ^ mask]) + sealed[place + 1 :]
            with pytest.raises(IntegrityError):
                signing.unseal(changed.decode(), "x/y", [public], public)


# Revocations.


def test_a_revoked_release_no_longer_verifies(tmp_path):
    one, two = publish(**a_run(tmp_path)), publish(**a_run(tmp_path, run="run-2"))
    revoke(one.folder, tmp_path, "It remembers a name.")
    revoke(one.folder, tmp_path, "Once is enough.")
    with pytest.raises(IntegrityError, match=r"letters 1 was revoked on .*: It remembers a name\. Do not use it"):
        verify(one.folder)
    verify(two.folder)
    listed = tmp_path / "releases" / ".revoked.jsonl"
    assert len(listed.read_text().splitlines()) == 1
    assert [entry.detail["manifest"] for entry in Ledger(tmp_path).notes("revocation")] == [one.manifest_digest]
    shutil.copytree(one.folder, tmp_path / "copy")
    keys = [KEYS["public"]]
    verify(tmp_path / "copy", keys=keys)  # a copy elsewhere knows only what it is told
    with pytest.raises(IntegrityError, match="was revoked"):
        verify(tmp_path / "copy", keys=keys, revoked=listed)
    listed.unlink()
    with pytest.raises(IntegrityError, match="was revoked"):  # the ledger remembers
        verify(one.folder)
    with sqlite3.connect(tmp_path / "ledger.db") as here, sqlite3.connect(tmp_path / "team.db") as there:
        here.backup(there)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HUSHTUNE_LEDGER_URL", f"sqlite:///{tmp_path / 'team.db'}")
        with pytest.raises(IntegrityError, match="was revoked"):  # wherever it is
            verify(one.folder)
    assert [made.version for made in releases(tmp_path)] == ["1", "2"]


def test_the_list_of_revocations_is_whole_or_refused(tmp_path):
    made = [publish(**a_run(tmp_path, run=f"run-{k}", weights=bytes([k]))) for k in range(4)]
    for one in made[:3]:
        revoke(one.folder, tmp_path, "A good reason.")
    listed = tmp_path / "releases" / ".revoked.jsonl"
    sound = listed.read_bytes()
    lines = sound.splitlines(keepends=True)
    wrong = [lines[0] + lines[2], lines[1] + lines[2], sound[:50] + b"X" + sound[51:], sound.replace(b"{", b"{ ", 1)]
    for content in wrong:
        listed.write_bytes(content)
        with pytest.raises(IntegrityError, match=r"revoked\.jsonl"):
            verify(made[3].folder)
    listed.write_bytes(sound + lines[0][:40])  # a crash in the middle of a line: the next revocation cuts it off
    revoke(made[3].folder, tmp_path, "A good reason.")
    assert listed.read_bytes().startswith(sound)
    assert len(revocation.read(listed, [KEYS["public"]])) == 4


def test_a_revocation_that_does_not_fit_on_the_disk_is_not_noted(tmp_path, monkeypatch):
    made = publish(**a_run(tmp_path))
    real = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda descriptor, content: real(descriptor, content[:40]))
        with pytest.raises(StageError, match="make room"):
            revoke(made.folder, tmp_path, "A good reason.")
    assert Ledger(tmp_path).notes("revocation") == []
    revoke(made.folder, tmp_path, "A good reason.")
    with pytest.raises(IntegrityError, match="was revoked"):
        verify(made.folder)


def test_only_a_release_of_this_home_is_revoked(tmp_path):
    made = publish(**a_run(tmp_path))
    shutil.copytree(made.folder, tmp_path / "copy")
    with pytest.raises(UsageError, match="no release of"):
        revoke(tmp_path / "copy", tmp_path, "A good reason.")
    with pytest.raises(UsageError, match="--why"):
        revoke(made.folder, tmp_path, " ")


# Crashes.

OPERATIONS = ["open", "write", "fsync", "close", "mkdir", "chmod", "rename", "replace", "symlink", "unlink", "rmdir"]


def _interrupt(monkeypatch, countdown: int, act) -> list[int]:
    """Call `act` in place of the file operation that comes after `countdown` others, once; what is returned then is [< 0]."""
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
    return left


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
    for countdown in range(0, 1000, 2 + earlier):
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

    for countdown in range(0, 1000, 3):  # the publication itself is the one above
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
            left = _interrupt(patch, countdown, fail)
            told = ""
            try:
                publish(**arguments)
            except StageError as error:
                told = str(error)
        if left[0] >= 0:
            break
        assert "No space left on device" in told or len(_visible(home)) == 1  # or it did not matter
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
    assert len(before) - 1 - before[::-1].index(staging) > max(before.index(staging / name) for name in FILES)
    assert made.folder.parent in after


def test_the_staging_is_beside_the_target(tmp_path, monkeypatch):
    seen = []
    real = os.rename
    monkeypatch.setattr(os, "rename", lambda old, new: (seen.append((Path(old), Path(new))), real(old, new)))
    made = publish(**a_run(tmp_path))
    assert [(old.parent, new) for old, new in seen] == [(made.folder.parent, made.folder)]
    assert not _shelf._VERSION.fullmatch(seen[0][0].name)
