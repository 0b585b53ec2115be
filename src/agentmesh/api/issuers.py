"""The issuers whose JWTs are accepted, as the operator wrote them in ``issuers.toml``; nothing is ever fetched.

    [[issuer]]
    issuer = "https://login.example"      # as in the claim iss; a did:key needs no key file
    audience = "agentmesh"                # must be in the claim aud
    keys = "login.jwks.json"              # JWKS beside this file
    scopes_claim = "scope"                # a text of words, or a list
    scopes = { "mesh.read" = ["read"], "mesh.call" = ["call:summarize"] }
    tenant_claim = "org"                  # optional: who has it belongs to that tenant; or: tenant = "acme"

Both files are read again when they change. A change that cannot be read leaves the old issuers in force and is logged.
"""

from __future__ import annotations

import logging
import os
import stat
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import msgspec

from agentmesh.api.jwk import ALGORITHMS, Algorithm, PublicJwk, read_jwk
from agentmesh.api.scopes import parse_scopes
from agentmesh.codec.canonical import parse_strict
from agentmesh.errors import ConfigError, MeshError
from agentmesh.identity.jws import b64url
from agentmesh.ids import key_id, public_key_of

_log = logging.getLogger("agentmesh.api")

_FILE_BYTES_MAX = 256 * 1024
_ISSUERS_MAX = 64
_KEYS_MAX = 64
_LIFE_S_MAX = 366 * 86_400
#: Seconds between two looks at the files.
_LOOK_S = 0.5


class Issuer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One issuer.

    Attributes:
        issuer: Claim ``iss`` of its tokens: a URL or a did:key.
        audience: What must be among the claim ``aud``: the name under which it knows this node.
        scopes: Word of the claim → scopes here. A word that is not here opens nothing.
        keys: JWKS file, relative to ``issuers.toml``; "" for a did:key.
        algorithms: Signatures that are accepted of it.
        scopes_claim: Claim that holds the words.
        tenant_claim, tenant: The claim that names the tenant, or the one tenant of all its tokens; both "" = the operator's own.
        life_max_s: Longest life of a token, ``exp`` - ``iat``, seconds.
    """

    issuer: str
    audience: str
    scopes: dict[str, tuple[str, ...]]
    keys: str = ""
    algorithms: tuple[Algorithm, ...] = ALGORITHMS
    scopes_claim: str = "scope"
    tenant_claim: str = ""
    tenant: str = ""
    life_max_s: int = 86_400


class _File(msgspec.Struct, forbid_unknown_fields=True):
    issuer: list[Issuer] = []


class Trusted(msgspec.Struct, frozen=True):
    """An issuer and its keys."""

    issuer: Issuer
    keys: list[PublicJwk]


class Issuers:
    """The issuers of one node.

    Args:
        path: ``issuers.toml``; need not exist.

    Attributes:
        on_change: Called after the issuers changed.

    Raises:
        ConfigError: the file, or a key file, cannot be read (codes "issuers.*").
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.on_change: Callable[[], None] = lambda: None
        self._by_name: dict[str, Trusted] = {}
        self._seen: list[tuple[Path, tuple[int, ...]]] = []
        self._looked_s = time.monotonic()
        self._load()

    def get(self, name: object) -> Trusted | None:
        """Return the issuer of that name as the files say now."""
        self._look()
        return self._by_name.get(name) if isinstance(name, str) else None

    def any(self) -> bool:
        """Say whether there is one at all."""
        self._look()
        return bool(self._by_name)

    def _look(self) -> None:
        now_s = time.monotonic()
        if now_s - self._looked_s < _LOOK_S:
            return
        self._looked_s = now_s
        if all(_mark(path) == mark for path, mark in self._seen):
            return
        try:
            self._load()
        except MeshError as error:
            _log.warning("the issuers stay as they were: %s (%s)", error, error.why)
            return
        _log.info("%d issuers of JWTs are accepted", len(self._by_name))
        self.on_change()

    def _load(self) -> None:
        """Read all files. Raises ConfigError; the issuers stay as they were."""
        seen = [(self._path, _mark(self._path))]
        found: dict[str, Trusted] = {}
        try:
            for issuer in self._read():
                if issuer.issuer in found:
                    raise _wrong(self._path, f"{issuer.issuer[:120]!r} stands there twice")
                _check(self._path, issuer)
                file = self._path.parent / issuer.keys
                if issuer.keys:
                    seen.append((file, _mark(file)))
                found[issuer.issuer] = Trusted(issuer, _keys(file) if issuer.keys else [_key_of_did(issuer.issuer)])
        finally:
            self._seen = seen  # looked at again only when something changed
        self._by_name = found

    def _read(self) -> list[Issuer]:
        raw = _content(self._path)
        if raw is None:
            return []
        try:
            found = msgspec.convert(tomllib.loads(raw.decode("utf-8")), _File).issuer
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError, RecursionError) as error:
            raise _wrong(self._path, str(error)) from error
        if len(found) > _ISSUERS_MAX:
            raise _wrong(self._path, f"{len(found)} issuers, at most {_ISSUERS_MAX} are read")
        return found


def _check(path: Path, issuer: Issuer) -> None:
    name = issuer.issuer[:120]
    if not issuer.issuer or not issuer.audience or not issuer.scopes or not issuer.scopes_claim:
        raise _wrong(path, f"{name!r} needs issuer, audience, scopes and scopes_claim, none of them empty")
    if bool(issuer.keys) == issuer.issuer.startswith("did:key:"):
        raise _wrong(path, f"{name!r} needs a key file in keys, unless it is a did:key, which is its own key")
    if issuer.tenant and issuer.tenant_claim:
        raise _wrong(path, f"{name!r} has both tenant and tenant_claim")
    if not issuer.algorithms or not 1 <= issuer.life_max_s <= _LIFE_S_MAX:
        raise _wrong(path, f"{name!r} needs an algorithm, and a life_max_s from 1 to {_LIFE_S_MAX}")
    for word, scopes in issuer.scopes.items():
        try:
            parse_scopes(scopes)
        except MeshError as error:
            raise _wrong(path, f"{name!r}, scope {word[:80]!r}: {error}") from error
        if "admin" in scopes and (issuer.tenant or issuer.tenant_claim):
            raise _wrong(
                path, f"{name!r}, scope {word[:80]!r}: a tenant cannot have admin, which governs the whole node"
            )


def _keys(path: Path) -> list[PublicJwk]:
    raw = _content(path)
    if raw is None:
        raise _wrong(path, "it does not exist")
    try:
        document: Any = parse_strict(raw, bytes_max=_FILE_BYTES_MAX, depth_max=6)
    except MeshError as error:
        raise _wrong(path, str(error)) from error
    listed: Any = cast("dict[str, Any]", document).get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise _wrong(path, 'it is no JWKS: {"keys": [...]}')
    found: list[PublicJwk] = []
    for jwk in cast("list[Any]", listed)[: _KEYS_MAX + 1]:
        try:
            found.append(read_jwk(jwk))
        except MeshError as error:
            if error.code == "signature.private":
                raise _wrong(path, str(error)) from error
            _log.info("%s: a key is left out: %s", path, error)
    if not 0 < len(found) <= _KEYS_MAX:
        raise _wrong(path, f"it holds {len(found)} keys that can be used; 1 to {_KEYS_MAX} are read")
    return found


def _key_of_did(did: str) -> PublicJwk:
    try:
        public = public_key_of(did)
    except MeshError as error:
        raise ConfigError(f"{did[:80]!r} is no did:key of an Ed25519 key", code="issuers.did") from error
    return read_jwk({"kty": "OKP", "crv": "Ed25519", "x": b64url(public), "kid": key_id(did)})


def _mark(path: Path) -> tuple[int, ...]:
    """Return what changes when a file does; () when there is none."""
    try:
        status = path.stat()
    except OSError:
        return ()
    return (status.st_mtime_ns, status.st_size, status.st_ino)


def _content(path: Path) -> bytes | None:
    """Return the bytes of a file, None if there is none. Raises ConfigError."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _wrong(path, error.strerror or str(error)) from error
    with open(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o022:
            raise ConfigError(
                f"{path} is no file that only its owner can write",
                code="issuers.permissions",
                why="whoever writes to it decides who is let in here",
                hint=f"chmod 644 {path}",
            )
        raw = file.read(_FILE_BYTES_MAX + 1)
    if len(raw) > _FILE_BYTES_MAX:
        raise _wrong(path, f"it is larger than {_FILE_BYTES_MAX} bytes")
    return raw


def _wrong(path: Path, why: str) -> ConfigError:
    return ConfigError(
        f"{path} cannot be used",
        code="issuers.file",
        why=why,
        hint="docs/howto/programs-and-tenants.md shows how it is written",
    )
