"""The documentation tells the truth: its commands exist and run, its links lead somewhere, its reference is complete."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import agentmesh
from agentmesh.cli.tree import DAEMON_VERBS, VERBS, agentmesh_tree, agentmeshd_tree
from agentmesh.daemon import launch
from agentmesh.daemon.home import Home
from agentmesh.daemon.knob_table import table
from agentmesh.wire.event import KINDS
from tests.support.pages import ROOT, Block, anchors, blocks, commands, guides, links, pages

REFERENCE = ROOT / "docs" / "reference"
#: Programs that a guide may use beside ours; make targets and our own commands are checked one by one.
OTHERS = {
    "cat",
    "cd",
    "chmod",
    "cp",
    "claude",
    "curl",
    "echo",
    "export",
    "git",
    "grep",
    "mkdir",
    "mv",
    "openssl",
    "python",
    "python3",
    "pip",
    "sleep",
    "sudo",
    "uvx",
    "source",
    ".",
}
TRANSLATED = [
    ("README.md", "README.zh-CN.md"),
    ("docs/tutorial/first-ten-minutes.md", "docs/tutorial/first-ten-minutes.zh-CN.md"),
    ("docs/tutorial/chat-follow-count.md", "docs/tutorial/chat-follow-count.zh-CN.md"),
]


def read(path: Path) -> str:
    return path.read_text("utf-8")


# -- commands ---------------------------------------------------------------------------------------------------------


def shell_blocks() -> list[Any]:
    return [
        pytest.param(page, block, id=f"{page.relative_to(ROOT)}:{block.line}")
        for page in guides()
        for block in blocks(page)
        if block.kind in {"sh", "console"}
    ]


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", read(ROOT / "Makefile"), re.MULTILINE))


def complaint(words: list[str]) -> str:
    """Say what is wrong with one documented command, "" if nothing is."""
    program = Path(words[0]).name
    if program == "make":
        wrong = [w for w in words[1:] if "=" not in w and w not in make_targets()]
        return f"the Makefile has no target {wrong[0]!r}" if wrong else ""
    if program not in {"agentmesh", "agentmeshd"}:
        return "" if program in OTHERS else f"{program!r} is neither ours nor in OTHERS"
    command: Any = agentmesh_tree() if program == "agentmesh" else agentmeshd_tree()
    words = words[: words.index("--")] if "--" in words else words  # what follows is somebody else's command
    path = [program]
    flags = _flags(command) | {"--help", "-h", "--version"}
    for word in words[1:]:
        if word.startswith("-") and word != "-":
            if word.split("=")[0] not in flags:
                return f"{' '.join(path)} has no flag {word}"
        elif hasattr(command, "list_commands") and word in command.list_commands(None):
            command = command.get_command(None, word)
            path.append(word)
            flags |= _flags(command)
        elif len(path) == 1 and not flags & {words[words.index(word) - 1]}:
            return f"{program} has no verb {word!r}"
    return ""


def _flags(command: Any) -> set[str]:
    return {flag for p in command.params for flag in (*p.opts, *p.secondary_opts)}


@pytest.mark.parametrize(("page", "block"), shell_blocks())
def test_documented_command_exists(page: Path, block: Block) -> None:
    text = block.text
    if block.kind == "console":
        text = "\n".join(line[2:] for line in text.splitlines() if line.startswith("$ "))
    found = [f"{' '.join(words)}: {why}" for words in commands(text) if (why := complaint(words))]
    assert found == []


def test_a_wrong_command_in_a_page_would_be_found() -> None:
    assert complaint(["agentmesh", "dance"])
    assert complaint(["agentmesh", "register", "http://x", "--dor", "http"])
    assert complaint(["make", "coffee"])
    assert complaint(["wget", "x"])
    assert not complaint(["agentmesh", "peers", "add", "did:key:x@y:1"])


# -- the guides that are run ------------------------------------------------------------------------------------------


class Machine:
    """One reader of a guide: a home, a folder to work in, and a shell whose exports last from block to block."""

    def __init__(self, root: Path, name: str, programs: Path) -> None:
        self.home = root / name
        self.folder = self.home / "work"
        self.folder.mkdir(parents=True)
        self.shared = root
        self.state = root / f"{name}.env"
        # Without a screen: a test opens no window of whoever runs it.
        out = ("AGENTMESH_", "XDG_", "DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
        keep = {k: v for k, v in os.environ.items() if not k.startswith(out)}
        self.env = {
            **keep,
            "HOME": str(self.home),
            "PATH": f"{programs}:{keep.get('PATH', '')}",
            "NO_COLOR": "1",
            "LC_ALL": "C.UTF-8",
            # What a test must not do: fixed ports, multicast.
            "AGENTMESH_PORT": "0",
            "AGENTMESH_LISTEN": "127.0.0.1:0",
            "AGENTMESH_LISTEN_UDP": "127.0.0.1:0",
            "AGENTMESH_MDNS": "false",
            "AGENTMESH_NAME": name,
        }
        self.background: list[subprocess.Popen[bytes]] = []

    def script(self, text: str) -> list[str]:
        """Return the command line that runs a block in this machine's shell."""
        text = re.sub(r"/tmp/(?=seed\.txt|chat\.py|mesh-ca)", f"{self.shared}/", text)
        restore = f"[ ! -f {self.state} ] || . {self.state}; set -euo pipefail"
        return ["bash", "-c", f"{restore}\n{text}\nexport -p > {self.state}\n"]

    def run(self, text: str) -> tuple[int, str]:
        """Run a block to its end; return exit code and everything it said."""
        done = subprocess.run(
            self.script(text),
            env=self.env,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=90,
            check=False,
        )
        return done.returncode, done.stdout.decode("utf-8", "replace")

    def start(self, text: str) -> None:
        """Start a block that does not end by itself."""
        with open(self.home / "background.log", "ab") as log:
            self.background.append(
                subprocess.Popen(
                    # In its own place, so that a signal reaches it and not a shell around it.
                    self.script(re.sub(r"^(agentmesh dev|python) ", r"exec \1 ", text)),
                    env=self.env,
                    cwd=self.folder,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
            )

    def aclose(self) -> None:
        """Stop what was started, by pid, also when the guide did not get to its end."""
        for process in self.background:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for lock in self.home.rglob("daemon.lock"):
            launch.stop(Home(lock.parent), grace_s=5)


@contextlib.contextmanager
def machines(root: Path, programs: Path) -> Iterator[dict[str, Machine]]:
    """Give the two machines of a guide, with the product installed from its wheel."""
    found = {name: Machine(root, name, programs) for name in ("A", "B")}
    try:
        yield found
    finally:
        for machine in found.values():
            machine.aclose()


def expect(said: str, wanted: str, where: str) -> None:
    """Check that the wanted lines appear in order; "…" stands for anything."""
    at = 0
    for line in filter(None, (line.strip() for line in wanted.splitlines())):
        pattern = r"\s+".join(".*?".join(map(re.escape, word.split("…"))) for word in line.split())
        match = re.compile(pattern).search(said, at)
        assert match, f"{where}: no line like {line!r} in\n{said}"
        at = match.end()


def follow(page: Path, hosts: dict[str, Machine]) -> None:
    """Do what a guide says, block by block."""
    said = ""
    for block in blocks(page):
        where = f"{page.relative_to(ROOT)}:{block.line}"
        if block.note == "expect":
            expect(said, block.text, where)
        if not block.note.startswith("run:"):
            continue
        name, *how = block.note.removeprefix("run:").split()
        machine = hosts[name]
        if how == ["background"]:
            machine.start(block.text)
            continue
        wanted = int(how[1]) if how[:1] == ["fails"] else 0
        code, said = machine.run(block.text)
        deadline = time.monotonic() + 30
        while how == ["retry"] and code != wanted and time.monotonic() < deadline:
            time.sleep(0.2)
            code, said = machine.run(block.text)
        log = machine.home / "background.log"
        assert code == wanted, f"{where} ended with {code}, not {wanted}\n{said}\n{read(log) if log.exists() else ''}"


def runnable_pages() -> list[Path]:
    return [page for page in guides() if any(block.note.startswith("run:") for block in blocks(page))]


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.parametrize("page", runnable_pages(), ids=lambda p: str(p.relative_to(ROOT)))
def test_guide_runs_from_top_to_bottom(page: Path, tmp_path: Path, wheel_bin: Path) -> None:
    with machines(tmp_path, wheel_bin) as hosts:
        follow(page, hosts)


def shape(said: str) -> set[str]:
    """Return the lines of a terminal with ids, numbers and spaces made equal."""
    said = re.sub(r"\b\w{4}…\w{6}\b", "ID", said)
    said = re.sub(r"run_\w+", "run_ID", re.sub(r"digest \w{4}-\w{4}", "digest D", said))
    return {
        " ".join(re.sub(r"(?<![\w'\"])[+]?\d+(\.\d+)?(?=( ms| s\b|$|\s))|:\d+\b", "#", line).split())
        for line in said.splitlines()
    }


@pytest.mark.e2e
@pytest.mark.slow
def test_readme_shows_what_the_demo_says(tmp_path: Path, wheel_bin: Path) -> None:
    with machines(tmp_path, wheel_bin) as hosts:
        code, said = hosts["A"].run("agentmesh demo")
    assert code == 0, said
    for name in ("README.md", "README.zh-CN.md"):
        shown = next(b.text for b in blocks(ROOT / name) if b.text.startswith("$ make demo"))
        assert shape(shown.partition("\n")[2]) - shape(said) == set(), said


@pytest.mark.e2e
def test_both_programs_work_from_the_wheel_and_it_holds_nothing_else(wheel_bin: Path) -> None:
    for program in ("agentmesh", "agentmeshd"):
        done = subprocess.run(
            [wheel_bin / program, "--version"], capture_output=True, text=True, check=True, timeout=60
        )
        assert done.stdout == f"{program} {agentmesh.__version__}\n"
    where = [wheel_bin / "python", "-c", "import agentmesh; print(agentmesh.__file__)"]
    done = subprocess.run(where, capture_output=True, text=True, check=True, timeout=60, cwd=wheel_bin)
    own = wheel_bin.parent / "lib"
    assert Path(done.stdout.strip()).is_relative_to(own)
    top = {path.name for packages in own.glob("python*/site-packages") for path in packages.iterdir()}
    assert {name for name in top if not name.endswith(".dist-info")} == {"agentmesh", "borrowed.pth"}


def test_the_tutorial_is_among_the_pages_that_are_run() -> None:
    names = {page.name for page in runnable_pages()}
    assert {"first-ten-minutes.md", "first-ten-minutes.zh-CN.md", "chat-follow-count.md"} <= names


def test_the_chat_of_the_tutorial_is_the_example_and_under_twenty_lines() -> None:
    page = ROOT / "docs" / "tutorial" / "chat-follow-count.md"
    printed = next(block.text for block in blocks(page) if "chat.py <<" in block.text)
    program = re.sub(r"\A.*?<<'EOF'\n|EOF\n.*\Z", "", printed, flags=re.DOTALL)
    example = read(ROOT / "examples" / "chat.py")
    assert example.endswith(program)
    assert len([line for line in program.splitlines() if line.strip()]) < 20


# -- reference --------------------------------------------------------------------------------------------------------


def test_every_setting_is_in_the_reference() -> None:
    text = read(REFERENCE / "configuration.md")
    for row in table():
        assert f"`{row.key}`" in text, f"configuration.md does not name {row.key}"
        assert row.env in text, f"configuration.md does not name {row.env}"


def test_every_verb_is_in_the_reference() -> None:
    text = read(REFERENCE / "cli.md")
    for row in VERBS:
        assert f"agentmesh {row.name}" in text, f"cli.md does not name {row.name}"
    for row in DAEMON_VERBS:
        assert f"agentmeshd {row.name}" in text, f"cli.md does not name agentmeshd {row.name}"


def test_every_exit_code_is_in_the_reference() -> None:
    from agentmesh.cli.exits import MEANINGS

    text = read(REFERENCE / "cli.md")
    for code, _ in MEANINGS:
        assert re.search(rf"\|\s*`?{code}`?\s*\|", text), f"cli.md does not name exit code {code}"


def test_every_route_is_in_the_reference() -> None:
    from agentmesh.api.routes import ROWS

    text = read(REFERENCE / "http-api.md")
    assert ROWS
    for row in ROWS:
        path = re.escape(row.path).replace(r"\{", "{").replace(r"\}", "}")
        assert re.search(rf"{row.method}\W+{path}", text), f"http-api.md does not name {row.method} {row.path}"


def test_every_public_name_is_in_the_reference() -> None:
    text = read(REFERENCE / "python-sdk.md")
    for name in agentmesh.__all__:
        assert name in text, f"python-sdk.md does not name {name}"


def test_every_event_kind_is_in_the_reference() -> None:
    text = read(REFERENCE / "events.md")
    for kind in KINDS:
        assert f"`{kind}`" in text, f"events.md does not name {kind}"


def test_the_error_page_is_fresh() -> None:
    spec = importlib.util.spec_from_file_location("pages_tool", ROOT / "tools" / "pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert read(REFERENCE / "errors.md") == module.page(), "next: make docs"


def test_the_benchmark_page_has_a_place_for_every_measurement() -> None:
    from bench.__main__ import NAMES

    text = read(REFERENCE / "benchmarks.md")
    for name in NAMES:
        assert f"<!-- bench:{name} -->\n" in text
        assert f"<!-- /bench:{name} -->" in text


# -- links and languages ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", pages(), ids=lambda p: str(p.relative_to(ROOT)))
def test_local_links_lead_somewhere(page: Path) -> None:
    broken: list[str] = []
    for target in links(page):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        goal = (page.parent / path).resolve() if path else page
        if not goal.exists() or (anchor and goal.suffix == ".md" and anchor not in anchors(goal)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize(("english", "chinese"), TRANSLATED)
def test_both_languages_say_the_same(english: str, chinese: str) -> None:
    one, two = ROOT / english, ROOT / chinese

    def levels(page: Path) -> list[int]:
        text = re.sub(r"^```.*?^```$", "", read(page), flags=re.MULTILINE | re.DOTALL)
        return [len(m) for m in re.findall(r"^(#+) ", text, re.MULTILINE)]

    assert levels(one) == levels(two)
    assert [(b.kind, b.note, b.text) for b in blocks(one) if b.kind in {"sh", "console", "python", "json"}] == [
        (b.kind, b.note, b.text) for b in blocks(two) if b.kind in {"sh", "console", "python", "json"}
    ]

    def files(page: Path) -> list[str]:
        return [re.sub(r"\.zh-CN(?=\.md)", "", t) for t in links(page) if not t.startswith("http")]

    assert sorted(files(one)) == sorted(files(two))


def test_readme_opens_with_the_two_commands() -> None:
    for name in ("README.md", "README.zh-CN.md"):
        first = [words for block in blocks(ROOT / name) if block.kind == "sh" for words in commands(block.text)][:8]
        assert ["make", "demo"] in first
        assert ["make", "test"] in first
