"""The public names of ``agentmesh``: pinned, documented, and loaded on first use only."""

from __future__ import annotations

import importlib
import inspect
import json
import subprocess
import sys

import pytest

import agentmesh

PUBLIC = [
    "Agent",
    "AgentMessage",
    "AgentNetwork",
    "AgentView",
    "Context",
    "DistributedState",
    "Event",
    "EventV1",
    "Mesh",
    "MeshError",
    "Message",
    "PeerView",
    "Reply",
    "StatusView",
    "SyncMesh",
    "TraceView",
    "__version__",
    "agent",
    "run",
]
#: What no one pays for who only wants a version, a type or an error.
HEAVY = {
    "a2a",
    "aiohttp",
    "asyncio",
    "cryptography",
    "httpx",
    "iroh",
    "mcp",
    "msgspec",
    "nacl",
    "numpy",
    "pydantic",
    "rich",
    "sqlite3",
    "starlette",
    "typer",
    "uvicorn",
    "websockets",
    "zeroconf",
}


def loaded_after(code: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter holds after ``code``."""
    script = f"{code}\nimport json, sys\nprint(json.dumps(sorted({{m.split('.')[0] for m in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    return set(json.loads(done.stdout))


def test_public_names_are_the_ones_we_promised() -> None:
    assert sorted(agentmesh.__all__) == sorted(PUBLIC)
    assert set(dir(agentmesh)) == set(PUBLIC)


@pytest.mark.parametrize("name", [name for name in PUBLIC if name != "__version__"])
def test_public_name_loads_and_has_a_docstring(name: str) -> None:
    value = getattr(agentmesh, name)
    assert inspect.getdoc(value), f"{name} has no docstring"
    assert importlib.import_module(value.__module__).__name__.startswith("agentmesh.")


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        agentmesh.nonsense  # noqa: B018


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert not loaded_after("import agentmesh; agentmesh.__version__") & HEAVY


def test_importing_the_errors_loads_nothing_heavy() -> None:
    assert not loaded_after("from agentmesh import MeshError") & HEAVY


def test_version_has_one_home() -> None:
    from importlib.metadata import version

    assert version("agentmeshd") == agentmesh.__version__
