"""``tools/venv.sh`` finds the right Python, and says plainly what is missing. Interpreters are small scripts here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


class Box:
    """A PATH that holds only what the test puts there."""

    def __init__(self, root: Path) -> None:
        self.bin = root / "bin"
        self.bin.mkdir()
        self.venv = root / "venv"
        for name in ("sh", "mkdir"):
            found = shutil.which(name)
            assert found
            (self.bin / name).symlink_to(found)
        self.put("id", "echo 1000")

    def put(self, name: str, body: str) -> None:
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)

    def python(self, name: str, version: str, *, with_pip: bool = True) -> None:
        """Put an interpreter there that answers the script's questions as that version would."""
        new_enough = 0 if tuple(map(int, version.split("."))) >= (3, 11) else 1
        self.put(
            name,
            f"""case "$*" in
              *ensurepip*) exit {0 if with_pip else 1};;
              *"< (3, 11)"*) exit {new_enough};;
              *"%d.%d"*) echo {version};;
              --version) echo Python {version};;
              "-m venv"*) echo {name} made "$4";;
            esac""",
        )

    def run(self, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", str(ROOT / "tools" / "venv.sh"), str(self.venv)],
            env={"PATH": str(self.bin), **env},
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


def test_newest_python_is_taken(box: Box) -> None:
    for name, version in (("python3", "3.11"), ("python3.11", "3.11"), ("python3.12", "3.12")):
        box.python(name, version)
    done = box.run()
    assert done.returncode == 0
    assert f"python3.12 made {box.venv}" in done.stdout


def test_interpreter_that_does_not_run_is_passed_over(box: Box) -> None:
    box.put("python3.13", "echo 'no such version installed' >&2; exit 127")
    box.python("python3", "3.11")
    assert "python3 made" in box.run().stdout


def test_python_without_pip_is_passed_over_for_an_older_one_with_it(box: Box) -> None:
    box.python("python3.12", "3.12", with_pip=False)
    box.python("python3.11", "3.11")
    assert "python3.11 made" in box.run().stdout


def test_named_python_is_taken(box: Box) -> None:
    box.python("python3.12", "3.12")
    box.python("mine", "3.11")
    assert "mine made" in box.run(PYTHON="mine").stdout


def test_missing_venv_package_is_named_with_the_command_that_installs_it(box: Box) -> None:
    box.python("python3", "3.11", with_pip=False)
    done = box.run()
    assert done.returncode == 1
    assert "next:  sudo apt-get install python3-venv" in done.stderr


def test_root_gets_the_missing_package_installed(box: Box) -> None:
    box.python("python3", "3.11", with_pip=False)
    box.put("id", "echo 0")
    repaired = (box.bin / "python3").read_text().replace("*ensurepip*) exit 1", "*ensurepip*) exit 0")
    (box.bin / "repaired").write_text(repaired)
    box.put("apt-get", f'while read -r line; do echo "$line"; done < {box.bin}/repaired > {box.bin}/python3')
    done = box.run()
    assert done.returncode == 0, done.stderr
    assert "installing python3.11-venv" in done.stdout
    assert "python3 made" in done.stdout


@pytest.mark.parametrize("versions", [[], ["3.9"]])
def test_too_old_or_no_python_is_said_with_the_next_step(box: Box, versions: list[str]) -> None:
    for version in versions:
        box.python("python3", version)
    done = box.run()
    assert done.returncode == 1
    assert "no Python 3.11" in done.stderr
    assert "next:" in done.stderr
    for version in versions:
        assert f"python3 is {version}" in done.stderr


def test_existing_environment_is_left_alone(box: Box) -> None:
    (box.venv / "bin").mkdir(parents=True)
    os.symlink(sys.executable, box.venv / "bin" / "python")
    box.python("python3", "3.11")
    assert "made" not in box.run().stdout
