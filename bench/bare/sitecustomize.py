"""Take the verification of calls out of a daemon, to measure what it costs. Python loads this file by its name when the directory
is on the path, which only ``bench.verify`` does, for one pair of daemons of its own.
"""

from __future__ import annotations

import sys
from typing import Any

if "agentmesh.daemon" in " ".join(sys.orig_argv):
    from agentmesh.identity.token import CallClaims, CallToken
    from agentmesh.node import callee, proof
    from agentmesh.store.calls import CallStore

    def _blank(message: Any) -> CallToken:
        claims = CallClaims(
            jti="", htm="", htu="", iat=0, exp=0, aud=message.agent_id, purpose="", skill="", digest="",
            idem=message.task_id, trace_id=message.run_id,
        )  # fmt: skip
        return CallToken(message.caller, claims, "")

    def _sign(_self: Any, message: Any, *_more: Any) -> CallToken:
        return _blank(message)

    def _admit(_self: Any, _peer: Any, message: Any, *_more: Any) -> CallToken:
        return _blank(message)

    def _nothing(*_args: Any) -> None:
        return None

    def _no_text(*_args: Any) -> str:
        return ""

    _made = callee.Callee.__init__

    def _without_checks(self: Any, *args: Any, **named: Any) -> None:
        _made(self, *args, **{**named, "checks": (), "recorders": ()})

    proof.Proofs.sign, proof.Proofs.admit = _sign, _admit  # type: ignore[method-assign, assignment]
    proof.Proofs.attest, proof.Proofs.accept = _no_text, _nothing  # type: ignore[method-assign, assignment]
    proof.Witness.add = _nothing  # type: ignore[method-assign, assignment]
    CallStore.receipt_of = _nothing  # type: ignore[method-assign, assignment]
    callee.Callee.__init__ = _without_checks  # type: ignore[method-assign]
