"""doctor: what it finds in a home, a configuration and a mesh that are not well."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentmesh.cli import checks
from agentmesh.cli.output import Output
from agentmesh.daemon.home import Home
from agentmesh.wire.net_views import CutOffView, PeerView
from agentmesh.wire.views import StatusView
from tests.support.vectors import VectorServer, answer


def marks(home: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Return the marks of every check by its name, without a daemon and without multicast."""
    monkeypatch.setenv("AGENTMESH_HOME", str(home))
    monkeypatch.setenv("AGENTMESH_MDNS", "off")
    found: dict[str, list[str]] = {}
    for finding in checks.all_checks(Output()):
        assert finding.mark == "ok" or finding.next or finding.name in ("transport", "version", "port"), finding
        found.setdefault(finding.name, []).append(finding.mark)
    return found


def test_a_machine_without_a_home_is_well_but_for_the_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = marks(tmp_path / "none", monkeypatch)
    assert found["daemon"] == ["warn"]
    assert all(m == ["ok"] for name, m in found.items() if name not in ("daemon", "transport", "config"))
    assert not (tmp_path / "none").exists(), "doctor changes nothing"


def test_open_keys_and_an_open_home_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home(tmp_path / "home")
    home.prepare()
    home.api_token.write_text("secret")
    home.api_token.chmod(0o640)
    home.path.chmod(0o755)
    found = marks(home.path, monkeypatch)
    assert found["keys"] == ["fail"]
    assert found["home"] == ["warn"]


def test_a_newer_home_and_a_broken_config_are_failures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home_version").write_text("99\n")
    assert marks(tmp_path, monkeypatch)["home"] == ["fail"]
    (tmp_path / "home_version").write_text("1\n")
    (tmp_path / "config.toml").write_text("port = [")
    assert marks(tmp_path, monkeypatch)["config"][0] == "fail"


def test_an_environment_variable_that_is_no_setting_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTMESH_PROT", "1")
    assert marks(tmp_path, monkeypatch)["config"] == ["ok", "warn"]


def test_searches_are_answered_by_the_built_in_embedder_unless_more_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert marks(tmp_path, monkeypatch)["embedder"] == ["ok"]
    monkeypatch.setenv("AGENTMESH_EMBEDDER", "minilm")
    assert marks(tmp_path, monkeypatch)["embedder"] == ["warn"]
    with VectorServer() as server:
        monkeypatch.setenv("AGENTMESH_EMBEDDER", server.address)
        assert marks(tmp_path, monkeypatch)["embedder"] == ["ok"]
        server.behaviour = lambda _asked, _sock: answer(404, b"no such model")
        assert marks(tmp_path, monkeypatch)["embedder"] == ["warn"]
    assert marks(tmp_path, monkeypatch)["embedder"] == ["warn"]


def test_a_wrong_clock_and_an_old_peer_are_found() -> None:
    status = StatusView(
        node_id="n", node_name="n", pid=1, port=1, version="2", uptime_s=1, rss_bytes=1, peers=3, agents=0
    )
    peers = [
        PeerView(node_id="a", node_name="hour", connected=True, version="2", clock_skew_s=-3600),
        PeerView(node_id="b", node_name="old", connected=True, version="1", clock_skew_s=1),
        PeerView(node_id="c", node_name="away", version="1", clock_skew_s=9999),
    ]
    found = list(checks.peer_findings(status, peers))
    assert [(f.mark, f.name) for f in found] == [("ok", "peers"), ("fail", "clock"), ("warn", "version")]
    assert "hour" in found[1].text
    assert "old" in found[2].text
    assert [f.name for f in checks.peer_findings(status, peers[1:2])] == ["peers", "version", "clock"]


def test_a_node_that_is_cut_off_is_a_finding_with_a_next_step() -> None:
    status = StatusView(
        node_id="n", node_name="n", pid=1, port=1, version="2", uptime_s=1, rss_bytes=1, peers=0, agents=0,
        cut_off=CutOffView(lost=3, known=4, since=0.0),
    )  # fmt: skip
    found = [f for f in checks.peer_findings(status, []) if f.mark == "warn"]
    assert "cut off: 3 of 4 known nodes" in found[0].text
    assert found[0].next == "agentmesh peers"
