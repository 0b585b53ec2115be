"""Agents that were written to and are away: the directory forgets them when their node is gone for long, mail must not.

So a message to a laptop that is shut is taken, and can be sealed and left with a third node, also after this node was restarted.
"""

from __future__ import annotations

import logging
from pathlib import Path

from agentmesh.errors import MeshError, UsageError
from agentmesh.identity.agreement import Agreement, read_agreement
from agentmesh.identity.manifest import Manifest
from agentmesh.ids import NodeId, did_of, public_key_of
from agentmesh.store.acquaintances import KEPT_MAX, Acquaintance, AcquaintanceStore

_log = logging.getLogger("agentmesh.mail")


class Acquaintances:
    """Remember agents as their last manifest showed them.

    Args:
        path: The file; made with the first agent.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._store: AcquaintanceStore | None = None
        self._known: dict[bytes, Acquaintance] | None = None

    def note(self, key: bytes, manifest: Manifest) -> None:
        """Remember an agent that was just looked up; cheap when nothing about it is new."""
        known = self._load()
        former = known.get(key)
        if former is not None and former.seq == manifest.seq:
            return
        agreement = agreement_in(manifest)
        kid, x, exp = agreement or ("", b"", 0)
        one = Acquaintance(key, manifest.name, manifest.node_id, manifest.seq, kid, x, exp)
        known.pop(key, None)
        while len(known) >= KEPT_MAX:
            del known[next(iter(known))]
        known[key] = one
        try:
            self._opened().keep(one)
        except MeshError as error:
            _log.warning("an agent that was written to is remembered until the next restart only: %s", error)

    def forget(self, key: bytes) -> None:
        """Hear that an agent was withdrawn: it does not come back."""
        if self._known is None and not self._path.exists():
            return
        if self._load().pop(key, None) is not None:
            try:
                self._opened().drop(key)
            except MeshError as error:
                _log.warning("an agent that is gone could not be forgotten: %s", error)

    def place(self, key: bytes) -> NodeId | None:
        """Return the node where an agent lived last; None if it is not known."""
        one = self._load().get(key)
        return None if one is None else NodeId(one.node)

    def agreement(self, key: bytes) -> Agreement | None:
        """Return the key that an agent's mail is sealed to; None if it is not known, or named none."""
        one = self._load().get(key)
        return Agreement(one.kid, one.x, one.exp) if one is not None and one.kid else None

    def name(self, did: str) -> str:
        """Return the name of an agent; "" if it is not known."""
        one = self._load().get(public_key_of(did))
        return "" if one is None else one.name

    def find(self, ref: str) -> bytes | None:
        """Return the raw key of the agent that is meant by a name, ``NAME@NODE_ID`` or id; None if it is not known.

        Raises:
            UsageError: several agents had that name (code "message.ambiguous").
        """
        known = self._load()
        if ref.startswith("did:"):
            key = public_key_of(ref)
            return key if key in known else None
        name, _, node = ref.partition("@")
        found = [one for one in known.values() if one.name.casefold() == name.casefold() and node in ("", one.node)]
        if len(found) > 1:
            raise UsageError(
                f"{len(found)} agents called {name[:80]!r} were written to, and none is there now",
                code="message.ambiguous",
                hint=f"name one by its id:   {did_of(found[-1].key)}",
            )
        return found[0].key if found else None

    def close(self) -> None:
        """Close the store. Idempotent."""
        if self._store is not None:
            self._store.close()

    def _opened(self) -> AcquaintanceStore:
        if self._store is None:
            self._store = AcquaintanceStore.open(self._path)
        return self._store

    def _load(self) -> dict[bytes, Acquaintance]:
        if self._known is None:
            self._known = {}
            if self._path.exists():
                try:
                    self._known = {one.key: one for one in self._opened().all()}
                except MeshError as error:
                    _log.error("agents that were written to are not remembered: %s", error)
        return self._known


def agreement_in(manifest: Manifest) -> Agreement | None:
    """Return the key that a manifest names; None if it names none, a malformed one, or is not signed."""
    if not manifest.signed or manifest.tombstone:
        return None
    try:
        return read_agreement(manifest.params)
    except MeshError:
        return None
