"""``agentmesh peers`` and ``agentmesh peers add SEED``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentmesh.cli import i18n
from agentmesh.cli.output import Output, Styled, age, clip
from agentmesh.cli.verb import built, group, new_app, verb

if TYPE_CHECKING:
    from agentmesh.wire.net_views import PeerView
    from agentmesh.wire.views import StatusView

#: Columns from which every column is shown; a narrower terminal gets the six that matter most.
_WIDE = 120
_ROLES = {"zone": "zone mate", "long": "long link", "link": "linked", "known": "known"}
_LOOKS = {"alive": "ok", "suspect": "warn", "dead": "fail", "left": "dim", "unreached": "fail"}


def peers(out: Output) -> None:
    """List the other nodes that this node knows: zone mates, long links, then the rest.

    \b
    agentmesh peers
    agentmesh peers --json | jq '.peers[] | select(.role == "zone")'
    agentmesh peers add did:key:z6Mk…@192.0.2.7:6374
    """
    from agentmesh.cli.connect import connect

    with connect(out) as mesh:
        found = mesh.peers()
        status = None if out.json else mesh.status()
    _show(out, found, status)


def add(
    out: Output,
    seeds: Annotated[list[str], typer.Argument(help="What 'agentmesh status' on the other machine shows as its seed.")],
) -> None:
    """Connect to a node by its seed.

    \b
    agentmesh peers add did:key:z6Mk…@192.0.2.7:6374

    For this session of the daemon; 'agentmesh config set seeds …' keeps it.
    """
    from agentmesh.cli.connect import connect
    from agentmesh.daemon.settings import check_seed

    for seed in seeds:
        check_seed(seed)
    with connect(out) as mesh:
        mesh.add_seeds(seeds)
        found = mesh.peers()
    _show(out, found, None)
    out.next("agentmesh peers", i18n.t("connecting"))


def _show(out: Output, found: Sequence[PeerView], status: StatusView | None) -> None:
    if out.json:
        from agentmesh.cli.commands.up import as_dict

        out.data({"peers": [as_dict(peer) for peer in found]})
        return
    if not found:
        seed = status.seed if status is not None else ""
        out.note(i18n.t("no other nodes yet"))
        out.next(f"agentmesh peers add {seed or 'SEED'}" + ("   on the other machine" if seed else ""))
        return
    if out.width >= _WIDE:
        head = ["NODE", "ID", "ZONE", "ROLE", "STATE", "PATH", "RTT", "AGENTS", "ADDRESS", "SOURCE", "VERSION"]
        out.table(head, [_wide_row(peer) for peer in found])
    else:
        out.table(["NODE", "ROLE", "STATE", "PATH", "RTT", "AGENTS"], [_narrow_row(peer) for peer in found])
    if status is not None:
        from agentmesh.cli.commands.status import cut_off_text, zone_text

        if status.zone:
            out.note(zone_text(status))
        if status.cut_off is not None:
            out.note(("! ", "warn"), cut_off_text(status.cut_off))


def _narrow_row(peer: PeerView) -> list[Styled]:
    return [
        (clip(peer.node_name, 16) or "-", "name"),
        _ROLES[peer.role],
        _state(peer, 20),
        peer.path if peer.path and peer.state != "unreached" else "-",
        _rtt(peer),
        str(peer.agents),
    ]


def _wide_row(peer: PeerView) -> list[Styled]:
    from agentmesh.ids import short

    way = f"{peer.path} {peer.scheme}" if peer.connected else peer.path
    return [
        (clip(peer.node_name, 24) or "-", "name"),
        short(peer.node_id),
        clip(peer.zone, 24) or "-",
        _ROLES[peer.role],
        _state(peer, 44),
        way or "-",
        _rtt(peer),
        str(peer.agents),
        clip(peer.address, 40) or "-",
        peer.source or "-",
        clip(peer.version, 16) or "-",
    ]


def _state(peer: PeerView, width: int) -> Styled:
    """Return how a peer is: since when it is suspected, and why it could not be reached."""
    if peer.state == "suspect" and peer.suspect_s is not None:
        return f"suspect {age(peer.suspect_s)}", "warn"
    if peer.state == "unreached" and peer.last_error:
        return clip(f"unreached: {peer.last_error}", width), "fail"
    return peer.state, _LOOKS[peer.state]


def _rtt(peer: PeerView) -> str:
    return f"{peer.rtt_ms:.1f} ms" if peer.rtt_ms is not None else "-"


def build() -> Any:
    """Return the group."""
    app = new_app(context_settings={"help_option_names": ["-h", "--help"]})
    app.callback(invoke_without_command=True)(group(peers))
    app.command("add")(verb(add))
    return built(app)
