"""What may lie in the tree: small text files with lasting names, and nothing that ties it to one machine."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILE_BYTES_MAX = 300_000
SCREENSHOT_BYTES_MAX = 150_000
BINARY_SUFFIXES = {
    ".pem",
    ".key",
    ".p12",
    ".der",
    ".whl",
    ".zip",
    ".gz",
    ".tgz",
    ".sqlite",
    ".db",
    ".pyc",
    ".so",
    ".docx",
}
#: Words that a registry or a download address would bring in; spelled in two halves so that this file stays clean.
REGISTRIES = [
    "pypi" + ".org",
    "python" + "hosted.org",
    "registry." + "npm",
    "npmjs" + ".com/",
    "crates" + ".io/api",
    "index" + "-url",
]


def tracked() -> list[Path]:
    """Return the files that belong to the project: git's list, or every file of an unpacked sdist."""
    done = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        check=False,
    )
    if done.returncode == 0:
        return [ROOT / name for name in done.stdout.decode().split("\0") if name and (ROOT / name).is_file()]
    skip = {".venv", "__pycache__", ".pytest_cache", ".ruff_cache", ".hypothesis", "dist", "build"}
    return [p for p in ROOT.rglob("*") if p.is_file() and not skip & set(p.relative_to(ROOT).parts)]


def is_screenshot(path: Path) -> bool:
    """Say whether a file is one of the pictures that a test run takes for the documentation."""
    return path.suffix == ".png" and path.parent == ROOT / "docs" / "images" / "console"


def texts() -> list[tuple[str, str]]:
    return [(str(p.relative_to(ROOT)), p.read_text("utf-8")) for p in tracked() if not is_screenshot(p)]


def hits(pattern: str, *, skip: tuple[str, ...] = ()) -> list[str]:
    """Return ``file:line: text`` of every match outside ``skip``."""
    find = re.compile(pattern)
    return [
        f"{name}:{number}: {line.strip()[:120]}"
        for name, text in texts()
        if not name.startswith(skip or ("\0",))
        for number, line in enumerate(text.splitlines(), 1)
        if find.search(line)
    ]


def test_every_file_is_small_text() -> None:
    for path in tracked():
        assert path.stat().st_size <= FILE_BYTES_MAX, f"{path} is larger than {FILE_BYTES_MAX} bytes"
        assert path.suffix not in BINARY_SUFFIXES, f"{path} does not belong in the tree"
        if is_screenshot(path):
            assert path.stat().st_size <= SCREENSHOT_BYTES_MAX, f"{path} is larger than {SCREENSHOT_BYTES_MAX} bytes"
        else:
            path.read_text("utf-8")


def test_no_private_key_lies_in_the_tree() -> None:
    assert hits("BEGIN [A-Z ]*PRIVATE" + " KEY") == []


def test_no_script_lies_at_the_root() -> None:
    assert [p.name for p in tracked() if p.parent == ROOT and p.suffix in {".py", ".sh", ".js", ".bat"}] == []


def test_no_name_says_that_it_is_a_copy() -> None:
    copy = re.compile(r"(_v\d+|_new|_old|_fixed|_final|_copy|_backup|\bcopy of\b)(\.|$)", re.IGNORECASE)
    names = [str(p.relative_to(ROOT)) for p in tracked()]
    assert [n for n in names if any(copy.search(part) for part in Path(n).parts)] == []


def test_no_open_end_without_an_issue() -> None:
    assert hits(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK)\b(?!\(#\d+\))") == []


def test_no_path_of_one_machine() -> None:
    assert hits(r"(?<![\w.$}/-])/(ro" + r"ot|wo" + r"rk|Us" + r"ers|home/(?!<)\w)[/\w]") == []


def test_no_registry_and_no_download_address() -> None:
    assert hits("|".join(re.escape(word) for word in REGISTRIES)) == []
    assert hits(r"https?://[^\s\"'<>]+\.(whl|tgz|tar\.gz|crate|zip|exe)\b") == []


def test_no_lock_file_that_holds_addresses() -> None:
    assert [p.name for p in tracked() if p.suffix == ".lock" or p.name == "poetry.lock"] == []
    for path in (p for p in tracked() if p.name == "package-lock.json"):
        assert '"resolved"' not in path.read_text("utf-8"), path


@pytest.mark.parametrize("name", ["runtime", "test", "bench", "dev"])
def test_requirements_are_exact_names_and_versions(name: str) -> None:
    line = re.compile(r"[A-Za-z0-9._\-]+==[A-Za-z0-9.+]+(; [^@:/#]+)?|-r \w+\.txt|#.*")
    rows = (ROOT / "requirements" / f"{name}.txt").read_text("utf-8").splitlines()
    assert [row for row in rows if row and not line.fullmatch(row)] == []


def test_every_direct_dependency_is_pinned() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    pinned = {
        name: {
            row.split("==")[0].lower().replace("_", "-")
            for row in (ROOT / "requirements" / f"{name}.txt").read_text("utf-8").splitlines()
            if "==" in row
        }
        for name in ("runtime", "test", "bench")
    }
    bare = re.compile(r"[A-Za-z0-9._\-]+")

    def names(rows: list[str]) -> set[str]:
        return {m.group().lower().replace("_", "-") for row in rows if (m := bare.match(row))}

    assert names(project["project"]["dependencies"]) <= pinned["runtime"]
    assert names(project["dependency-groups"]["test"]) <= pinned["test"] | pinned["runtime"]
    assert names(project["dependency-groups"]["bench"]) <= pinned["bench"]


def test_source_modules_and_functions_stay_readable() -> None:
    import ast

    long: list[str] = []
    for path in tracked():
        if path.suffix != ".py" or "src" not in path.parts:
            continue
        text = path.read_text("utf-8")
        if len(text.splitlines()) > 600:
            long.append(f"{path.name}: {len(text.splitlines())} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
                lines = node.end_lineno - node.lineno + 1
                if lines > 100:
                    long.append(f"{path.name}:{node.lineno} {node.name}: {lines} lines")
    assert long == []
