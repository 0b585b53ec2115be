"""What this node writes into its audit log: calls at its agents, calls that they make, and changes (docs/spec/audit.md §4).

It is a check and a recorder of every call (``node.callee``): the last check before the work notes in the journal that it
begins, and refuses it if that is not possible; the recorder waits until its record is on disk, and the outcome is told after.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from agentmesh.errors import MeshError, StoreError, problem_type
from agentmesh.identity.audit_record import UNDO_BYTES_MAX, Decision, body_of, ended_body
from agentmesh.identity.claims import hash_of
from agentmesh.ids import NodeId
from agentmesh.node.attempt import Attempt, Untouched
from agentmesh.node.callee import Ended, Visit
from agentmesh.node.floods import Flood, Floods
from agentmesh.store.audit import AuditLog, time_of
from agentmesh.wire import v1
from agentmesh.wire.views import CallRequest

_log = logging.getLogger("agentmesh.audit")


class Audit:
    """Record what happens at one node. It cannot be turned off.

    Args:
        node_id: This node.
        log: Where records go; open, and not closed here.
    """

    def __init__(self, node_id: NodeId, log: AuditLog) -> None:
        self._node_id, self.log = node_id, log
        self._begun: dict[Visit, tuple[int, dict[str, Any]]] = {}
        self._gone_out: dict[int, dict[str, Any]] = {}
        self._floods = Floods(self._flood_begins, lambda flood: log.write_soon(self._body_of_flood(flood), flood.begun))

    @property
    def warnings(self) -> list[str]:
        """What people should know of the log."""
        return self.log.sentences

    # Calls at agents beside this node

    async def enter(self, visit: Visit) -> None:
        """Note that the call begins. Raises StoreError: it could not be recorded, so it must not run."""
        body = _body_of_visit(visit, "allowed")
        self._begun[visit] = self.log.begin(body), body

    def leave(self, visit: Visit, ended: Ended) -> None:
        """Nothing was taken."""

    async def ended(self, visit: Visit, ended: Ended) -> None:
        """Record how a call ended; a refusal is told even if it cannot be recorded, for no work was done. Raises StoreError."""
        begun, body = self._begun.pop(visit, (None, None))
        refused = ended.state == "rejected"
        story = visit.witness
        members: dict[str, Any] = {
            "outcome": ended.state,
            "res_digest": story.digest,
            "receipt": hash_of(ended.receipt) if ended.receipt else None,
            "remediation": {"undo": _within(story.undo)} if story.undo else None,
            "again": True if begun is None and not refused else None,
            **_problem(ended.error),
        }
        decision: Decision = "refused" if refused else "allowed"
        members["budget"] = _budget(visit, refused=refused)
        whole = (
            ended_body(body, decision, time=_now(), **members) if body else _body_of_visit(visit, decision, **members)
        )
        try:
            await self.log.write(whole, begun)
        except StoreError:
            if not refused:
                raise

    async def turned_away(self, peer: NodeId, message: v1.CallOpen, error: MeshError) -> None:
        """Record a call whose token does not hold; what it says of its caller is a claim. Never raises.

        Those of one peer in one minute, beyond the first ones, stand together in one record (``node.floods``).
        """
        if not self._floods.note(peer, error.code, message.agent_id):
            return
        body = body_of(
            "call",
            "refused",
            agent=peer,
            resource=message.agent_id,
            time=_now(),
            traceparent=message.traceparent,
            claimed=message.caller,
            skill=message.skill,
            task=message.task_id,
            txn=message.run_id,
            outcome="rejected",
            proof=hash_of(message.token) if message.token else None,
            **_problem(error),
        )
        await self._write_refusal(body)

    def close(self) -> None:
        """Record what was counted and not recorded yet; the log is closed elsewhere. Idempotent."""
        self._floods.close()

    def _flood_begins(self, flood: Flood) -> int | None:
        try:
            return self.log.begin(self._body_of_flood(flood))
        except StoreError:
            return None

    def _body_of_flood(self, flood: Flood) -> dict[str, Any]:
        return body_of(
            "call",
            "refused",
            agent=flood.peer,
            resource="*",
            time=_now(),
            outcome="rejected",
            task=flood.task,
            count=flood.count,
            reasons=dict(flood.reasons),
            callees=list(flood.callees),
        )

    # Calls that start here and go elsewhere

    def calling(self, attempt: Attempt) -> int:
        """Note that a call goes out. Raises StoreError: it could not be recorded, so it must not go."""
        body = self._body_out(attempt, "allowed")
        begun = self.log.begin(body)
        self._gone_out[begun] = body
        return begun

    def called(self, begun: int, attempt: Attempt, error: BaseException | None) -> None:
        """Record how a call that went out ended; its beginning stands in the journal, so nobody waits. Never raises."""
        reason = error.reason if isinstance(error, Untouched) else error
        known = reason if isinstance(reason, MeshError) else None
        state = attempt.state or ("canceled" if error is not None and known is None else "failed")
        outcome = "unreached" if isinstance(error, Untouched) else state
        refused = outcome == "rejected" or (known is not None and problem_type(known) in _REFUSALS)
        members: dict[str, Any] = {
            "outcome": outcome,
            "receipt": hash_of(attempt.receipt) if attempt.receipt else None,
            **_problem(known),
        }
        decision: Decision = "refused" if refused else "allowed"
        body = self._gone_out.pop(begun, None) or self._body_out(attempt, decision)
        self.log.write_soon(ended_body(body, decision, time=_now(), **members), begun)

    async def refused(self, request: CallRequest, error: MeshError) -> None:
        """Record a call that was refused here before it went anywhere. Never raises: nothing was done."""
        body = body_of(
            "call.out",
            "refused",
            agent=self._node_id,
            resource=request.to,
            time=_now(),
            traceparent=request.traceparent,
            claimed=request.from_agent,
            skill=request.skill,
            purpose=request.purpose,
            task=request.task_id,
            txn=request.run_id,
            outcome="rejected",
            **_problem(error),
        )
        await self._write_refusal(body)

    async def _write_refusal(self, body: dict[str, Any]) -> None:
        try:
            await self.log.write(body)
        except StoreError as failure:
            _log.error("a refusal cannot be recorded: %s", failure)

    def _body_out(self, attempt: Attempt, decision: Decision) -> dict[str, Any]:
        message, manifest = attempt.message, attempt.candidate.entry.manifest
        hops = message.hops
        caller = message.caller or self._node_id
        return body_of(
            "call.out",
            decision,
            agent=caller,
            resource=message.agent_id,
            time=_now(),
            traceparent=message.traceparent,
            delegated_subject=hops[0] if hops and hops[0] != caller else None,
            node=manifest.node_id,
            name=manifest.name,
            skill=message.skill,
            purpose=message.purpose,
            task=message.task_id,
            txn=message.run_id,
        )

    # Changes

    async def note(
        self, action: str, resource: str, decision: Decision = "allowed", *, agent: str = "", **members: Any
    ) -> int:
        """Record a change at this node and wait until it is on disk; return its place in the log.

        Args:
            action: What was asked for; one of ``identity.audit_record.ACTIONS``.
            resource: Of what.
            decision: Whether it was allowed.
            agent: did:key of who asked; this node, for the people beside it, by default.
            members: Further members of the record, JSON without floats.

        Raises:
            StoreError: it is not on disk.
        """
        return await self.log.write(self._change(action, resource, decision, agent, members))

    def note_soon(
        self, action: str, resource: str, decision: Decision = "allowed", *, agent: str = "", **members: Any
    ) -> None:
        """Record a change that has happened already; nobody waits. Never raises."""
        self.log.write_soon(self._change(action, resource, decision, agent, members))

    def _change(
        self, action: str, resource: str, decision: Decision, agent: str, members: dict[str, Any]
    ) -> dict[str, Any]:
        return body_of(action, decision, agent=agent or self._node_id, resource=resource, time=_now(), **members)


#: Problems that are a lawful no, as those of calls that went out.
_REFUSALS = frozenset(
    f"/problems/{name}"
    for name in ("unauthorized", "budget", "trust", "busy", "loop", "read_only", "replay", "signature")
)


def _body_of_visit(visit: Visit, decision: Decision, **members: Any) -> dict[str, Any]:
    token, message = visit.token, visit.message
    claims = token.claims
    return body_of(
        "call",
        decision,
        agent=token.caller,
        resource=message.agent_id,
        time=_now(),
        traceparent=message.traceparent,
        **{
            "delegated_subject": claims.hops[0] if claims.hops and claims.hops[0] != token.caller else None,
            "node": visit.peer,
            "name": visit.agent.manifest.name,
            "skill": message.skill,
            "purpose": claims.purpose,
            "task": message.task_id,
            "txn": claims.trace_id,
            "jti": claims.jti,
            "proof": token.hash,
            "grant": claims.ath,
            "req_digest": claims.digest,
            "budget": _budget(visit, refused=True),
            **members,
            **visit.facts,
        },
    )


def _budget(visit: Visit, *, refused: bool) -> dict[str, Any]:
    """Return what the call might use, and what it did use, if there was anything to use it for."""
    budget: dict[str, Any] = {}
    if asked := visit.token.claims.budget.to_claim():
        budget["asked"] = asked
    if not refused:
        budget["charged"] = visit.witness.spent.to_claim()
    return budget


def _within(undo: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return as many remarks as fit, the first ones first."""
    kept: list[dict[str, Any]] = []
    room = 2 * UNDO_BYTES_MAX
    for one in undo:
        room -= len(str(one).encode("utf-8", "replace"))
        if room < 0:
            break
        kept.append(one)
    return kept


def _problem(error: MeshError | None) -> dict[str, Any]:
    """Return why, without the words of an agent: they may be part of an answer."""
    return {} if error is None else {"problem": problem_type(error), "code": error.code}


def _now() -> str:
    return time_of(time.time_ns() // 1000)
