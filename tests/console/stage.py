"""What the console is looked at with: two linked nodes, agents with well-meant and hostile texts, calls of every outcome."""

from __future__ import annotations

from typing import Any, NamedTuple

from tests.support.daemons import Daemon, Mesh, sees_agent, wait_until

#: Nothing of this may ever run; a page that runs it sets the mark.
MARKUP = '<img src=x onerror="window.pwned=1"><script>window.pwned=1</script>{{7*7}}\'"--><svg onload=window.pwned=1>'
#: Turns the direction of what follows, hides itself, and cannot be encoded.
MARKS = "abc\u202egnp.exe\u2066\u200b\u0000\ud800end"
LONG = "x" * 4_000


class Stage(NamedTuple):
    """The two nodes, and the runs made there by what they ended with."""

    one: Daemon
    other: Daemon
    runs: dict[str, str]


def set_up(mesh: Mesh, agent: str) -> Stage:
    """Start and fill two nodes.

    Args:
        mesh: Starts them.
        agent: Address of a plain agent (``tests.support.plain``).
    """
    one, other = mesh.pair()
    for node, name, says in (
        (one, "scribe", "Writes down what it is told."),
        (one, "broken", "Fails whatever it is asked."),
        (other, "echo", "Says what it hears, on the other machine."),
        (other, "odd", f"{MARKUP} {MARKS.encode('utf-8', 'replace').decode()} {LONG}"),
    ):
        node.post("/api/v1/agents", {"url": f"{agent}/{name}", "door": "http", "name": name, "description": says})
    for name in ("echo", "odd"):
        wait_until(lambda name=name: sees_agent(one, name), f"{name} to be known on both nodes", 60)
    runs = {
        "completed": called(one, "echo", "hello"),
        "here": called(one, "scribe", "note this"),
        "hostile": called(one, "odd", MARKUP + MARKS.encode("utf-8", "replace").decode()),
        "failed": called(one, "broken", "try"),
    }
    return Stage(one, other, runs)


def called(node: Daemon, name: str, text: str, **more: Any) -> str:
    """Call an agent, however it ends, and return the run."""
    _, answer = node.ask("POST", "/api/v1/calls", {"to": name, "text": text, **more})
    return str(answer.get("run_id") or answer.get("extra", {}).get("run_id", ""))
