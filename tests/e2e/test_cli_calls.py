"""Find, call and trace agents across two real nodes, as people and scripts do it on the command line."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemons import Daemon, Mesh, script, sees_agent, wait_until

pytestmark = pytest.mark.e2e

SLEEPER = """
import asyncio
from agentmesh import agent, run

@agent
async def sleeper(text: str):
    "Says one word, then nothing for a long time."
    yield "dozing "
    await asyncio.sleep(600)

run(sleeper)
"""


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Daemon, Daemon]]:
    """Two nodes; echo, calc and sleeper live behind the second, reviewer behind the first."""
    root = tmp_path_factory.mktemp("nodes")
    (root / "sleeper.py").write_text(SLEEPER)
    mesh = Mesh(root)
    try:
        a, b = mesh.pair()
        toy = [sys.executable, "-m"]
        with (
            script([*toy, "agentmesh.sdk.toys.echo"], env=b.env),
            script([*toy, "agentmesh.sdk.toys.calc"], env=b.env),
            script([*toy, "agentmesh.sdk.toys.reviewer"], env=a.env),
            script([sys.executable, str(root / "sleeper.py")], env=b.env),
        ):
            for name in ("echo", "calc", "reviewer", "sleeper"):
                wait_until(lambda name=name: sees_agent(a, name), f"node a to see {name}")
            yield a, b
    finally:
        mesh.aclose()


def test_discover_lists_agents_with_trust_place_and_path(nodes: tuple[Daemon, Daemon]) -> None:
    a, b = nodes
    done = a.cli("discover")
    assert done.code == 0
    head, *rows = done.out.splitlines()
    assert head.split() == ["NAME", "SKILL", "TRUST", "WHERE", "PATH", "STATUS"]
    by_name = {row.split()[0]: row for row in rows}
    assert re.search(r"signed +b +direct +healthy", by_name["calc"])
    assert re.search(r"own +this node +local +healthy", by_name["reviewer"])
    found = a.cli("discover", "--json").json()["agents"]
    calc = next(agent for agent in found if agent["name"] == "calc")
    assert calc["node_id"] == b.node_id
    for key in ("agent_id", "skills", "status", "trust", "path"):
        assert calc[key]


def test_discover_with_a_question_leaves_out_what_does_not_match(nodes: tuple[Daemon, Daemon]) -> None:
    names = [agent["name"] for agent in nodes[0].cli("discover", "arithmetic", "--json").json()["agents"]]
    assert "calc" in names
    assert "echo" not in names


def test_run_prints_the_answer_and_ends_with_the_trace(nodes: tuple[Daemon, Daemon]) -> None:
    done = nodes[0].cli("run", "--to", "calc", "1+1")
    assert done.code == 0, done
    answer, last = done.out.splitlines()
    assert answer == "2"
    assert re.fullmatch(r"trace: run_[0-9a-f]{8}", last)
    assert "calc" in done.err
    assert nodes[0].cli("run", "-q", "--to", "calc", "1+1") == (0, "2\n", "")


def test_run_with_json_gives_one_object_that_scripts_rely_on(nodes: tuple[Daemon, Daemon]) -> None:
    a, b = nodes
    done = a.cli("run", "--to", "calc", "2*21", "--json")
    reply = done.json()
    assert (reply["text"], reply["state"], reply["path"], reply["node_id"]) == ("42", "completed", "direct", b.node_id)
    for key in ("run_id", "task_id", "agent_id", "ms"):
        assert reply[key]
    assert done.err == ""


def test_run_with_json_and_stream_gives_one_event_per_line_and_the_reply_last(nodes: tuple[Daemon, Daemon]) -> None:
    done = nodes[0].cli("run", "--to", "calc", "3*3", "--json", "--stream")
    *events, last = [json.loads(line) for line in done.out.splitlines()]
    assert last["reply"]["text"] == "9"
    assert events[0]["payload"]["state"] == "submitted"
    assert "tool" in {event["kind"] for event in events}


@pytest.mark.parametrize("way", ["stdin", "file", "node"])
def test_input_comes_from_stdin_a_file_or_to_a_named_node(
    nodes: tuple[Daemon, Daemon], tmp_path: Path, way: str
) -> None:
    a, _ = nodes
    (tmp_path / "text").write_text("hello")
    args = {
        "stdin": ["--to", "echo", "-"],
        "file": ["--to", "echo", "--file", str(tmp_path / "text")],
        "node": ["--to", "echo@b", "hello"],
    }[way]
    assert a.cli("run", "-q", *args, stdin="hello\n") == (0, "hello\n", "")


def test_a_failing_agent_ends_with_5_its_own_words_and_the_trace(nodes: tuple[Daemon, Daemon]) -> None:
    done = nodes[0].cli("run", "--to", "calc", "1/0")
    assert done.code == 5
    assert "divides by zero" in done.err
    assert "next: " in done.err
    assert done.out.startswith("trace: run_")


def test_an_unknown_agent_ends_with_6_and_near_names(nodes: tuple[Daemon, Daemon]) -> None:
    done = nodes[0].cli("run", "--to", "clac", "1+1", "--json")
    assert done.code == 6
    assert json.loads(done.err)["error"]["did_you_mean"] == ["calc"]


def test_a_call_that_takes_too_long_ends_with_7(nodes: tuple[Daemon, Daemon]) -> None:
    done = nodes[0].cli("run", "--to", "sleeper", "x", "--timeout", "0.5")
    assert done.code == 7, done


def test_ctrl_c_cancels_the_remote_task_and_says_so(nodes: tuple[Daemon, Daemon]) -> None:
    a, _ = nodes
    binary = str(Path(sys.executable).parent / "agentmesh")
    with subprocess.Popen(
        [binary, "run", "--to", "sleeper", "x"], env=a.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.read(7) == "dozing "
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "the remote task was told to stop" in err
    run_id = re.search(r"trace: (run_\w+)", out)
    assert run_id is not None
    states = wait_until(lambda: ended_states(a, run_id[1]), "the run to end")
    assert "canceled" in states


def ended_states(node: Daemon, ref: str) -> set[str]:
    events = node.cli("trace", ref, "--json").json()["events"]
    states = {event["payload"].get("state") for event in events if event["kind"] == "status"}
    return states if states & {"canceled", "completed", "failed"} else set()


def test_trace_shows_the_whole_chain_and_the_same_digest_on_both_nodes(nodes: tuple[Daemon, Daemon]) -> None:
    a, b = nodes
    reply = a.cli("run", "--to", "reviewer", "6 * 7 = 42", "--json").json()
    assert reply["text"] == "correct: 6 * 7 = 42"
    wait_until(lambda: a.cli("trace", reply["run_id"], "--json").json()["complete"], "the trace to be complete")
    here = a.cli("trace", reply["run_id"], "--json").json()
    there = b.cli("trace", reply["run_id"], "--json").json()
    assert (here["count"], here["digest"]) == (there["count"], there["digest"])
    assert here["count"] == len(here["events"])
    text = a.cli("trace", "last").out
    for words in ("you → reviewer", "reviewer → calc", "calc → echo", "evaluate(", "correct: 6 * 7 = 42"):
        assert words in text
    assert text.splitlines()[-1] == f"{here['count']} events · digest {here['digest']}"
    followed = a.cli("trace", "last", "-f", timeout_s=20)
    assert followed.out.splitlines()[-1] == text.splitlines()[-1]


def test_trace_follow_shows_a_run_as_it_happens_and_ends_with_it(nodes: tuple[Daemon, Daemon]) -> None:
    a, _ = nodes
    binary = str(Path(sys.executable).parent / "agentmesh")
    with subprocess.Popen([binary, "run", "--to", "sleeper", "x"], env=a.env, stdout=subprocess.PIPE) as run:
        assert run.stdout is not None
        assert run.stdout.read(7) == b"dozing "
        with subprocess.Popen([binary, "trace", "last", "-f"], env=a.env, stdout=subprocess.PIPE, text=True) as trace:
            assert trace.stdout is not None
            assert "submitted" in trace.stdout.readline()
            run.send_signal(signal.SIGINT)
            out, _err = trace.communicate(timeout=20)
        run.communicate(timeout=20)
    assert "canceled" in out
    assert re.fullmatch(r"\d+ events · digest [0-9a-f]{4}-[0-9a-f]{4}", out.splitlines()[-1])


def test_show_gives_card_replicas_and_a2a_address(nodes: tuple[Daemon, Daemon]) -> None:
    a, _ = nodes
    detail = a.cli("show", "calc", "--json").json()
    assert detail["agent"]["name"] == "calc"
    assert detail["card"]["skills"]
    shown = a.cli("show", "calc").out
    assert "add_mul" in shown
    assert detail["agent"]["agent_id"] in shown


def test_peers_shows_the_other_node(nodes: tuple[Daemon, Daemon]) -> None:
    a, b = nodes
    (peer,) = a.cli("peers", "--json").json()["peers"]
    assert (peer["node_id"], peer["connected"], peer["path"]) == (b.node_id, True, "direct")
    shown = a.cli("peers").out
    assert "direct iroh" in shown
    assert "alive" in shown


def test_shell_completion_knows_the_live_agents(nodes: tuple[Daemon, Daemon]) -> None:
    a, _ = nodes
    env = {"_AGENTMESH_COMPLETE": "complete_bash", "COMP_WORDS": "agentmesh show re", "COMP_CWORD": "2"}
    done = subprocess.run(
        [str(Path(sys.executable).parent / "agentmesh")],
        env={**a.env, **env},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stdout.split() == ["reviewer"]


def test_register_and_deregister_an_agent_that_runs_elsewhere(nodes: tuple[Daemon, Daemon], tmp_path: Path) -> None:
    a, b = nodes
    server = (
        "import http.server, json\n"
        "class Rpc(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self): self.answer({'status': 'ok'})\n"
        "    def do_POST(self):\n"
        "        self.rfile.read(int(self.headers['content-length'])); self.answer({'text': 'plain http'})\n"
        "    def answer(self, body):\n"
        "        raw = json.dumps(body).encode(); self.send_response(200)\n"
        "        self.send_header('content-type', 'application/json')\n"
        "        self.send_header('content-length', str(len(raw))); self.end_headers(); self.wfile.write(raw)\n"
        "    def log_message(self, *_): pass\n"
        "server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Rpc)\n"
        "print(server.server_port, flush=True); server.serve_forever()\n"
    )
    with script([sys.executable, "-c", server]) as process:
        assert process.stdout is not None
        url = f"http://127.0.0.1:{int(process.stdout.readline())}/rpc"
        done = b.cli("register", url, "--door", "http", "--name", "plain", "--description", "Answers in plain HTTP.")
        assert done.code == 0, done
        wait_until(lambda: sees_agent(a, "plain"), "node a to see plain")
        assert a.cli("run", "-q", "--to", "plain", "hi").out == "plain http\n"
        assert b.cli("deregister", "plain").code == 0
        wait_until(lambda: not sees_agent(a, "plain"), "node a to forget plain")
        assert a.cli("run", "--to", "plain", "hi").code == 6


def test_mcp_serve_prints_nothing_of_its_own_to_stdout(nodes: tuple[Daemon, Daemon]) -> None:
    a, _ = nodes
    hello = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
    }
    binary = str(Path(sys.executable).parent / "agentmesh")
    with subprocess.Popen(
        [binary, "mcp", "serve"],
        env=a.env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(hello) + "\n")
        process.stdin.flush()
        first = process.stdout.readline()
        assert json.loads(first)["result"]["serverInfo"]["name"]
        out, _err = process.communicate(timeout=20)
    assert [line for line in out.splitlines() if not line.startswith("{")] == []
    assert os.WIFEXITED(process.returncode)
