"""``agentmesh peers`` and ``agentmesh peers add SEED``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentmesh.cli import i18n
from agentmesh.cli.output import Output, Styled, clip
from agentmesh.cli.verb import built, group, new_app, verb

if TYPE_CHECKING:
    from agentmesh.wire.views import PeerView


def peers(out: Output) -> None:
    """List the other nodes that this node knows.

    \b
    agentmesh peers
    agentmesh peers add did:key:z6Mk…@192.0.2.7:6374
    """
    from agentmesh.cli.connect import connect

    with connect(out) as mesh:
        found = mesh.peers()
        seed = "" if found or out.json else mesh.status().seed
    _show(out, found, seed)


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
    _show(out, found, "")
    out.next("agentmesh peers", i18n.t("connecting"))


def _show(out: Output, found: Sequence[PeerView], seed: str) -> None:
    if out.json:
        from agentmesh.cli.commands.up import as_dict

        out.data({"peers": [as_dict(peer) for peer in found]})
        return
    if not found:
        out.note(i18n.t("no other nodes yet"))
        out.next(f"agentmesh peers add {seed or 'SEED'}" + ("   on the other machine" if seed else ""))
        return
    out.table(["NODE", "ID", "LINK", "PATH", "RTT", "AGENTS", "SOURCE", "VERSION"], [_row(peer) for peer in found])


def _row(peer: PeerView) -> list[Styled]:
    from agentmesh.ids import short

    link: Styled = ("up " + peer.scheme, "ok") if peer.connected else ("down", "fail")
    if not peer.connected and peer.last_error:
        link = (f"down: {clip(peer.last_error, 40)}", "fail")
    return [
        (clip(peer.node_name, 24) or "-", "name"),
        short(peer.node_id),
        link,
        peer.path or "-",
        f"{peer.rtt_ms:.1f} ms" if peer.rtt_ms is not None else "-",
        str(peer.agents),
        peer.source or "-",
        clip(peer.version, 16) or "-",
    ]


def build() -> Any:
    """Return the group."""
    app = new_app(context_settings={"help_option_names": ["-h", "--help"]})
    app.callback(invoke_without_command=True)(group(peers))
    app.command("add")(verb(add))
    return built(app)
