"""Orders at one node: which operators it obeys, what their orders change here, and what is kept of them (docs/spec/orders.md).

The brain holds and spreads orders (``core.orders``); here those of obeyed operators take effect. A stop takes effect first and
is on disk before anybody is told that it was taken; a node that cannot write it stops all the same, and says so.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from agentmesh.core.orders.book import Book
from agentmesh.core.orders.messages import LocalOrder, Obey
from agentmesh.errors import MeshError, ReplayError, Unauthorized
from agentmesh.identity.audit_record import Decision
from agentmesh.identity.order import SKEW_S, Lists, Order, Resume, Revoke, check_time, read_order
from agentmesh.ids import NodeId, short
from agentmesh.node.audit import Audit
from agentmesh.node.callee import Ended, Visit
from agentmesh.node.killswitch import KillSwitch
from agentmesh.node.mesh import Mesh
from agentmesh.store.keyfile import load_key
from agentmesh.store.orders import OrderFile
from agentmesh.wire.order_views import OrdersView, OrderTaken, OrderView

#: Files in the home; the CLI reads and writes them as well while no daemon runs.
ORDERS_FILE = "orders.json"
OPERATOR_KEY_FILE = "operator.key"

_log = logging.getLogger("agentmesh.orders")


class ListsSink(Protocol):
    """Takes the lists that operators publish: the policy of this node."""

    def apply(self, issuer: str, seq: int, lists: dict[str, list[str]], /) -> object:
        """Use these lists ("allow", "deny", "grey") of an issuer in place of its former ones."""
        ...

    def withdraw(self, issuer: str, /) -> object:
        """Forget the lists of an issuer."""
        ...


class Belonging(Protocol):
    """Says who is whose (``node.organisations``)."""

    def known(self) -> Sequence[str]:
        """Return the organisations whose revocations count here."""
        ...

    def chain_of(self, did: str, /) -> Sequence[str]:
        """Return the keys on whose word an agent or node belongs to its organisation, that first; () for nobody's."""
        ...


class Orders:
    """Obey operators, and let organisations take back what they vouched for.

    Args:
        node_id: This node.
        book: What the brain holds.
        file: Where orders of obeyed operators are kept.
        switch: Is stopped and released.
        operators: Returns the did:keys of the operators to obey; asked at the start and whenever an order comes by the API.
        feed: Gives the brain an input.
        on_revoked: Called with the keys that are revoked now, when they change.
        note: Called with each new order of an obeyed operator, and whether it is for this node.
    """

    def __init__(
        self,
        node_id: NodeId,
        book: Book,
        file: OrderFile,
        switch: KillSwitch,
        *,
        operators: Callable[[], Sequence[str]],
        feed: Callable[[Any], None],
        on_revoked: Callable[[frozenset[str]], None],
        note: Callable[[Order, Decision], None] = lambda _order, _decision: None,
    ) -> None:
        self._node_id, self._book, self._file, self._switch = node_id, book, file, switch
        self._operators, self._feed, self._on_revoked = operators, feed, on_revoked
        self._note = note
        self._lists: ListsSink | None = None
        self._belonging: Belonging | None = None
        self._taken_back: dict[str, frozenset[str]] = {}
        self._commanding: tuple[str, ...] = ()
        self._kept_of: dict[str, None] = {}
        self.revoked: frozenset[str] = frozenset()
        #: How often what is in force was gone over; it only rises.
        self.changes = 0
        #: Why what is in force may be forgotten at a restart; "" = it is kept.
        self.problem = ""
        self._damaged_s = 0.0
        self._saved: list[str] = []
        self._published: dict[str, int] = {}
        self._unread: dict[str, str] = {}

    def open(self, lists: ListsSink | None = None) -> None:
        """Take up the orders of earlier runs. What cannot be read leaves the node read-only until an operator releases it.

        Args:
            lists: Takes published lists; None = nobody asks for them.
        """
        self._lists = lists
        self._obey()
        try:
            kept = [read_order(raw) for raw in self._file.load()]
            self._kept_of = dict.fromkeys(order.operator for order in kept if order.kind == "revoke")
            self._obey()  # what an organisation took back stays taken back, also before anybody of it is met again
        except MeshError as error:
            self._switch.damage = self.problem = str(error)
            self._damaged_s = time.time()
            _log.error("%s; this node is read-only", error)
            kept = []
        self._saved = [order.raw for order in kept]
        for order in kept:
            if self._book.obeys(order.operator):
                self._feed(LocalOrder(order))
            else:
                _log.warning("an order of %s is kept, whom this node no longer obeys", short(order.operator))
        self._settle()

    def heed(self, belonging: Belonging) -> None:
        """Let revocations of organisations count from now on; call ``met`` when another one is known."""
        self._belonging = belonging

    def met(self) -> None:
        """Look again which organisations are known."""
        self._obey()
        self._settle()

    def _obey(self) -> None:
        # The book keeps and spreads what organisations sign as well; here it counts for their own members only.
        known = () if self._belonging is None else (*self._belonging.known(), *self._kept_of)
        self._commanding = tuple(dict.fromkeys(self._operators()))
        heard = tuple(dict.fromkeys((*self._commanding, *known)))[: self._book.config.operators_max]
        if heard != self._book.operators:
            self._feed(Obey(heard))

    def _commands(self, operator: str) -> bool:
        return operator in self._commanding

    def submit(self, raw: str) -> OrderTaken:
        """Take an order that an operator hands to this node, obey it, and have it spread.

        Raises:
            DecodeError, SignatureError: it is malformed, its lists cannot be read here, or its operator did not sign it. No
                state changed.
            Unauthorized: this node does not obey its operator (code "order.operator"). No state changed.
            ReplayError: it is from the future, or a newer one is in force. No state changed.
        """
        order = read_order(raw)
        self._obey()
        if not (self._commands(order.operator) or (self._book.obeys(order.operator) and order.kind == "revoke")):
            raise Unauthorized(
                f"this node does not obey operator {short(order.operator)}",
                code="order.operator",
                why=f"it obeys {', '.join(map(short, self._commanding)) or 'nobody'}",
                hint=f"agentmesh config set operators {','.join((*self._commanding, order.operator))}",
            )
        # Here the operator can mend a clock. Elsewhere ``seq`` alone decides: a node whose own clock is wrong must neither go on
        # working nor stay stopped for it.
        check_time(order, int(time.time()))
        if self._book.is_news(order):
            if order.is_for(self._node_id):
                self._hand_over(order)
            self._feed(LocalOrder(order))
            self._settle()
            self._note(order, "allowed")
        elif all(held.order.raw != raw for held in self._book.slots.values()):
            raise ReplayError(
                "a newer order of this operator is in force",
                code="order.replayed",
                why=f"the one given has seq {order.seq}",
                hint="agentmesh killswitch status",
            )
        return OrderTaken(order=self._view(order), kept=not self.problem, problem=self.problem)

    def heard(self, order: Order) -> None:
        """Obey an order that a peer brought; the brain has verified it and passed it on."""
        _log.warning("order of operator %s: %s, seq %d", short(order.operator), type(order.body).__name__, order.seq)
        self._settle()
        self._note(order, "allowed")

    # What holds

    def _held(self) -> list[Order]:
        """Return the orders of obeyed operators and the revocations of organisations, those for other nodes included."""
        held = [h.order for h in self._book.slots.values() if self._book.obeys(h.order.operator)]
        return [order for order in held if order.kind == "revoke" or self._commands(order.operator)]

    def _settle(self) -> None:
        """Bring everything in line with what is held; what restricts comes first, then the disk."""
        self.changes += 1
        held = self._held()
        mine = [order for order in held if order.is_for(self._node_id)]
        switches = [order for order in mine if order.kind == "switch"]
        if self._switch.damage and any(
            isinstance(o.body, Resume) and o.iat >= self._damaged_s - SKEW_S for o in switches
        ):
            self._switch.damage = self.problem = ""
        self._switch.set(switches)
        self._revoke(mine)
        self._save(held)
        self._publish(mine)

    def _revoke(self, mine: Sequence[Order]) -> None:
        keys_of = {order.operator: frozenset[str]() for order in mine}
        for order in mine:
            if isinstance(order.body, Revoke):
                keys_of[order.operator] |= frozenset(order.body.keys)
        revoked = frozenset[str]().union(*(keys for who, keys in keys_of.items() if self._commands(who)))
        taken_back = {who: keys for who, keys in keys_of.items() if keys and not self._commands(who)}
        if (revoked, taken_back) != (self.revoked, self._taken_back):
            self.revoked, self._taken_back = revoked, taken_back
            self._on_revoked(revoked)

    def _save(self, held: Sequence[Order]) -> None:
        raws = [order.raw for order in held]
        if raws == self._saved and not self.problem:
            return
        if self._switch.damage and not self._switch.stops():
            return  # what is damaged stays as it is, or the next start would take it for nothing
        try:
            self._file.save(raws)
        except MeshError as error:
            self.problem = f"orders in force are not on disk: {error}"
            _log.error("%s", self.problem)
            return
        self._saved, self.problem = raws, ""
        self._switch.damage = ""

    def _publish(self, mine: Sequence[Order]) -> None:
        """Hand the newest lists of each operator to the policy, once."""
        if self._lists is None:
            return
        newest: dict[str, Order] = {}
        for order in mine:
            held = newest.get(order.operator)
            if order.kind == "list" and (held is None or order.rank > held.rank):
                newest[order.operator] = order
        for operator, order in newest.items():
            try:
                self._hand_over(order)
            except MeshError as error:  # of another version than this node, perhaps; the former lists stay in force
                self._unread[operator] = f"the lists of operator {short(operator)} are not used: {error.why or error}"
                _log.warning("%s", self._unread[operator])

    def _hand_over(self, order: Order) -> None:
        """Hand the lists of one order to the policy, unless it has them. Raises MeshError: it cannot read them."""
        body, operator = order.body, order.operator
        if self._lists is None or not isinstance(body, Lists) or self._published.get(operator) == order.seq:
            return
        self._published[operator] = order.seq
        if body.allow or body.deny or body.grey:
            lists = {"allow": list(body.allow), "deny": list(body.deny), "grey": list(body.grey)}
            self._lists.apply(operator, order.seq, lists)
        else:
            self._lists.withdraw(operator)
        self._unread.pop(operator, None)

    def refusal_of(self, did: str) -> Unauthorized | None:
        """Return why a key may do nothing here; None if it may."""
        if did in self.revoked:
            return Unauthorized(
                f"the key {short(did)} is revoked",
                code="refused.revoked",
                why="an operator that this node obeys revoked it",
                hint="use a new key; agentmesh operator restore   takes a revocation back",
            )
        if not self.any_revoked or self._belonging is None:
            return None
        chain = tuple(self._belonging.chain_of(did))
        theirs = self._taken_back.get(chain[0] if chain else did, frozenset())
        if not any(one in self.revoked or one in theirs for one in (*chain, did)):
            return None
        return Unauthorized(
            f"the organisation of {short(did)} is revoked, or took back its word for it",
            code="refused.organisation",
            why=f"it is {chain[0] if chain else did}",
            hint="agentmesh org list   shows whose agents are known here",
        )

    @property
    def taken_back(self) -> dict[str, frozenset[str]]:
        """What each organisation revoked."""
        return self._taken_back

    @property
    def any_revoked(self) -> bool:
        """Say whether ``refusal_of`` can refuse anybody."""
        return bool(self.revoked or self._taken_back)

    def revocations_of(self, organisation: str) -> list[str]:
        """Return the revocations of an organisation that are in force here, as they were signed."""
        return [o.raw for o in self._held() if o.operator == organisation and o.kind == "revoke" and not o.audience]

    # What people see

    def view(self) -> OrdersView:
        """Return what is in force at this node."""
        stops = {order.jti for order in self._switch.stops()}
        return OrdersView(
            node_id=self._node_id,
            read_only=self._switch.is_on,
            operators=list(self._commanding),
            orders=[self._view(order) for order in sorted(self._held(), key=lambda o: (o.operator, o.kind, o.rank))],
            stops=sorted(stops),
            revoked=sorted(self.revoked),
            problem=self._switch.damage or self.problem,
        )

    def _view(self, order: Order) -> OrderView:
        return OrderView(
            operator=order.operator,
            kind=order.kind,
            event=type(order.body).__name__.lower(),
            seq=order.seq,
            iat=order.iat,
            jti=order.jti,
            audience=list(order.audience),
            reason=str(getattr(order.body, "reason", "")),
            until=getattr(order.body, "until", None),
            here=order.is_for(self._node_id),
            order=order.raw,
        )

    def warnings(self) -> list[str]:
        """Return what a person must know before anything else."""
        error = self._switch.error()
        first = [] if error is None else [f"{error.detail} ({error.why})"]
        return (
            first + list(self._unread.values()) + ([self.problem] if self.problem and not self._switch.damage else [])
        )


def own_operator(home: Path) -> tuple[str, ...]:
    """Return the operator whose key is in a home, as a tuple; () if there is none or it cannot be read."""
    with contextlib.suppress(MeshError):
        return (load_key(home / OPERATOR_KEY_FILE).did,)
    return ()


def orders_at(home: Path, mesh: Mesh, switch: KillSwitch, audit: Audit) -> Orders:
    """Return the orders of the node that this mesh belongs to; the mesh tells it what it hears, and the audit log keeps it."""

    def note(order: Order, decision: Decision) -> None:
        event = type(order.body).__name__.lower()
        audit.note_soon(
            "order", mesh.node_id, decision, agent=order.operator, event=event, seq=order.seq, jti=order.jti
        )

    orders = Orders(
        mesh.node_id,
        mesh.brain.orders.book,
        OrderFile(home / ORDERS_FILE),
        switch,
        operators=lambda: mesh.config.operators or own_operator(home),
        feed=mesh.order,
        on_revoked=mesh.part_from,
        note=note,
    )
    mesh.obey_with(orders)
    return orders


class Revocations:
    """Refuse calls of revoked keys, in their name or through them (``node.callee.Check``).

    Args:
        orders: Knows them.
    """

    def __init__(self, orders: Orders) -> None:
        self._orders = orders

    async def enter(self, visit: Visit) -> None:
        """Let the call pass. Raises Unauthorized (code "refused.revoked")."""
        if not self._orders.any_revoked:
            return
        token = visit.token
        for did in (token.caller, visit.peer, visit.message.agent_id, *token.claims.hops):
            if (error := self._orders.refusal_of(did)) is not None:
                raise error

    def leave(self, visit: Visit, ended: Ended) -> None:
        """Nothing was taken."""
