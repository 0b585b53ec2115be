"""How far this node trusts others: what happens with them becomes evidence, evidence becomes a score (docs/spec/trust.md).

Everything that tells of somebody comes in through ``Trust.note``. What happens at this node is evidence at once; it is written in
groups every few seconds. Policy and balancing ask ``score`` and ``tier``, which are answered from memory.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence

from agentmesh.core.contacts.messages import CutOff
from agentmesh.core.trust.config import WRONGS, Kind, Tier, TrustConfig
from agentmesh.core.trust.eigentrust import eigentrust
from agentmesh.core.trust.evidence import Sums, Tally
from agentmesh.core.trust.opinion import Opinions, Verdict, reliance_of
from agentmesh.errors import MeshError, StoreError, UsageError
from agentmesh.identity.claims import is_did
from agentmesh.ids import NodeId
from agentmesh.net.tasks import TaskScope
from agentmesh.node.blame import SILENCE, kind_of_misbehaviour, kind_of_outcome, kind_of_refusal
from agentmesh.node.callee import Ended, Visit
from agentmesh.node.resolve import Directory, find
from agentmesh.store.trust import EVENTS_EACH_MAX, KeptEvent, TallyRow, TrustStore
from agentmesh.wire import v1
from agentmesh.wire.trust_views import TrustEventView, TrustView, TrustWordView

_log = logging.getLogger("agentmesh.trust")

#: How often changes are written, seconds.
_WRITE_S = 2.0
#: A node that was off ages its evidence by at most so long, seconds: a clock that is set wrong must not wipe out what is known.
_AWAY_S_MAX = 30 * 86_400.0
#: How long a verdict is good for without new evidence, seconds; evidence fades by days.
_VERDICT_S = 5.0
_VERDICTS_MAX = 10_000
#: Evidence that weighs less is not shown as an event: the hour had brought much already.
_SHOWN_MIN = 0.01
_DETAIL_CHARS_MAX = 200
#: So many words are weighed on the loop, well under a millisecond a round; more in a thread.
_SMALL_GRAPH = 1_000
_CLOCK = "clock_s"


class Trust:
    """Keep evidence and answer with scores (also a ``node.callee.Recorder``).

    Args:
        node_id: This node, which judges others and never itself.
        config: Knobs.
        roots: The operator's other nodes.
        store: Keeps the evidence.
        directory: The agents known here; their signed manifests say which nodes they live behind.
        cut_off: Returns how much of the mesh this node lost touch with; silence of others is no evidence then.
        name_of: Node id → name for people.
        unix_s, mono_s: The clocks.
    """

    def __init__(
        self,
        node_id: NodeId,
        config: TrustConfig,
        roots: Sequence[str],
        store: TrustStore,
        *,
        directory: Directory,
        cut_off: Callable[[], CutOff | None],
        name_of: Callable[[str], str],
        unix_s: Callable[[], float] = time.time,
        mono_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.node_id = node_id
        self.opinions = Opinions(config, node_id, roots)
        self._store, self._directory, self._cut_off, self._name_of = store, directory, cut_off, name_of
        self._unix_s, self._mono_s = unix_s, mono_s
        self._scope = TaskScope("trust")
        self._dirty: dict[str, None] = {}
        self._events: dict[str, deque[KeptEvent]] = {}
        self._verdicts: dict[str, tuple[float, Verdict]] = {}
        self._is_failing = False
        #: How often evidence came that counts, or words were weighed anew; it only rises.
        self.changes = 0
        for row in store.tallies(config.subjects_max):
            self.opinions.ledger.restore(row.subject, Tally(*row[1:]))
        # The wall clock is asked once; from then on time is monotonic, so that nothing that happens to the clock ages evidence.
        wall_s, last_s = unix_s(), store.fact(_CLOCK)
        begin_s = wall_s if last_s is None else min(max(wall_s, last_s), last_s + _AWAY_S_MAX)
        self._offset_s = begin_s - mono_s()

    def open(self) -> None:
        """Begin to write changes now and then."""
        self._scope.spawn(self._write_loop(), "write")

    @property
    def now_s(self) -> float:
        """Seconds of the clock by which evidence fades; it never goes back, and stands still for long absences."""
        return self._mono_s() + self._offset_s

    # What happens

    def note(self, subject: str, kind: Kind, detail: str = "", *, node: str = "") -> float:
        """Take a piece of evidence about somebody.

        Args:
            subject: An agent or a node; what concerns this node and its own agents is not evidence and is dropped.
            kind: What happened.
            detail: More of it, for people; cut off at 200 characters.
            node: The node that the agent lives behind, if it is one; looked up when left out.

        Returns:
            What it weighed: 0 for what does not count.
        """
        node = "" if self._is_guest(subject) else node or self._node_of(subject)
        if self.node_id in (subject, node) or (kind in SILENCE and self._is_alone()):
            return 0.0
        node = "" if node == subject else node
        weighed = self.opinions.ledger.note(subject, kind, self.now_s, node=node)
        if not weighed:
            return 0.0
        self.changes += 1
        if kind in WRONGS:
            self._verdicts.clear()  # agents answer for what their node did
        for one in (subject, node) if node else (subject,):
            self._dirty[one] = None
            self._verdicts.pop(one, None)
            if abs(weighed) >= _SHOWN_MIN:
                events = self._events.get(one)
                if events is None:
                    events = self._events[one] = deque(maxlen=EVENTS_EACH_MAX)
                events.append(KeptEvent(int(self._unix_s() * 1e6), kind, weighed, detail[:_DETAIL_CHARS_MAX]))
        return weighed

    def note_outcome(self, agent_id: str, node_id: str, task_id: str, state: str, error: MeshError | None) -> None:
        """Take note of how a call of ours at an agent elsewhere went."""
        kind = kind_of_outcome(state, error)
        if kind is not None:
            detail = f"task {task_id[:12]}" + (f": {error.detail}" if error is not None else "")
            self.note(agent_id, kind, detail, node=node_id)

    def note_misbehaviour(self, peer: str, code: str, detail: str) -> None:
        """Take note of a peer that broke the protocol."""
        kind = kind_of_misbehaviour(code, detail)
        if kind is not None:
            self.note(peer, kind, f"{code}: {detail}")

    def note_dead(self, node: str) -> None:
        """Take note of a node that stopped to answer without a goodbye."""
        self.note(node, "missed_lease", "it does not answer any longer")

    def report(self, ref: str, reason: str) -> TrustView:
        """Hold a person's report of abuse against an agent or node, and return what that makes.

        Args:
            ref: Agent name, ``name@node``, or id of an agent or node.
            reason: One line.

        Raises:
            AgentNotFound: no such agent, and no node's id. No state changed.
            UsageError: about this node itself or its agents. No state changed.
            StoreError: it was taken and could not be written yet.
        """
        subject, _ = self._named(ref)
        if self.node_id in (subject, self._node_of(subject)):
            raise UsageError(
                "this agent is your own: nobody is judge of its own agents",
                code="trust.own",
                hint="agentmesh deregister AGENT   takes it out of the mesh",
            )
        self.note(subject, "abuse_report", reason)
        return self.show(subject)

    async def ended(self, visit: Visit, ended: Ended) -> None:
        """Calls that were in order say nothing of their caller: to ask is no merit, or trust could be had for asking."""

    async def turned_away(self, peer: NodeId, message: v1.CallOpen, error: MeshError) -> None:
        """Hold a token that does not hold against the node that sent it; the caller it names did not prove anything."""
        kind = kind_of_refusal(error)
        if kind is not None:
            self.note(peer, kind, f"{error.code}: {error.detail}")

    def _is_alone(self) -> bool:
        """Say whether this node lost touch with half of the nodes it knows."""
        cut_off = self._cut_off()
        return cut_off is not None and (cut_off.isolated or 2 * cut_off.lost >= cut_off.known)

    # What that makes

    def verdict(self, subject: str) -> Verdict:
        """Return what this node thinks of an agent or node; microseconds."""
        now_s = self.now_s
        known = self._verdicts.get(subject)
        if known is not None and now_s - known[0] < _VERDICT_S:
            return known[1]
        verdict = self.opinions.judge(subject, self._place_of(subject), now_s)
        self._verdicts.pop(subject, None)
        while len(self._verdicts) >= _VERDICTS_MAX:
            del self._verdicts[next(iter(self._verdicts))]
        self._verdicts[subject] = (now_s, verdict)
        return verdict

    def score(self, subject: str) -> float:
        """Return the trust in an agent or node, 0 … 1; 1 for this node and its agents."""
        return self.verdict(subject).score

    def tier(self, subject: str) -> Tier:
        """Return the trust in an agent or node as a word."""
        return self.verdict(subject).tier

    def reliance(self, agent_id: str) -> float:
        """Return how much an agent may be relied on, 0 … 1, for the choice between replicas: a newcomer is in the middle."""
        return reliance_of(self.verdict(agent_id), self.opinions.config)

    def _node_of(self, agent_id: str) -> str:
        """Return the node that an agent lives behind, as its manifest in the directory says; "" if none is known.

        An agent that another registry told of stands for itself, though it is called from here.
        """
        entry = self._directory.entry(agent_id)
        return "" if entry is None or self._is_guest(agent_id) else entry.manifest.node_id

    def _is_guest(self, agent_id: str) -> bool:
        """Say whether it is an agent beside this node that another registry told of: a stranger, and not one's own."""
        entry = self._directory.entry(agent_id)
        return entry is not None and entry.manifest.node_id == self.node_id and "origin" in entry.manifest.params

    def _place_of(self, subject: str) -> str:
        """Return the node of an agent: as the directory says, else where it was last met; "" for a node."""
        node = self._node_of(subject)
        if not node and (tally := self.opinions.ledger.get(subject)) is not None:
            node = tally.node
        return "" if node == subject else node

    def _named(self, ref: str) -> tuple[str, str]:
        """Return id and name of whom a reference names, of several replicas the best trusted. Raises AgentNotFound."""
        if is_did(ref) and self._directory.entry(ref) is None:
            return ref, "" if self.opinions.ledger.get(ref) is None else self._name_of(ref)
        found = find(ref, self._directory, self._name_of)
        best = max(found, key=lambda entry: self.score(entry.manifest.agent_id)).manifest
        return best.agent_id, best.name

    def show(self, ref: str) -> TrustView:
        """Return the verdict on an agent or node, with the events and the words of others behind it.

        Raises:
            AgentNotFound: no such agent, and no node's id.
            StoreError: what is kept of it cannot be read.
        """
        subject, name = self._named(ref)
        self.write()
        verdict, node = self.verdict(subject), self._place_of(subject)
        place = node or subject
        return TrustView(
            subject=subject,
            name=name,
            node_id=place,
            node_name=self._name_of(place),
            score=round(verdict.score, 4),
            tier=verdict.tier,
            base=round(verdict.base, 4),
            good=round(verdict.own.good, 3),
            bad=round(verdict.own.bad, 3),
            others_good=round(verdict.others.good, 3),
            others_bad=round(verdict.others.bad, 3),
            events=[
                TrustEventView(ts=event.ts, kind=event.kind, weight=round(event.weight, 3), detail=event.detail)
                for event in self._store.events(subject)
            ],
            words=[
                TrustWordView(
                    issuer=word.issuer,
                    issuer_name=self._name_of(word.issuer),
                    weight=round(word.weight, 4),
                    good=round(word.said.good, 3),
                    bad=round(word.said.bad, 3),
                    since=word.said.since,
                )
                for word in self.opinions.network.words(subject, node)
            ],
        )

    # Others

    def nodes_seen(self) -> dict[str, Sums]:
        """Return this node's evidence about other nodes, as it counts now."""
        ledger, now_s = self.opinions.ledger, self.now_s
        return {subject: ledger.sums(subject, now_s) for subject, tally in ledger.subjects() if not tally.node}

    async def weigh(self) -> None:
        """Find out anew how far each node's word counts; a part of a second of arithmetic, off the loop."""
        network, config = self.opinions.network, self.opinions.config
        graph = network.seen(self.nodes_seen())

        def compute() -> dict[str, float]:
            return eigentrust(
                graph,
                network.roots,
                restart=config.restart,
                rounds_max=config.rounds_max,
                change_min=config.change_min,
            )

        is_small = sum(map(len, graph.values())) <= _SMALL_GRAPH
        network.weigh(compute() if is_small else await asyncio.to_thread(compute))
        self.changes += 1
        self._verdicts.clear()

    # Keeping

    async def _write_loop(self) -> None:
        while True:
            await asyncio.sleep(_WRITE_S)
            if self._dirty:
                self._try_to_write()

    def _try_to_write(self) -> None:
        try:
            self.write()
        except StoreError as error:
            if not self._is_failing:
                _log.error("what is known of others cannot be written: %s", error)
            self._is_failing = True
            # The sums stay right in memory; events are for showing, and must not pile up.
            ledger = self.opinions.ledger
            self._events.clear()
            self._dirty = {subject: None for subject in self._dirty if ledger.get(subject) is not None}
            del ledger.forgotten[: -self.opinions.config.subjects_max]

    def write(self) -> None:
        """Write what changed since the last time. Raises StoreError: it stays to be written."""
        ledger = self.opinions.ledger
        if not self._dirty and not ledger.forgotten:
            return
        rows = [
            TallyRow(subject, tally.node, tally.good, tally.bad, tally.wrong, tally.hour_good, tally.hour_luck,
                     tally.hour_wrong, tally.since_s, tally.at_s)
            for subject in self._dirty
            if (tally := ledger.get(subject)) is not None
        ]  # fmt: skip
        events = [(subject, list(new)) for subject, new in self._events.items() if ledger.get(subject) is not None]
        self._store.save(rows, events, ledger.forgotten, [(_CLOCK, self.now_s)])
        self._dirty.clear()
        self._events.clear()
        ledger.forgotten.clear()
        self._is_failing = False

    async def aclose(self) -> None:
        """Write what is left. Idempotent."""
        await self._scope.aclose()
        self._try_to_write()
