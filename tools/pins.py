"""Write requirements/{runtime,semantic,test,bench}.txt anew: ``make pins``.

Installs the project and its dependency groups (pyproject.toml) into throw-away environments, from whatever package index
pip is set up for, and records what pip chose: names, exact versions and platform markers, never addresses.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEADS = {
    "runtime": (
        "# What `pip install .` needs, transitive dependencies included, each at one exact version.\n"
        "# pyproject.toml says why each direct one is here; `make pins` writes this file anew.\n"
    ),
    "semantic": (
        "# The extra `semantic`: search by meaning with a local model. `make pins` writes this file anew.\n-r runtime.txt\n"
    ),
    "test": (
        "# What `make test` and `make check` need on top of semantic.txt; `make pins` writes this file anew.\n"
        "-r semantic.txt\n"
    ),
    "bench": "# The rivals that `make bench` measures in the same run; `make pins` writes this file anew.\n-r runtime.txt\n",
}


def freeze(packages: list[str], where: Path) -> dict[str, str]:
    """Install ``packages`` into a fresh environment and return name → version of everything in it."""
    venv.create(where, with_pip=True)
    pip = [str(where / "bin" / "pip"), "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--quiet", *packages], check=True)
    lines = subprocess.run([*pip, "freeze"], check=True, capture_output=True, text=True).stdout.splitlines()
    return dict(line.split("==", 1) for line in lines if "==" in line)


def main() -> None:
    """Resolve, then write the files."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    direct: list[str] = project["project"]["dependencies"]
    groups: dict[str, list[str]] = project["dependency-groups"]
    semantic: list[str] = project["project"]["optional-dependencies"]["semantic"]
    markers = {
        text.split(";", 1)[0].split()[0].split("[")[0].lower(): text.split(";", 1)[1].strip()
        for text in direct
        if ";" in text
    }
    with tempfile.TemporaryDirectory() as temp:
        runtime = freeze(direct, Path(temp) / "runtime")
        pins = [f"{name}=={version}" for name, version in runtime.items()]
        found = {"runtime": runtime}
        extra = freeze([*pins, *semantic], Path(temp) / "semantic")
        found["semantic"] = {name: version for name, version in extra.items() if name not in runtime}
        for group, below in (("test", extra), ("bench", runtime)):
            before = [f"{name}=={version}" for name, version in below.items()]
            everything = freeze([*before, *groups[group]], Path(temp) / group)
            found[group] = {name: version for name, version in everything.items() if name not in below}
    for group, head in HEADS.items():
        lines = [
            f"{name}=={version}" + (f"; {markers[name.lower()]}" if name.lower() in markers else "")
            for name, version in sorted(found[group].items(), key=lambda pair: pair[0].lower())
        ]
        (ROOT / "requirements" / f"{group}.txt").write_text(head + "\n".join(lines) + "\n", "utf-8")
        print(f"requirements/{group}.txt: {len(lines)} pins", file=sys.stderr)


if __name__ == "__main__":
    main()
