"""``tools/browser.sh`` never fails a test run, and says in one line what is skipped when there can be no browser."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

SCRIPT = Path(__file__).resolve().parent.parent.parent / "tools" / "browser.sh"


def run(tmp_path: Path, **programs: str) -> subprocess.CompletedProcess[str]:
    """Run the script where only these programs exist; a value is the body of a small script."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sh", "env"):
        found = shutil.which(name)
        assert found
        (folder / name).symlink_to(found)
    for name, body in programs.items():
        path = folder / name.replace("_", "-")
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
    return subprocess.run(
        ["sh", str(SCRIPT)], env={"PATH": str(folder)}, capture_output=True, text=True, timeout=30, check=False
    )


def test_nothing_is_done_where_a_browser_is(tmp_path: Path) -> None:
    done = run(tmp_path, chromium="exit 9", apt_get="exit 9")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_whoever_may_not_install_is_told_the_command(tmp_path: Path) -> None:
    done = run(tmp_path, apt_get="exit 9", id="echo 1000")
    assert done.returncode == 0
    assert "are skipped" in done.stderr
    assert "sudo apt-get install chromium" in done.stderr


def test_a_machine_without_apt_is_told_so(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode == 0
    assert "are skipped" in done.stderr


def test_root_installs_and_a_failure_is_said(tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    done = run(tmp_path, id="echo 0", apt_get=f'echo "$@" >> {asked}; exit 1')
    assert done.returncode == 0
    assert "could not install" in done.stderr
    assert "chromium" in asked.read_text()
