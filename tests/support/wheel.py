"""The product as people get it: built into a wheel and installed into an environment of its own, without any index."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

from tests.support.pages import ROOT


def build(where: Path) -> Path:
    """Build the wheel and return its path."""
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(where), str(ROOT)],
        check=True,
        capture_output=True,
        timeout=120,
    )
    (wheel,) = where.glob("*.whl")
    return wheel


def install(wheel: Path, where: Path) -> Path:
    """Install the wheel into a new environment that borrows the dependencies of this one; return its ``bin``."""
    venv.create(where, with_pip=False, symlinks=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    # A path in a .pth file is searched, but .pth files inside it are not read: the editable install does not come along.
    borrowed = where / "lib" / version / "site-packages" / "borrowed.pth"
    borrowed.write_text(sysconfig.get_path("purelib") + "\n", "utf-8")
    python = where / "bin" / "python"
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps", "--no-index", str(wheel)],
        check=True,
        capture_output=True,
        timeout=120,
    )
    return where / "bin"
