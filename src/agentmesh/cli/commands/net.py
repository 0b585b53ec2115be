"""``agentmesh net``: the shape of the mesh."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agentmesh.cli import i18n
from agentmesh.cli.output import Output, clip
from agentmesh.cli.verb import single

if TYPE_CHECKING:
    from agentmesh.wire.net_views import NetView

_ZONES_SHOWN = 12
_NAMES_SHOWN = 24
#: As ``node.survey`` has them, which the CLI does not load.
_FEW_NODES, _TAIL_NODES = 10, 100


def net(out: Output) -> None:
    """Show the shape of the mesh: how clustered it is, how far nodes are apart, how links are spread, which zones there are.

    \b
    agentmesh net
    agentmesh net --json | jq '.clustering, .path_length'

    A node knows only its own neighbours, so it asks node after node, at most 512 of them and for about five seconds. C is the
    share of a node's neighbours that are neighbours of each other, L the mean number of links between two nodes.
    """
    from agentmesh.cli.connect import connect

    with connect(out) as mesh:
        out.waiting(i18n.t("asking the mesh"))(1.0)
        view = mesh.net()
    out.clear_status()
    if out.json:
        from agentmesh.cli.commands.up import as_dict

        out.data(as_dict(view))
        return
    show(out, view)


def show(out: Output, view: NetView) -> None:
    """Print a survey."""
    reach = i18n.t(
        "{asked} asked, {answered} answered · {edges} links · {parts} part(s)",
        asked=view.asked,
        answered=view.answered,
        edges=view.edges,
        parts=view.components,
    )
    out.check("ok" if view.components == 1 else "warn", "nodes", f"{reach}   {view.seconds:.1f} s")
    if view.clustering is not None and view.path_length is not None:
        out.check("ok", "clustering", f"C = {view.clustering:.3f}")
        out.check("ok", "path", f"L = {view.path_length:.2f}")
    tail = i18n.t("needs {nodes} nodes", nodes=_TAIL_NODES)
    if view.tail_exponent is not None and view.tail_fit is not None:
        tail = f"{view.tail_exponent:.2f} (fit {view.tail_fit:.3f})"
    out.check("ok", "degree", f"p50 {view.degree_p50} · p99 {view.degree_p99} · max {view.degree_max} · tail {tail}")
    zones = [f"{name or '/'} {count}" for name, count in view.zones.items()]
    more = f" … +{len(zones) - _ZONES_SHOWN}" if len(zones) > _ZONES_SHOWN else ""
    out.check("ok", "zones", f"{len(zones)}: {' · '.join(zones[:_ZONES_SHOWN])}{more}")
    names = {one.node_id: one.node_name for one in view.map}
    near = [clip(names.get(node, node), 24) for node in view.neighbours]
    more = f" … +{len(near) - _NAMES_SHOWN}" if len(near) > _NAMES_SHOWN else ""
    out.check("ok", "neighbours", f"{len(near)}: {', '.join(near[:_NAMES_SHOWN])}{more}" if near else "-")
    if view.nodes < _FEW_NODES:
        out.check("warn", "few nodes", i18n.t("with {nodes} nodes, C, L and degrees say nothing yet", nodes=view.nodes))
    if not view.complete:
        out.check("warn", "partial", i18n.t("the survey stopped at its limit; there are more nodes"))


def build() -> Any:
    """Return the command."""
    return single(net)
