"""The parts of a node that carry calls, put together: those that serve, and those that start and send."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from agentmesh.errors import MeshError, ReadOnly
from agentmesh.identity.manifest import Manifest
from agentmesh.ids import NodeId
from agentmesh.net.tasks import TaskScope
from agentmesh.node.callee import Callee, Check, Recorder, Watcher
from agentmesh.node.calls import Calls, CallWatcher, Outward, TryWatcher
from agentmesh.node.config import NodeConfig
from agentmesh.node.grants import Grants
from agentmesh.node.incoming import Incoming
from agentmesh.node.killswitch import KillSwitch
from agentmesh.node.mesh import Mesh
from agentmesh.node.orders import Orders, Revocations
from agentmesh.node.presented import TokenCalls
from agentmesh.node.proof import Proofs
from agentmesh.node.pulse import Pulse
from agentmesh.node.record import RunClocks
from agentmesh.node.registry import Registry
from agentmesh.node.remote import Remote
from agentmesh.node.resolve import Directory
from agentmesh.node.routes import Routes
from agentmesh.node.trust import Trust
from agentmesh.store.calls import CallStore
from agentmesh.store.eventlog import EventLog


class WatchesAll(Watcher, CallWatcher, Protocol):
    """Is told of all calls at a node."""


def assemble(
    proofs: Proofs,
    config: NodeConfig,
    registry: Registry,
    grants: Grants,
    mesh: Mesh,
    call_store: CallStore,
    log: EventLog,
    scope: TaskScope,
    orders: Orders,
    switch: KillSwitch,
    *,
    checks: Sequence[Check],
    recorders: Sequence[Recorder],
    watchers: Sequence[WatchesAll],
    outward: Outward,
    tries: TryWatcher,
    trust: Trust,
    name_of: Callable[[str], str],
    site_of: Callable[[NodeId], str],
    directory: Directory,
    tenant_of: Callable[[str], str],
    may_leave: Callable[[str, Manifest], MeshError | None],
) -> tuple[Incoming, Calls, TokenCalls]:
    """Return what serves calls that arrive, what starts those of programs beside this node, and what serves those that such
    programs bring with a token of their own.

    Args:
        proofs, config, registry, grants, mesh, call_store, log: Parts of the node.
        scope: Owns the tasks of calls.
        orders, switch: Say which keys are revoked, and whether this node may work at all; asked before all other checks.
        checks, recorders: Of calls at agents beside this node (``node.callee``).
        watchers: Told of every call that is over, here or at the agents beside this node.
        outward, tries: Told of every call that leaves.
        trust: Told how those went, and asked whom to rely on.
        name_of, site_of: Node id → name for people, and the site that it says it is at.
        tenant_of: Task id → the tenant that it belongs to; "" for one that is free.
        may_leave: A caller here and an agent elsewhere → why own policy keeps the call in; None if it does not.
        directory: The agents that calls may go to.
    """
    clocks = RunClocks()
    checks = (switch, Revocations(orders), *checks)
    callee = Callee(
        config, registry, proofs, grants, call_store, log, checks=checks, recorders=recorders, watchers=watchers
    )
    incoming = Incoming(mesh.node_id, callee, proofs, log, scope, clocks)
    remote = Remote(
        config,
        mesh.links,
        log,
        proofs,
        contact_of=mesh.contact_of,
        name_of=name_of,
        on_misbehaved=mesh.note_misbehaviour,
    )
    calls = Calls(
        mesh.node_id,
        config,
        registry,
        remote,
        callee,
        proofs,
        log,
        scope,
        clocks,
        directory=directory,
        name_of=name_of,
        routes=Routes(mesh.links, config.site, site_of),
        pulse=Pulse(mesh.links, scope, remote.note_silence),
        trust_of=trust.reliance,
        outward=outward,
        watchers=watchers,
        tries=tries,
        on_outcome=trust.note_outcome,
        gate=switch.refuse,
        refusal_of=orders.refusal_of,
        may_leave=may_leave,
    )
    token_calls = TokenCalls(
        mesh.node_id, config, callee, call_store, log, scope, clocks, tenant_of=tenant_of, checks=proofs.checks
    )

    def stop(error: ReadOnly) -> None:
        calls.halt(error)
        token_calls.halt(error)

    switch.on_stop = stop
    return incoming, calls, token_calls
