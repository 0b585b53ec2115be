"""What a person or a script sees of any command: streams, exit codes, errors, languages, and what is imported for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from agentmesh import __version__
from agentmesh.cli.main import daemon_main, main
from agentmesh.cli.tree import DAEMON_VERBS, VERBS

#: What no cheap command may load: each costs tens of milliseconds or megabytes.
HEAVY = (
    "asyncio",
    "pydantic",
    "aiohttp",
    "uvicorn",
    "starlette",
    "iroh",
    "nacl",
    "cryptography",
    "zeroconf",
    "mcp",
    "a2a",
    "rich",
)


class Said(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Run a command line in this process."""

    def run(*args: str, entry: Callable[[list[str]], int] = main) -> Said:
        code = entry(list(args))
        return Said(code, *capsys.readouterr())

    return run


def in_process(*args: str, stdin: str = "", **env: str) -> Said:
    """Run a command line in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "agentmesh.cli.main", *args],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **env},
        check=False,
    )
    return Said(done.returncode, done.stdout, done.stderr)


def imported_by(*args: str) -> set[str]:
    """Return the modules that a command line loads."""
    probe = (
        "import sys; from agentmesh.cli.main import main\n"
        f"main({list(args)!r})\n"
        "print(chr(10).join(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=60, check=True)
    return {name.partition(".")[0] for name in done.stderr.splitlines()}


# -- what is imported --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("args", [["--version"], ["-V"], ["version"]])
def test_version_loads_neither_typer_nor_anything_heavy(args: list[str]) -> None:
    assert imported_by(*args).isdisjoint({"typer", "msgspec", *HEAVY})


@pytest.mark.parametrize("args", [["status"], ["discover"], ["--help"], ["config", "show"], ["run", "--to", "x", "y"]])
def test_everyday_commands_load_nothing_heavy(args: list[str]) -> None:
    assert imported_by(*args).isdisjoint(HEAVY)


def test_the_overview_loads_no_command() -> None:
    probe = (
        "import sys; from agentmesh.cli.main import main; main(['--help'])\n"
        "print([m for m in sys.modules if m.startswith('agentmesh.cli.commands.')], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr.strip() == "[]"


# -- help --------------------------------------------------------------------------------------------------------------


def test_version_is_one_line_on_stdout(say: Callable[..., Said]) -> None:
    assert say("--version") == (0, f"agentmesh {__version__}\n", "")
    assert say("--version", entry=daemon_main) == (0, f"agentmeshd {__version__}\n", "")
    assert json.loads(say("version", "--json").out)["version"] == __version__


def test_no_verb_shows_the_overview_which_starts_with_two_examples(say: Callable[..., Said]) -> None:
    said = say()
    assert (said.code, said.err) == (0, "")
    lines = [line.strip() for line in said.out.splitlines() if line.strip()]
    assert lines[2].startswith("agentmesh demo")
    assert lines[3].startswith("agentmesh run --to calc")
    for row in VERBS:
        assert row.help.split(";")[0][:30] in said.out


@pytest.mark.parametrize("name", [row.name for row in VERBS])
def test_every_verb_has_help_with_an_example_and_the_global_flags(say: Callable[..., Said], name: str) -> None:
    said = say(name, "--help")
    assert said.code == 0
    assert f"agentmesh {name}" in said.out or name == "mcp"
    for flag in ("--json", "--quiet", "--verbose", "--no-color", "--home", "--timeout", "--yes", "--lang"):
        assert flag in said.out


@pytest.mark.parametrize("name", [row.name for row in DAEMON_VERBS])
def test_every_daemon_verb_has_help(say: Callable[..., Said], name: str) -> None:
    said = say(name, "--help", entry=daemon_main)
    assert said.code == 0
    assert "--home" in said.out


def test_a_flag_of_every_setting_is_there_to_start_the_daemon(say: Callable[..., Said]) -> None:
    from agentmesh.daemon.knob_table import table

    text = say("start", "--help", entry=daemon_main).out
    for row in table():
        assert row.flag in text


# -- errors ------------------------------------------------------------------------------------------------------------


def test_an_error_is_three_lines_on_stderr_and_nothing_on_stdout(say: Callable[..., Said]) -> None:
    said = say("status", "--no-autostart")
    assert said.code == 4
    assert said.out == ""
    error, why, following = said.err.splitlines()
    assert error == "error[daemon.unreachable] the daemon is not running"
    assert why.startswith("why: ")
    assert following == "next: agentmesh up"


@pytest.mark.parametrize("args", [["--json", "status"], ["status", "--json"]])
def test_with_json_an_error_is_one_object_on_stderr(say: Callable[..., Said], args: list[str]) -> None:
    said = say(*args)
    assert (said.code, said.out) == (4, "")
    error = json.loads(said.err)["error"]
    assert error["code"] == "daemon.unreachable"
    assert error["hint"] == "agentmesh up"


@pytest.mark.parametrize(
    ("args", "near"),
    [(["disover"], "discover"), (["statu"], "status"), (["traec", "last"], "trace"), (["demmo"], "demo")],
)
def test_an_unknown_verb_names_the_near_one(say: Callable[..., Said], args: list[str], near: str) -> None:
    said = say(*args)
    assert said.code == 2
    assert f"next: agentmesh {near}" in said.err
    assert json.loads(say("--json", *args).err)["error"]["did_you_mean"][0] == near


@pytest.mark.parametrize(
    "args",
    [
        ["--nonsense"],
        ["status", "--nonsense"],
        ["show"],
        ["run", "hello"],
        ["run", "--to", "x"],
        ["run", "--to", "x", "y", "--data", "1"],
        ["run", "--to", "x", "--data", "{"],
        ["run", "--to", "x", "--file", "/nonexistent"],
        ["config", "explain", "nothing"],
        ["config", "set", "port", "many"],
        ["config", "nonsense"],
        ["register", "http://127.0.0.1:1", "--door", "window"],
        ["peers", "add", "nobody"],
        ["dev", "nothing.py"],
        ["demo", "--stop", "/nonexistent"],
        ["status", "--lang", "klingon"],
        ["status", "--timeout", "soon"],
    ],
)
def test_wrong_usage_ends_with_2_and_a_next_step(say: Callable[..., Said], args: list[str]) -> None:
    said = say(*args)
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("error[")
    assert "\nnext: " in said.err
    assert "Traceback" not in said.err


@pytest.mark.parametrize(
    "args",
    [["discover"], ["show", "x"], ["run", "--to", "x", "y"], ["trace"], ["peers"], ["deregister", "x"], ["status"]],
)
def test_commands_that_need_the_daemon_say_how_to_start_it(say: Callable[..., Said], args: list[str]) -> None:
    said = say(*args)
    assert (said.code, said.out) == (4, "")
    assert "next: agentmesh up" in said.err


def test_the_next_command_names_the_home_that_was_named(say: Callable[..., Said], tmp_path: Path) -> None:
    home = tmp_path / "my home"
    assert f"next: agentmesh --home '{home}' up" in say("status", "--home", str(home)).err


def test_a_fault_of_ours_is_an_error_with_1_and_a_traceback_only_on_wish(
    say: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_out: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr("agentmesh.cli.connect.home_of", broken)
    said = say("status")
    assert said.code == 1
    assert said.err.startswith("error[bug] unexpected RuntimeError: broken")
    assert "Traceback" not in said.err
    assert "Traceback" in say("status", "-vv").err


def test_ctrl_c_ends_with_130(say: Callable[..., Said], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_out: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("agentmesh.cli.connect.home_of", interrupted)
    assert say("status").code == 130


def test_timeout_ends_a_command_with_7(say: Callable[..., Said], monkeypatch: pytest.MonkeyPatch) -> None:
    import signal

    monkeypatch.setattr("agentmesh.cli.connect.home_of", lambda _out: signal.pause())
    said = say("status", "--timeout", "0.1")
    assert said.code == 7
    assert "0.1 s" in said.err


def test_a_reader_that_goes_away_is_no_error() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "agentmesh.cli.main", "cheat"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
        assert process.wait(30) == 0


# -- streams, colour, language -----------------------------------------------------------------------------------------


def test_hints_go_to_stderr_and_quiet_leaves_them_out(say: Callable[..., Said]) -> None:
    said = say("config", "set", "mdns", "off")
    assert said.code == 0
    assert "mdns" in said.out
    assert "next:" not in said.out
    assert say("logs", "-q").code == 6


def test_there_is_no_colour_off_a_terminal_and_force_color_brings_it() -> None:
    assert "\x1b" not in in_process("cheat", NO_COLOR="").out
    forced = {"FORCE_COLOR": "1", "TERM": "xterm"}
    env = {k: v for k, v in os.environ.items() if k != "NO_COLOR"}
    done = subprocess.run(
        [sys.executable, "-m", "agentmesh.cli.main", "cheat"],
        capture_output=True,
        text=True,
        env={**env, **forced},
        timeout=60,
        check=True,
    )
    assert "\x1b[" in done.stdout
    assert "\x1b" not in in_process("cheat", "--no-color", **forced).out


def test_a_terminal_that_knows_only_ascii_is_no_reason_to_crash() -> None:
    said = in_process("down", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert said.code == 0
    assert "not running" in said.out


def test_chinese_is_chosen_by_flag_or_environment(say: Callable[..., Said], monkeypatch: pytest.MonkeyPatch) -> None:
    said = say("status", "--lang", "zh")
    assert said.err.startswith("错误[daemon.unreachable] 守护进程没有运行")
    assert "下一步: agentmesh up" in said.err
    monkeypatch.setenv("LANG", "zh_CN.UTF-8")
    monkeypatch.delenv("LC_ALL", raising=False)
    assert "智能体" in say("--help").out
    assert "智能体" not in say("--help", "--lang", "en").out
    assert json.loads(say("status", "--json").err)["error"]["message"] == "the daemon is not running"


def test_config_explain_shows_value_source_and_effect(
    say: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTMESH_PORT", "7001")
    text = say("config", "explain", "port").out
    assert "port = 7001" in text
    assert "environment AGENTMESH_PORT" in text
    shown = json.loads(say("config", "explain", "--json").out)["settings"]
    assert {s["key"]: s["source"] for s in shown}["mdns"] == "default"


def test_config_set_is_seen_by_show_and_undone_by_unset(say: Callable[..., Said]) -> None:
    assert say("config", "set", "links_max", "7").code == 0
    assert "links_max = 7\n" in say("config", "show").out
    path = Path(json.loads(say("config", "path", "--json").out)["path"])
    assert path.read_text() == "links_max = 7\n"
    assert say("config", "unset", "links_max").code == 0
    assert "links_max = 256\n" in say("config").out


def test_down_without_a_daemon_is_done(say: Callable[..., Said]) -> None:
    assert say("down").code == 0
    assert json.loads(say("stop", "--json", entry=daemon_main).out) == {"stopped": False, "pid": None, "killed": False}


def test_a_home_of_a_newer_version_is_refused_by_every_command(say: Callable[..., Said]) -> None:
    home = Path(os.environ["AGENTMESH_HOME"])
    (home / "home_version").write_text("99\n")
    for args in (["status"], ["up"], ["config", "show"], ["down"]):
        said = say(*args)
        assert said.code == 2, args
        assert "home.newer" in said.err


def test_logs_show_the_end_of_the_log_without_its_teeth(say: Callable[..., Said]) -> None:
    home = Path(os.environ["AGENTMESH_HOME"])
    (home / "daemon.log").write_bytes(b"one\ntwo\n\x1b[31mthree\n")
    assert say("logs", "-n", "2").out == "two\n·[31mthree\n"
    assert next(json.loads(x)["line"] for x in say("logs", "--json").out.splitlines()) == "one"


def test_the_cheat_sheet_names_every_exit_code(say: Callable[..., Said]) -> None:
    from agentmesh import errors
    from agentmesh.cli.exits import MEANINGS

    codes = {value for name, value in vars(errors).items() if name.startswith("EXIT_")}
    assert {code for code, _ in MEANINGS} == codes
    assert [row["code"] for row in json.loads(say("cheat", "--json").out)["exit_codes"]] == sorted(codes)
