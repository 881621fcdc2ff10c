"""Stores named by URL, against an S3 server here: content decides, a half release is never met, no secret is told."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
import traceback
from pathlib import Path

import pytest

from pipeline import cli, resume, runs, signing, storage
from pipeline import policy as policies
from pipeline.errors import InputError, IntegrityError, StageError, UsageError
from pipeline.release import publish, revoke
from tests.test_release import FILES, a_run

fsspec = pytest.importorskip("fsspec", reason="the extra storage is not installed")
pytest.importorskip("s3fs", reason="the extra storage is not installed")

SECRET = "zqsecretkey77"
ROWS = "".join(json.dumps({"text": f"Order {n} came late."}) + "\n" for n in range(300))


@pytest.fixture(scope="module")
def server():
    moto = pytest.importorskip("moto.server", reason="moto is not installed")
    running = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def s3(server, monkeypatch):
    """A fresh bucket, as its client sees it."""
    for name, value in {
        "AWS_ENDPOINT_URL": server,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }.items():
        monkeypatch.setenv(name, value)
    bucket = f"b{os.urandom(6).hex()}"
    store = fsspec.filesystem("s3", skip_instance_cache=True, use_listings_cache=False)
    store.mkdir(bucket)
    return store, bucket


@pytest.fixture
def release(tmp_path, monkeypatch):
    """A home and the arguments that publish its first release."""
    monkeypatch.delenv("HUSHTUNE_LEDGER_URL", raising=False)
    return tmp_path, a_run(tmp_path)


def everything(error: BaseException) -> str:
    return f"{''.join(traceback.format_exception(error))} {error!r} {error.__cause__!r} {error.__context__!r}"


def test_the_data_of_a_url_is_known_by_its_content_and_its_copy_is_private(s3, tmp_path):
    store, bucket = s3
    store.pipe_file(f"{bucket}/in/letters.jsonl", ROWS.encode())
    plain, told = tmp_path / "letters.jsonl", []
    plain.write_text(ROWS)
    copies = [
        storage.local(f"s3://{bucket}/in/letters.jsonl", tmp_path / "home", progress=lambda *n, **_: told.append(n))
        for _ in range(2)
    ]
    assert told[-1] == (len(ROWS), len(ROWS))
    rules = policies.load("default")
    identities = {resume.identity(runs.name_for(path), rules, path) for path in (plain, *copies)}
    assert len({identity.data for identity in identities}) == len(identities) == 1
    for path in copies:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == stat.S_IMODE(path.parents[1].stat().st_mode) == 0o700
        storage._drop(path.parent)
    store.pipe_file(f"{bucket}/in/letters.jsonl", ROWS.replace("late", "soon").encode())  # the control
    other = storage.local(f"s3://{bucket}/in/letters.jsonl", tmp_path / "home")
    assert resume.identity(runs.name_for(other), rules, other) not in identities
    storage._drop(other.parent)
    assert storage.local(f"file://{plain}", tmp_path / "home") == plain  # no copy of what is here already
    assert storage.local(plain, tmp_path / "home") == plain


def test_a_copy_goes_with_its_process_however_that_ends(s3, tmp_path):
    store, bucket = s3
    store.pipe_file(f"{bucket}/a.jsonl", ROWS.encode())
    code = (
        "import os, sys; from pathlib import Path; from pipeline import storage;"
        f"print(storage.local('s3://{bucket}/a.jsonl', Path(sys.argv[1])), flush=True);"
        "os.kill(os.getpid(), 9) if sys.argv[2] == 'killed' else None"
    )
    for how, left in (("ended", False), ("killed", True)):
        done = subprocess.run([sys.executable, "-c", code, str(tmp_path), how], capture_output=True, text=True)
        assert Path(done.stdout.strip()).exists() == left
    mine = storage.local(f"s3://{bucket}/a.jsonl", tmp_path)
    assert list((tmp_path / "fetched").glob("*/*.jsonl")) == [mine]  # what the killed one left is gone
    storage._drop(mine.parent)


def test_memory_is_bounded_and_every_byte_arrives(s3, tmp_path, monkeypatch):
    store, bucket = s3
    content = os.urandom(1 << 16) * 400  # 26 MB
    store.pipe_file(f"{bucket}/large.jsonl", content)
    monkeypatch.setattr(storage, "_BLOCK", 1 << 17)
    seen = []
    read = fsspec.spec.AbstractBufferedFile.read
    monkeypatch.setattr(fsspec.spec.AbstractBufferedFile, "read", lambda self, n=-1: (seen.append(n), read(self, n))[1])
    path = storage.local(f"s3://{bucket}/large.jsonl", tmp_path)
    assert hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(content).digest()
    assert set(seen) == {1 << 17}  # never the whole file at once
    storage._drop(path.parent)


@pytest.mark.parametrize(
    "url",
    [
        f"s3://ann:{SECRET}@bucket/a.jsonl",
        f"https://ann:{SECRET}@host.example/a.jsonl",
        f"https://host.example/a.jsonl?X-Amz-Signature={SECRET}",
        f"simplecache::s3://bucket/{SECRET}",
        f"s3://bucket/a.jsonl#{SECRET}",
        "s3://",
    ],
)
def test_a_url_that_holds_a_secret_is_refused_and_not_repeated(url, tmp_path, monkeypatch):
    with pytest.raises(UsageError, match=r"credentials where|is not understood") as caught:
        storage.local(url, tmp_path)
    assert SECRET not in everything(caught.value)
    monkeypatch.setenv(storage.STORE, url)
    with pytest.raises(UsageError) as caught:
        storage.store()
    assert SECRET not in everything(caught.value)
    assert storage.check("s3://bucket/a.jsonl") == "s3://bucket/a.jsonl"  # the control


def test_what_is_missing_is_told_in_a_sentence_without_the_clients_own(s3, tmp_path, monkeypatch):
    _, bucket = s3
    for url, kind, what in (
        (f"s3://{bucket}/none.jsonl", InputError, "could not be read"),
        ("s3://no-such-bucket-here/none.jsonl", InputError, "could not be read"),
        ("nosuch://bucket/a.jsonl", UsageError, r"pip install 'hushtune\[storage\]'"),
    ):
        with pytest.raises(kind, match=what) as caught:
            storage.local(url, tmp_path)
        assert SECRET not in everything(caught.value)
        assert caught.value.__context__ is None
    assert list((tmp_path / "fetched").iterdir()) == []
    with pytest.raises(UsageError, match="cannot be a URL"):
        runs.open_home(Path(f"s3://{bucket}/home"))
    monkeypatch.setenv(storage.STORE, "/srv/releases")
    with pytest.raises(UsageError, match="is not a URL"):
        storage.store()


def test_a_file_that_breaks_off_leaves_no_copy(s3, tmp_path, monkeypatch):
    store, bucket = s3
    store.pipe_file(f"{bucket}/a.jsonl", ROWS.encode())
    opened = storage._open

    def shorter(url: str):
        there, place = opened(url)
        monkeypatch.setattr(there, "info", lambda _: {"size": len(ROWS) + 1})
        return there, place

    monkeypatch.setattr(storage, "_open", shorter)
    with pytest.raises(InputError, match="could not be read"):
        storage.local(f"s3://{bucket}/a.jsonl", tmp_path)
    assert list((tmp_path / "fetched").iterdir()) == []


def test_a_release_is_copied_whole_and_verifies_from_its_url(s3, release, monkeypatch, capsys):
    store, bucket = s3
    home, arguments = release
    monkeypatch.setenv(storage.STORE, f"s3://{bucket}/models")
    made = publish(**arguments)
    there = f"{bucket}/models/letters"
    assert sorted(path.rsplit("/", 1)[-1] for path in store.ls(f"{there}/1", detail=False)) == FILES
    assert store.cat_file(f"{there}/latest") == b"1\n"
    assert all(store.cat_file(f"{there}/1/{name}") == (made.folder / name).read_bytes() for name in FILES)
    assert publish(**arguments) == made  # again: nothing changes
    for url in (f"s3://{there}", f"s3://{there}/1"):
        assert cli.main(["verify", url, "--home", str(home), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["version"] == "1"
    stranger = home / "elsewhere"
    assert cli.main(["verify", f"s3://{there}", "--home", str(stranger)]) == 2  # whom should it trust?
    key = next((home / "keys").glob("*.pub"))
    assert cli.main(["verify", f"s3://{there}", "--home", str(stranger), "--key", str(key)]) == 0
    other = signing.new_key(stranger)
    assert cli.main(["verify", f"s3://{there}", "--home", str(stranger), "--key", str(other)]) == 1
    assert cli.main(["verify", f"s3://{bucket}/models/nothing", "--home", str(home)]) == 2
    revoke(made.folder, home, "It was withdrawn for a test.")
    capsys.readouterr()
    assert cli.main(["verify", f"s3://{there}/1", "--home", str(stranger), "--key", str(key)]) == 1
    assert "was revoked" in capsys.readouterr().err
    store.rm_file(f"{bucket}/models/.revoked.jsonl")  # a store that hides it: the home still knows
    assert cli.main(["verify", f"s3://{there}/1", "--home", str(home)]) == 1


def test_a_store_that_changes_a_release_is_found_out(s3, release, monkeypatch):
    store, bucket = s3
    home, arguments = release
    monkeypatch.setenv(storage.STORE, f"s3://{bucket}")
    folder = publish(**arguments).folder
    place = f"{bucket}/letters/1"

    def verified(version: int = 1) -> int:
        return cli.main(["verify", f"s3://{bucket}/letters/{version}", "--home", str(home)])

    def restore(name: str) -> None:
        store.put_file(str(folder / name), f"{place}/{name}")

    assert verified() == 0  # the control
    store.pipe_file(f"{place}/README.md", store.cat_file(f"{place}/README.md")[:-2] + b"!\n")
    assert verified() == 1
    restore("README.md")
    store.rm_file(f"{place}/policy.json")
    assert verified() == 1
    restore("policy.json")
    store.pipe_file(f"{place}/more.bin", b"more")
    assert verified() == 1
    store.rm_file(f"{place}/more.bin")
    assert verified() == 0
    for name in FILES:  # an old release under a new version
        store.copy(f"{place}/{name}", f"{bucket}/letters/2/{name}")
    assert verified(2) == 1
    store.rm_file(f"{place}/manifest.json")
    assert verified() == 2


@pytest.mark.parametrize(
    "broken",
    ["manifest.json", *(pytest.param(name, marks=pytest.mark.slow) for name in [*FILES, "latest"] if name != "manifest.json")],
)
def test_an_upload_that_breaks_off_is_never_a_half_release_and_the_next_try_mends_it(broken, s3, release, monkeypatch):
    store, bucket = s3
    home, arguments = release
    monkeypatch.setenv(storage.STORE, f"s3://{bucket}")
    first = publish(**arguments)
    again = a_run(home, run="run-2")
    opened = storage._open

    def failing(url: str):
        there, place = opened(url)
        put, pipe = there.put_file, there.pipe_file

        def cut(what: str) -> None:
            if what.endswith(f"/{broken}"):
                raise ConnectionError(f"lost, signed with {SECRET}")

        monkeypatch.setattr(there, "put_file", lambda source, target: (cut(target), put(source, target)))
        monkeypatch.setattr(there, "pipe_file", lambda target, content: (cut(target), pipe(target, content)))
        return there, place

    with monkeypatch.context() as patch:
        patch.setattr(storage, "_open", failing)
        with pytest.raises(StageError, match=r"release letters 2 stands in .* the same command tries again") as caught:
            publish(**again)
    assert SECRET not in everything(caught.value)
    assert (home / "releases" / "letters" / "2").is_dir()  # made, and not made again
    reader = cli.main(["verify", f"s3://{bucket}/letters", "--home", str(home), "--json"])
    assert reader == 0
    assert store.cat_file(f"{bucket}/letters/latest") == b"1\n"
    half = cli.main(["verify", f"s3://{bucket}/letters/2", "--home", str(home)])
    assert half == (0 if broken == "latest" else 2)  # whole but not yet the latest, or not there
    assert publish(**again).version == "2"
    assert store.cat_file(f"{bucket}/letters/latest") == b"2\n"
    assert cli.main(["verify", f"s3://{bucket}/letters", "--home", str(home)]) == 0
    assert publish(**arguments) == first  # an old release that is copied again does not turn `latest` back
    assert store.cat_file(f"{bucket}/letters/latest") == b"2\n"


def test_a_store_holds_one_release_of_a_name_and_version(release, monkeypatch, tmp_path_factory):
    home, arguments = release
    shelf = tmp_path_factory.mktemp("store")
    monkeypatch.setenv(storage.STORE, f"file://{shelf}")
    publish(**arguments)
    assert cli.main(["verify", f"file://{shelf}/letters", "--home", str(home)]) == 0
    other = tmp_path_factory.mktemp("other")
    with pytest.raises(IntegrityError, match="holds another release"):
        publish(**a_run(other, weights=b"other" * 50))
    assert (shelf / "letters" / "latest").read_text() == "1\n"
    shutil.rmtree(shelf / "letters" / "1")


def test_without_a_store_nothing_is_copied(release, monkeypatch):
    monkeypatch.delenv(storage.STORE, raising=False)
    monkeypatch.setattr(storage, "_open", lambda url: pytest.fail("opened"))
    assert publish(**release[1]).version == "1"
