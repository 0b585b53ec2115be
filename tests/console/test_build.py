"""The committed build is what the console's sources give, it is small, and nothing in it asks for anything outside."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CONSOLE = ROOT / "console"
STATIC = ROOT / "src" / "agentmesh" / "api" / "static"
#: Files beside src/ and public/ that decide what the build is (console/vite.config.ts has the same list).
BESIDE = (
    "index.html",
    "package.json",
    "package-lock.json",
    "svelte.config.js",
    "tsconfig.json",
    "vite.config.ts",
)
FIRST_ROUTE_GZ_MAX, ALL_ZIPPED_MAX = 90_000, 400_000
#: Addresses that are names, not places: namespaces, where errors of a library are explained, and this very machine.
NAMES = re.compile(rb"https?://(www\.w3\.org/|svelte\.dev/e/|agentmesh\.dev/ext/|127\.0\.0\.1\b)")

pytestmark = pytest.mark.skipif(not CONSOLE.is_dir(), reason="the console's source is not here (an unpacked wheel)")


def sources() -> list[Path]:
    below = [path for folder in ("src", "public") for path in (CONSOLE / folder).rglob("*") if path.is_file()]
    return [path for path in [*below, *(CONSOLE / name for name in BESIDE)] if not path.name.endswith(".test.ts")]


def built() -> dict[str, bytes]:
    return {str(path.relative_to(STATIC)): path.read_bytes() for path in STATIC.rglob("*") if path.is_file()}


def test_the_build_was_made_from_these_sources() -> None:
    total = hashlib.sha256()
    for name, path in sorted((path.relative_to(CONSOLE).as_posix(), path) for path in sources()):
        total.update(f"{name}\n{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    assert json.loads((STATIC / "build.json").read_bytes())["sources"] == total.hexdigest(), (
        "run npm run build in console/"
    )


def test_the_types_were_made_from_this_api() -> None:
    first = (CONSOLE / "src/lib/schema.d.ts").read_text("utf-8").splitlines()[0]
    spec = importlib.util.spec_from_file_location("console_types_tool", ROOT / "tools" / "console_types.py")
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    assert tool.digest() in first, "run tools/console_types.py"


def test_the_build_is_small_and_has_no_source_maps() -> None:
    files = built()
    assert not [name for name in files if name.endswith(".map")]
    assert not [name for name, body in files.items() if b"sourceMappingURL" in body]
    page = files["index.html"].decode()
    first = [name for name in re.findall(r'(?:src|href)="/([^"]+)"', page) if not name.endswith(".svg")]
    home = [name for name in files if re.fullmatch(r"assets/(Home|Page)-[^/]*\.(js|css)", name)]
    sent = sum(len(gzip.compress(files[name], 9)) for name in {"index.html", *first, *home})
    assert sent <= FIRST_ROUTE_GZ_MAX, f"the first route is {sent} bytes gzipped"
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, body in files.items():
            archive.writestr(name, body)
    assert packed.tell() <= ALL_ZIPPED_MAX, f"the whole build is {packed.tell()} bytes zipped"


def test_the_build_names_no_place_outside() -> None:
    for name, body in built().items():
        found = [
            at.group() for at in re.finditer(rb"https?://[\w.-]+[^\"'`\s)]{0,40}", body) if not NAMES.match(at.group())
        ]
        assert not found, f"{name} names {found[:3]}"


def test_no_component_takes_markup_from_data_or_carries_literal_text() -> None:
    for path in (CONSOLE / "src").rglob("*.svelte"):
        text = path.read_text("utf-8")
        assert "{@html" not in text, path
        markup = re.sub(r"<script.*?</script>|<style.*?</style>|<kbd.*?</kbd>|<!--.*?-->", "", text, flags=re.DOTALL)
        words = re.findall(r">\s*([A-Za-z]{3,}[^<>{}]*)<", markup)
        assert [word.strip() for word in words if word.strip() != "AgentMesh"] == [], path


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_building_anew_gives_the_same_files(tmp_path: Path) -> None:
    npm = shutil.which("npm")
    node = shutil.which("node")
    if npm is None or node is None:
        pytest.skip("no node and npm here: the build cannot be made anew (its sources were compared)")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    if tuple(map(int, version.lstrip("v").split(".")[:2])) < (20, 19):
        pytest.skip(f"node {version} is too old for the build: 20.19 or later")
    copy = tmp_path / "console"
    shutil.copytree(CONSOLE, copy, ignore=shutil.ignore_patterns("node_modules"))
    env = {**os.environ, "CI": "true", "HOME": str(tmp_path)}
    for name in ("npm_config_registry", "npm_config_cache", "npm_config_userconfig"):
        if value := subprocess.run(
            [npm, "config", "get", name.removeprefix("npm_config_")], capture_output=True, text=True, check=False
        ).stdout.strip():
            env[name] = value
    installed = subprocess.run(
        [npm, "ci", "--prefer-offline", "--no-audit", "--no-fund"],
        cwd=copy,
        env=env,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    if installed.returncode:
        pytest.skip(f"npm ci did not work here: {installed.stderr[-300:]}")
    bins = copy / "node_modules" / ".bin"
    for command in (
        ["svelte-check", "--tsconfig", "./tsconfig.json", "--fail-on-warnings"],
        ["vitest", "run"],
        ["vite", "build"],
    ):
        done = subprocess.run(
            [bins / command[0], *command[1:]],
            cwd=copy,
            env=env,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    anew = tmp_path / "src" / "agentmesh" / "api" / "static"
    fresh = {str(path.relative_to(anew)): path.read_bytes() for path in anew.rglob("*") if path.is_file()}
    assert sorted(fresh) == sorted(built())
    assert [name for name in fresh if fresh[name] != built()[name]] == []
