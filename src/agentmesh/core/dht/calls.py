"""Questions under way: who was asked, until when, and who reads the answer (docs/spec/dht.md §3.2)."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from agentmesh.core.dht.config import DhtConfig
from agentmesh.core.dht.messages import Check, Checked, FindNode, FindReply, FindValue, Store, Stored
from agentmesh.core.machine import Outbox, PeerMisbehaved, Timer
from agentmesh.ids import NodeId

LATE = "dht.late"
FAILED = "dht.failed"
Question = FindNode | FindValue | Store | Check
Answer = FindReply | Stored | Checked
#: Reads the answer, or None when there was none in time.
Done = Callable[[Any, float, Outbox], None]
Late = Callable[[float, Outbox], None]
_ANSWER_OF: dict[type, type] = {FindNode: FindReply, FindValue: FindReply, Store: Stored, Check: Checked}
#: Until a round trip was measured, an answer is late after so many seconds (the brief of RN §2.3).
_SLOW_S_FIRST = 0.2


class _Call:
    __slots__ = ("addresses", "answer", "done", "late", "node", "sent_s")

    def __init__(
        self, node: NodeId, addresses: tuple[str, ...], sent_s: float, answer: type, done: Done, late: Late | None
    ) -> None:
        self.node, self.addresses, self.sent_s, self.answer = node, addresses, sent_s, answer
        self.done, self.late = done, late


class Calls:
    """The questions of one node.

    Args:
        config: Timeouts.
        rng: For unguessable rpc numbers.
        heard: Told of every node that answered: (node, where it was asked, answer, now_s, out).
        silent: Told of every node that did not: (node, now_s, out).
    """

    __slots__ = ("_config", "_deviation_s", "_heard", "_mean_s", "_rng", "_silent", "at", "under_way")

    def __init__(
        self,
        config: DhtConfig,
        rng: random.Random,
        heard: Callable[[NodeId, tuple[str, ...], Answer, float, Outbox], None],
        silent: Callable[[NodeId, float, Outbox], None],
    ) -> None:
        self.under_way: dict[int, _Call] = {}
        #: Our own address, told with every question.
        self.at = ""
        self._config, self._rng, self._heard, self._silent = config, rng, heard, silent
        self._mean_s = self._deviation_s = 0.0

    @property
    def slow_s(self) -> float:
        """After how many seconds a question is late: mean round trip + 4 deviations (RFC 6298), within the bounds."""
        if not self._mean_s:
            return _SLOW_S_FIRST
        late_s = self._mean_s + 4 * self._deviation_s
        return min(self._config.slow_s_max, max(self._config.slow_s_min, late_s))

    def ask(
        self,
        node: NodeId,
        question: Question,
        addresses: tuple[str, ...],
        now_s: float,
        out: Outbox,
        done: Done,
        late: Late | None = None,
    ) -> None:
        """Send a question; ``done`` is called once, ``late`` at most once and before it."""
        rpc = self._rng.getrandbits(53)
        while rpc in self.under_way:
            rpc = self._rng.getrandbits(53)
        question.rpc = rpc
        question.at = self.at
        self.under_way[rpc] = _Call(node, addresses, now_s, _ANSWER_OF[type(question)], done, late)
        out.send(node, question, addresses)
        if late is not None:
            out.after(self.slow_s, Timer(LATE, rpc))
        else:
            out.after(self._config.rpc_timeout_s, Timer(FAILED, rpc))

    def on_answer(self, peer: NodeId, answer: Answer, now_s: float, out: Outbox) -> None:
        """Hand an answer to who asked; one that nobody waits for is late or doubled, and ignored."""
        call = self.under_way.get(answer.rpc)
        if call is None:
            return
        if call.node != peer or type(answer) is not call.answer:
            out.emit(
                PeerMisbehaved(peer, "dht.answer", "an answer to a question that was put to another, or was another")
            )
            return
        del self.under_way[answer.rpc]
        self._measure(now_s - call.sent_s)
        self._heard(peer, call.addresses, answer, now_s, out)
        call.done(answer, now_s, out)

    def on_timer(self, timer: Timer, now_s: float, out: Outbox) -> None:
        """Call a question late, or failed; it may have been answered long ago."""
        call = self.under_way.get(timer.token)
        if call is None:
            return
        if timer.name == LATE:
            out.after(max(0.0, self._config.rpc_timeout_s - (now_s - call.sent_s)), Timer(FAILED, timer.token))
            if call.late is not None:
                call.late(now_s, out)
            return
        del self.under_way[timer.token]
        call.done(None, now_s, out)
        self._silent(call.node, now_s, out)

    def _measure(self, took_s: float) -> None:
        if not self._mean_s:
            self._mean_s, self._deviation_s = took_s, took_s / 2
            return
        self._deviation_s += (abs(took_s - self._mean_s) - self._deviation_s) / 4
        self._mean_s += (took_s - self._mean_s) / 8
