"""Two fresh machines on one LAN segment find each other by themselves: real daemons, real mDNS, every default."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.lan import lan, why_not

pytestmark = [pytest.mark.e2e, pytest.mark.multicast]


def test_two_fresh_nodes_on_one_segment_see_and_call_each_others_agents(tmp_path: Path) -> None:
    if reason := why_not():
        pytest.skip(reason)
    with lan(tmp_path) as (anna, ben):
        anna.start_daemon("anna")
        ben.start_daemon("ben")
        anna.start_agent("agentmesh.sdk.toys.echo")
        ben.seconds_until_it_sees("echo")
        reply = json.loads(ben.cli("run", "--to", "echo", "over the wire", "--json"))
        assert (reply["text"], reply["path"]) == ("over the wire", "direct")
        peers = json.loads(ben.cli("peers", "--json"))["peers"]
        assert [(p["node_name"], p["connected"]) for p in peers] == [("anna", True)]
        assert "mdns" in json.loads(ben.cli("status", "--json"))["discovery"]
