"""Device credentials at work: what this node shows of itself, and what it asks of its peers before it serves them.

A peer is judged when it greets, and again whenever the files here changed or time went on: it then has to show a newer
credential (a second ``Hello`` on the control stream), or its link is closed. Files are read again when they change.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple

from agentmesh.errors import MeshError, Unauthorized
from agentmesh.identity.claims import is_did
from agentmesh.identity.credential import (
    CREDENTIAL_CHARS_MAX,
    LIFE_S_MAX,
    Credential,
    check_time,
    read_credential,
    sign_credential,
)
from agentmesh.identity.keys import KeyPair
from agentmesh.ids import NodeId, short

_log = logging.getLogger("agentmesh.admission")

#: Largest revocation file, bytes: about 70,000 ids.
REVOKED_BYTES_MAX = 4 * 1024 * 1024
#: Credentials of peers held at once, far above the links of any node; ``keep_only`` thins them out.
_HELD_MAX = 65_536
#: A credential is renewed when less than this part of its life is left, and warned of at a quarter.
_RENEW_AT = 0.5
_WARN_AT = 0.25


class CredentialFiles(NamedTuple):
    """Where this node's credential and the list of revoked ids are."""

    credential: Path
    revoked: Path


class Admission:
    """Judge peers by their credentials and keep this node's own fresh.

    Args:
        node_id: This node.
        files: Its files; either may be missing.
        roots: did:keys of the roots whose credentials peers must have; empty: anybody may come.
        root_key: Where this node holds the root key itself, to renew with; else None.
        write: Replaces the credential file when this node has renewed itself.
        now_s: The wall clock.
    """

    def __init__(
        self,
        node_id: NodeId,
        files: CredentialFiles | None = None,
        roots: tuple[str, ...] = (),
        root_key: KeyPair | None = None,
        write: Callable[[str], None] = lambda _: None,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._node_id, self._files, self._roots = node_id, files, frozenset(roots)
        self._root_key, self._write, self._now_s = root_key, write, now_s
        self._held: dict[NodeId, Credential] = {}
        self._own: Credential | None = None
        self._own_mark: object = None
        self._revoked: frozenset[str] = frozenset()
        self._revoked_mark: object = None
        self._troubles: dict[str, str] = {}
        #: Others who know of revoked ids (orders of an operator).
        self.revocations: list[Callable[[str], bool]] = []
        self.refresh()

    @property
    def shown(self) -> str:
        """The credential to greet with, "" if this node has none."""
        return self._own.raw if self._own is not None else ""

    def revoked(self, did: str) -> bool:
        """Say whether an id was revoked, here or by whoever stands in ``revocations``."""
        return did in self._revoked or any(says(did) for says in self.revocations)

    def admit(self, peer: NodeId, credential: str) -> None:
        """Take what a peer shows, first or again; a peer that shows nothing keeps what it showed before.

        Raises:
            Unauthorized: none, of another root, for another node, out of time, or revoked (codes "credential.*").
            DecodeError, SignatureError: as ``read_credential``. Nothing was taken.
        """
        if self.revoked(peer):
            raise _revoked(peer)
        if not self._roots:
            return
        if not credential:
            if peer in self._held:
                return
            raise Unauthorized(
                "this node serves only nodes with a device credential",
                code="credential.missing",
                why=f"it must be certified by {' or '.join(sorted(self._roots))}",
                hint="agentmesh identity root certify NODE   where the root key is",
            )
        read = read_credential(credential, now=int(self._now_s()), node=peer, roots=self._roots)
        if self.revoked(read.root):
            raise _revoked(read.root)
        if peer not in self._held and len(self._held) >= _HELD_MAX:
            del self._held[next(iter(self._held))]
        self._held[peer] = read

    def check(self, peer: NodeId) -> None:
        """Raise Unauthorized if a peer that was admitted may not be served any more."""
        if self.revoked(peer):
            raise _revoked(peer)
        if self._roots:
            held = self._held.get(peer)
            if held is None:
                raise Unauthorized("the peer's credential is gone", code="credential.missing")
            if self.revoked(held.root):
                raise _revoked(held.root)
            check_time(held, int(self._now_s()))

    def keep_only(self, peers: Collection[NodeId]) -> None:
        """Forget what all others showed: their links are gone."""
        self._held = {peer: held for peer, held in self._held.items() if peer in peers}

    def refresh(self) -> bool:
        """Read changed files and renew the own credential if need be; say whether the own one is another now. Never raises."""
        if self._files is None:
            return False
        before = self.shown
        self._read_revoked(self._files.revoked)
        self._read_own(self._files.credential)
        if self._root_key is not None and self._share_left() < _RENEW_AT:
            self._renew(self._root_key)
        return self.shown != before

    def warnings(self) -> list[str]:
        """Return what a person should know of the files and of the own credential's end."""
        out = list(self._troubles.values())
        if self._own is None:
            return out
        left_s = self._own.exp - self._now_s()
        if self.revoked(self._node_id) or self.revoked(self._own.root):
            out.append("this node's device credential is revoked")
        if left_s <= 0:
            out.append(
                "this node's device credential has expired; peers that ask for one close their links. "
                "Renew it: agentmesh identity root certify"
            )
        elif self._share_left() < _WARN_AT:
            left = f"{left_s / 3600:.1f} hours" if left_s > 3600 else f"{left_s / 60:.0f} minutes"
            out.append(f"this node's device credential ends in {left}; renew it: agentmesh identity root certify")
        return out

    def _share_left(self) -> float:
        if self._own is None:
            return 0.0
        return (self._own.exp - self._now_s()) / (self._own.exp - self._own.iat)

    def _read_own(self, path: Path) -> None:
        mark = _mark(path)
        if mark == self._own_mark:
            return
        self._own_mark = mark
        self._troubles.pop("own", None)
        if mark is None:
            return  # What was shown stays good until it ends.
        try:
            text = _read(path, CREDENTIAL_CHARS_MAX).strip()
            self._own = read_credential(text, now=int(self._now_s()), node=self._node_id, roots=None)
        except (MeshError, OSError, ValueError) as error:
            kept = " (the one before stays in use)" if self._own is not None else ""
            self._trouble("own", f"the device credential {path} cannot be used{kept}: {error}")

    def _renew(self, root_key: KeyPair) -> None:
        now = int(self._now_s())
        try:
            raw = sign_credential(root_key, self._node_id, id=secrets.token_hex(8), iat=now, life_s=LIFE_S_MAX)
            self._own = read_credential(raw, now=now, node=self._node_id, roots=None)
            self._troubles.pop("own", None)
            self._troubles.pop("renew", None)
            self._write(raw)
            if self._files is not None:
                self._own_mark = _mark(self._files.credential)
        except MeshError as error:
            self._trouble("renew", f"the new device credential could not be kept: {error}")
        _log.info("renewed this node's device credential")

    def _read_revoked(self, path: Path) -> None:
        mark = _mark(path)
        if mark == self._revoked_mark:
            return
        self._revoked_mark = mark
        self._troubles.pop("revoked", None)
        if mark is None:
            # Nobody is taken back because a file got lost.
            self._trouble("revoked", f"the revocation list {path} is gone; what it said holds until the next start")
            return
        try:
            lines = [line.partition("#")[0].strip() for line in _read(path, REVOKED_BYTES_MAX).splitlines()]
        except (OSError, ValueError) as error:
            self._trouble("revoked", f"the revocation list {path} cannot be read; the one before holds: {error}")
            return
        named = {line for line in lines if line}
        bad = sorted(line[:80] for line in named if not is_did(line))
        if bad:
            self._trouble("revoked", f"the revocation list {path} has lines that are no id: {bad[0]!r}")
        self._revoked = frozenset(line for line in named if is_did(line))

    def _trouble(self, kind: str, text: str) -> None:
        self._troubles[kind] = text
        _log.warning("%s", text)


def _mark(path: Path) -> object:
    """Return what differs when a file was written or replaced; None for one that is not there."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _read(path: Path, bytes_max: int) -> str:
    with open(path, "rb") as file:
        content = file.read(bytes_max + 1)
    if len(content) > bytes_max:
        raise ValueError(f"larger than {bytes_max} bytes")
    return content.decode("utf-8")


def _revoked(did: str) -> Unauthorized:
    return Unauthorized(
        f"{short(NodeId(did))} was revoked",
        code="credential.revoked",
        why="an operator withdrew that key",
        hint="agentmesh identity root rotate   gives a machine a new one",
    )
