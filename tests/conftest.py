"""What every test gets: a home of its own, no colours, no way out of this machine, and real daemons on request."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Generator, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.support import wheel
from tests.support.daemons import Daemon, Mesh

# The machine that runs the tests may be busy: a slow example is no failure, and every failure prints how to repeat it.
settings.register_profile(
    "house", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow], database=None
)
settings.load_profile("house")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the long runs to ``make soak``, and begin with what takes longest, so that no worker is left alone with it."""
    items.sort(key=_patience, reverse=True)
    if os.environ.get("AGENTMESH_SOAK"):
        return
    soak = [item for item in items if "soak" in item.keywords]
    if soak:
        config.hook.pytest_deselected(items=soak)
        items[:] = [item for item in items if "soak" not in item.keywords]


def _patience(item: pytest.Item) -> float:
    """Return how long a test may take, seconds, if it says so; most do not."""
    marker = item.get_closest_marker("timeout")
    return float(marker.args[0]) if marker is not None and marker.args else 0.0


# A shell starts background jobs with Ctrl-C ignored, and every process below inherits that; the tests send Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Spell what cannot be UTF-8 in captured output: tests log hostile texts, and workers report over a UTF-8 pipe."""
    report = yield
    report.sections = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]
    return report


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each test an AGENTMESH_HOME that no one else uses, so that it never meets the node of whoever runs it."""
    for name in list(os.environ):
        if name.startswith("AGENTMESH_") and name != "AGENTMESH_SOAK":
            monkeypatch.delenv(name)
    monkeypatch.setenv("AGENTMESH_HOME", str(tmp_path_factory.mktemp("home")))
    monkeypatch.setenv("NO_COLOR", "1")


@pytest.fixture(autouse=True)
def _loopback_only(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse every TCP connection of the test's own process that would leave this machine."""
    if request.node.get_closest_marker("multicast"):
        return
    real = socket.socket.connect

    def connect(self: socket.socket, address: Any) -> Any:
        if self.family in (socket.AF_INET, socket.AF_INET6) and self.type & socket.SOCK_STREAM:
            host = str(address[0])
            if host != "localhost" and not ip_address(host.split("%")[0]).is_loopback:
                raise AssertionError(f"a test wanted to connect to {host}; tests stay on loopback")
        return real(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect)


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[Mesh]:
    """Start real daemons with ``mesh.node(name)``; all are stopped afterwards."""
    daemons = Mesh(tmp_path)
    try:
        yield daemons
    finally:
        daemons.aclose()


@pytest.fixture(scope="session")
def wheel_bin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``bin`` of an environment into which the freshly built wheel was installed."""
    root = tmp_path_factory.mktemp("wheel")
    return wheel.install(wheel.build(root), root / "env")


@pytest.fixture
def two_nodes(mesh: Mesh) -> tuple[Daemon, Daemon]:
    """Two real daemons on loopback that see each other."""
    return mesh.pair()
