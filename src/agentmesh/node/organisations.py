"""Organisations at one node: what vouches for this node and its agents, and whose the agents and nodes of others are.

``identity/organisation.jwt`` in the home holds vouchers, one a line: this node's, and those of single agents beside it. Agents of
the operator get the chain into their manifests whenever these are signed; a node without a voucher says nothing. What others
claim is checked once per manifest and remembered with it. docs/spec/federation.md §2 is the specification.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agentmesh.errors import MeshError, SignatureError
from agentmesh.identity.jws import b64url
from agentmesh.identity.keys import KeyPair
from agentmesh.identity.manifest import Manifest
from agentmesh.identity.voucher import (
    VOUCHER_CHARS_MAX,
    Membership,
    Voucher,
    read_kept_voucher,
    read_membership,
    read_voucher,
    sign_voucher,
)
from agentmesh.ids import NodeId, short

_log = logging.getLogger("agentmesh.organisations")

#: File in the home; the CLI writes it, a running node finds changes by itself.
ORGANISATION_FILE = "organisation.jwt"
#: Vouchers of one home: its node's, and those of single agents.
VOUCHERS_MAX = 256
FILE_BYTES_MAX = VOUCHERS_MAX * (VOUCHER_CHARS_MAX + 1)
#: Agents whose membership is remembered, and nodes whose voucher is.
_AGENTS_MAX = 20_000
_NODES_MAX = 4_096
#: Organisations whose orders are looked for: this node's own, and those met first.
KNOWN_MAX = 12
_WARN_S = 14 * 86_400


class Organisations:
    """Know who is whose.

    Args:
        key: This node's key; it vouches for the agents beside it.
        file: Where the vouchers are; it need not exist.
        manifest_of: The agents known here.
        on_change: Called when another voucher is in force here, or an organisation was met for the first time.
        unix_s: The wall clock.
    """

    def __init__(
        self,
        key: KeyPair,
        file: Path,
        manifest_of: Callable[[str], Manifest | None],
        *,
        on_change: Callable[[], None] = lambda: None,
        unix_s: Callable[[], float] = time.time,
    ) -> None:
        self.node_id = key.did
        self._key, self._file, self._manifest_of, self._unix_s = key, file, manifest_of, unix_s
        #: Told when another voucher is in force here, or an organisation was met for the first time.
        self.on_change = on_change
        self._mark: object = None
        self._own: Voucher | None = None
        self._agents: dict[str, Voucher] = {}
        self._trouble = ""
        self._members: dict[str, tuple[Manifest, Membership | None]] = {}
        self._nodes: dict[str, Voucher] = {}
        self._met: dict[str, None] = {}
        #: Says of a node whether it is of another mesh, linked for calls only.
        self.abroad: Callable[[str], bool] = lambda _: False
        #: Returns the organisations that this node federates with.
        self.partners: Callable[[], list[str]] = list
        self.refresh()

    # Our own

    @property
    def own(self) -> str:
        """did:key of the organisation that vouches for this node; "" if none does now."""
        return self._own.organisation if self._own is not None and self._holds(self._own) else ""

    @property
    def shown(self) -> str:
        """This node's voucher, to greet with; "" if it has none."""
        return self._own.raw if self._own is not None and self._holds(self._own) else ""

    def refresh(self) -> bool:
        """Read the file again if it changed; say whether other vouchers are in force now. Never raises."""
        mark = _mark(self._file)
        if mark == self._mark:
            return False
        self._mark, before = mark, (self._own, self._agents)
        own, agents, self._trouble = None, dict[str, Voucher](), ""
        try:
            raws = read_vouchers(self._file)
        except OSError as error:
            self._trouble = f"the vouchers in {self._file} cannot be read: {error}; those before stay in use"
            return False
        for number, raw in enumerate(raws, 1):
            try:
                voucher = read_kept_voucher(raw)
            except MeshError as error:
                self._trouble = f"{self._file}:{number} is of no use: {error}"
                _log.warning("%s", self._trouble)
                continue
            if voucher.role == "node" and voucher.subject == self._key.did:
                own = voucher
            elif voucher.role == "agent":
                agents[voucher.subject] = voucher
            else:
                self._trouble = f"{self._file}:{number} is for another node: {voucher.subject}"
        self._own, self._agents = own, agents
        if (own, agents) == before:
            return False
        self.on_change()
        return True

    def stamp(self, agent: str, life_s: int) -> dict[str, Any] | None:
        """Return what the manifest of an agent beside this node says of its organisation; None if there is none.

        Args:
            agent: did:key.
            life_s: How long the manifest holds; the node's word holds as long and a little longer.
        """
        now = int(self._unix_s())
        direct = self._agents.get(agent)
        if direct is not None and self._holds(direct):
            return {"id": direct.organisation, "chain": [direct.raw]}
        own = self._own
        if own is None or not self._holds(own):
            return None
        word = sign_voucher(
            self._key,
            agent,
            "agent",
            id=b64url(os.urandom(12)),
            iat=now,
            life_s=life_s + 3_600,
            organisation=own.organisation,
        )
        return {"id": own.organisation, "chain": [own.raw, word]}

    def _holds(self, voucher: Voucher) -> bool:
        return self._unix_s() <= voucher.exp

    def warnings(self) -> list[str]:
        """Return what a person should know of the vouchers here."""
        found = [self._trouble] if self._trouble else []
        for voucher in ([self._own] if self._own else []) + list(self._agents.values()):
            left_s = voucher.exp - self._unix_s()
            who = "this node" if voucher.role == "node" else f"agent {short(voucher.subject)}"
            if left_s <= 0:
                found.append(
                    f"the voucher of organisation {short(voucher.organisation)} for {who} has expired; renew it: "
                    f"agentmesh org vouch {voucher.subject}"
                )
            elif left_s < min(_WARN_S, (voucher.exp - voucher.iat) / 4):
                found.append(
                    f"the voucher of organisation {short(voucher.organisation)} for {who} ends in "
                    f"{left_s / 86_400:.1f} days; renew it: agentmesh org vouch {voucher.subject}"
                )
        return found

    # Others

    def greeted(self, node: NodeId, raw: str) -> None:
        """Take the voucher that a node showed on a link, which has proven its key; who shows none belongs to nobody.

        Raises:
            DecodeError, SignatureError: malformed or forged. Nothing was taken.
        """
        self._nodes.pop(node, None)
        if not raw:
            return
        try:
            voucher = read_voucher(raw, now=int(self._unix_s()), subject=node)
        except MeshError as error:
            if error.code in ("voucher.expired", "voucher.not_yet_valid"):
                return
            raise
        if voucher.role != "node":
            raise SignatureError("the voucher is for an agent, and a node shows it", code="voucher.role")
        while len(self._nodes) >= _NODES_MAX:
            del self._nodes[next(iter(self._nodes))]
        self._nodes[node] = voucher
        self._meet(voucher.organisation)

    def look(self, manifest: Manifest) -> Membership | None:
        """Return whose an agent is, as its manifest proves; None if nobody's, or not any longer.

        Raises:
            DecodeError, SignatureError, Unauthorized: what it claims does not hold; the agent belongs to nobody.
        """
        known = self._members.get(manifest.agent_id)
        if known is not None and known[0] is manifest:
            return self._now(known[1])
        member: Membership | None = None
        try:
            member = read_membership(manifest, now=int(self._unix_s()))
        finally:
            self.note(manifest, member)
        return self._now(member)

    def note(self, manifest: Manifest, member: Membership | None) -> None:
        """Take what somebody here has verified already."""
        self._members.pop(manifest.agent_id, None)
        while len(self._members) >= _AGENTS_MAX:
            del self._members[next(iter(self._members))]
        self._members[manifest.agent_id] = (manifest, member)
        if member is not None:
            self._meet(member.organisation)

    def _now(self, member: Membership | None) -> Membership | None:
        return member if member is not None and member.holds(int(self._unix_s())) else None

    def member(self, agent: str) -> Membership | None:
        """Return whose an agent is that is known here. What does not hold makes it nobody's."""
        manifest = self._manifest_of(agent)
        if manifest is None:
            return None
        try:
            return self.look(manifest)
        except MeshError:
            return None

    def of_agent(self, agent: str) -> str:
        """Return the did:key of the organisation that vouches for an agent; "" for none."""
        member = self.member(agent)
        return "" if member is None else member.organisation

    def of_node(self, node: str) -> str:
        """Return the did:key of the organisation that vouches for a node, this one included; "" for none, or unknown."""
        if node == self._key.did:
            return self.own
        voucher = self._nodes.get(node)
        return voucher.organisation if voucher is not None and self._holds(voucher) else ""

    def is_abroad(self, node: str) -> bool:
        """Say whether a node is of another mesh, linked for calls only."""
        return self.abroad(node)

    def chain_of(self, did: str) -> tuple[str, ...]:
        """Return the keys on whose word somebody belongs where it does, the organisation's first; () for nobody's."""
        member = self.member(did)
        if member is not None:
            return (member.organisation, member.node) if member.node else (member.organisation,)
        organisation = self.of_node(did)
        return (organisation,) if organisation else ()

    def known(self) -> tuple[str, ...]:
        """Return the organisations known, this node's own first, then partners, then those met, at most ``KNOWN_MAX``."""
        own = (self.own,) if self.own else ()
        return tuple(dict.fromkeys((*own, *self.partners(), *self._met)))[:KNOWN_MAX]

    def _meet(self, organisation: str) -> None:
        if organisation not in self._met and len(self._met) < KNOWN_MAX:
            self._met[organisation] = None
            self.on_change()


def read_vouchers(path: Path) -> list[str]:
    """Return the vouchers in a file, unverified; [] if there is none. Raises OSError."""
    try:
        with open(path, "rb") as file:
            raw = file.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        return []
    if len(raw) > FILE_BYTES_MAX:
        raise OSError(f"larger than {FILE_BYTES_MAX} bytes")
    lines = raw.decode("ascii", "replace").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")][:VOUCHERS_MAX]


def _mark(path: Path) -> object:
    """Return what differs when a file was written or replaced; None for one that is not there."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
