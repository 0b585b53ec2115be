"""``federation.toml``: which partner sees which agents, and which seeds may tell of whom. Default closed.

    [partners.globex]
    key = "did:key:z6Mk…"                          # of its organisation, or of a single node
    agents = ["calc", "re*", "tag:finance", "did:key:z6Mk…"]
    reshare = false                                # may it pass them on to its own partners?
    hint = "https://mesh.globex.example:7443"      # where to tell it of changes; "" = it asks by itself

    [seeds.globex]
    url = "https://mesh.globex.example:7443"
    organisation = "did:key:z6Mk…"                 # who must answer there; "" = whoever answers first
    allow = ["did:key:z6Mk…"]                      # organisations besides its own of which it may tell

The file is looked at every few seconds; one with an error leaves what was in force.
"""

from __future__ import annotations

import fnmatch
import logging
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from agentmesh.errors import ConfigError, MeshError
from agentmesh.identity.federation_proof import origin_of
from agentmesh.identity.manifest import Manifest
from agentmesh.ids import public_key_of
from agentmesh.node.policy.files import read_one
from agentmesh.node.policy.lists import fold_tag

_log = logging.getLogger("agentmesh.federation")

PARTNERS_MAX = 64
SEEDS_MAX = 32
#: Patterns of one partner, and characters of one.
AGENTS_MAX = 1_000
_PATTERN_CHARS_MAX = 128
_ALLOW_MAX = 64
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?", re.ASCII)


class _Partner(msgspec.Struct, forbid_unknown_fields=True):
    key: str
    agents: list[str] = []
    reshare: bool = False
    hint: str = ""


class _Seed(msgspec.Struct, forbid_unknown_fields=True):
    url: str
    organisation: str = ""
    allow: list[str] = []


class _File(msgspec.Struct, forbid_unknown_fields=True):
    partners: dict[str, _Partner] = {}
    seeds: dict[str, _Seed] = {}


class Partner(NamedTuple):
    """Somebody who may see agents.

    Attributes:
        name: In the file.
        key: did:key of an organisation or of a node.
        names: Patterns of names, folded.
        tags: Folded.
        ids: did:keys.
        reshare: It may pass on what it sees.
        hint: Origin of its listener; "" = none.
    """

    name: str
    key: str
    names: tuple[str, ...]
    tags: frozenset[str]
    ids: frozenset[str]
    reshare: bool
    hint: str

    def sees(self, manifest: Manifest) -> bool:
        """Say whether the list names an agent: by id, name or tag."""
        if manifest.agent_id in self.ids:
            return True
        name = manifest.name.casefold()
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in self.names):
            return True
        if not self.tags:
            return False
        return any(fold_tag(str(tag)) in self.tags for skill in manifest.skills for tag in skill.get("tags", ()))


class Seed(NamedTuple):
    """Somebody to pull from.

    Attributes:
        url: Its origin.
        organisation: did:key of the organisation or node that must answer; "" = any.
        allow: Organisations besides its own of which it may tell.
    """

    url: str
    organisation: str = ""
    allow: frozenset[str] = frozenset()


class Rules(NamedTuple):
    """What the file says: partners by key, seeds by origin."""

    partners: Mapping[str, Partner]
    seeds: Mapping[str, Seed]


NO_RULES = Rules({}, {})


class RulesFile:
    """Keep the rules in line with the file.

    Args:
        path: The file; it need not exist.
        seeds: Of the setting ``federation_seeds``, each ``[did:key:…@]URL``; those of the file come after them.
    """

    def __init__(self, path: Path, seeds: tuple[str, ...] = ()) -> None:
        self.path, self._seeds = path, {one.url: one for one in map(parse_seed, seeds)}
        self.rules = Rules({}, dict(self._seeds))
        #: Why the file is not in force as it is; "" if it is.
        self.problem = ""
        self._mark: object = ()

    def refresh(self) -> bool:
        """Look at the file; say whether other rules are in force now. Never raises."""
        mark = _mark(self.path)
        if mark == self._mark:
            return False
        self._mark = mark
        try:
            rules = NO_RULES if mark is None else read_rules(self.path)
        except ConfigError as error:
            self.problem = f"{error}" + (f" ({error.why})" if error.why else "")
            _log.error("%s; the former rules stay in force", self.problem)
            return False
        self.problem = ""
        rules = Rules(rules.partners, {**self._seeds, **rules.seeds})
        if rules == self.rules:
            return False
        self.rules = rules
        _log.info("federation: %d partners, %d seeds", len(rules.partners), len(rules.seeds))
        return True


def parse_seed(text: str) -> Seed:
    """Return a seed as a setting spells it: ``URL``, or ``did:key:…@URL`` for one that must be answered by that key.

    Raises:
        ConfigError: it is neither (code "federation.seed").
    """
    who, at, url = text.strip().rpartition("@")
    try:
        if at:
            public_key_of(who)
        return Seed(origin_of(url), who)
    except MeshError as error:
        raise ConfigError(
            f"{text[:160]!r} is no seed of a federation",
            code="federation.seed",
            why=str(error),
            hint="https://mesh.partner.example:7443, or did:key:z6Mk…@https://mesh.partner.example:7443",
        ) from error


def read_rules(path: Path) -> Rules:
    """Read the file.

    Raises:
        ConfigError: code "federation.file"; names line and reason. Nothing is kept.
    """
    try:
        text = read_one(path, inside=path.parent).text
    except ConfigError as error:
        raise ConfigError(str(error), code="federation.file", why=error.why, hint=error.hint) from error
    try:
        file = msgspec.convert(tomllib.loads(text), _File)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        at = re.search(r"at line (\d+)", str(error))
        raise _bad(path, int(at[1]) if at else 0, "is not valid TOML", str(error)[:300]) from error
    except msgspec.ValidationError as error:
        field = re.search(r"unknown field `([^`]*)`", str(error)) or re.search(r"\$\.\w+\[[^\]]*\]\.(\w+)", str(error))
        line = _line_of(text, field[1]) if field else 0
        raise _bad(path, line, "is not as it should be", str(error)) from error
    if len(file.partners) > PARTNERS_MAX or len(file.seeds) > SEEDS_MAX:
        raise _bad(path, 0, f"more than {PARTNERS_MAX} partners or {SEEDS_MAX} seeds")
    partners: dict[str, Partner] = {}
    for name, given in file.partners.items():
        line = _line_of(text, f"partners.{name}") or _line_of(text, given.key)
        try:
            partner = _partner(name, given)
        except MeshError as error:
            raise _bad(path, line, f"partner {name[:64]!r}: {error}", error.why or "") from error
        if partner.key in partners:
            raise _bad(path, line, f"{name!r} and {partners[partner.key].name!r} have the same key")
        partners[partner.key] = partner
    seeds: dict[str, Seed] = {}
    for name, one in file.seeds.items():
        line = _line_of(text, f"seeds.{name}") or _line_of(text, one.url)
        try:
            for key in (*((one.organisation,) if one.organisation else ()), *one.allow):
                public_key_of(key)
            if len(one.allow) > _ALLOW_MAX:
                raise ConfigError(f"allow names more than {_ALLOW_MAX} organisations")
            seeds[origin_of(one.url)] = Seed(origin_of(one.url), one.organisation, frozenset(one.allow))
        except MeshError as error:
            raise _bad(path, line, f"seed {name[:64]!r}: {error}", error.why or "") from error
    return Rules(partners, seeds)


def _partner(name: str, given: _Partner) -> Partner:
    if not _NAME.fullmatch(name):
        raise ConfigError("a partner's name is 1 to 64 of a-z 0-9 . _ -, a letter or digit at both ends")
    public_key_of(given.key)
    if len(given.agents) > AGENTS_MAX:
        raise ConfigError(f"agents has more than {AGENTS_MAX} entries")
    names: list[str] = []
    tags: list[str] = []
    ids: list[str] = []
    for one in given.agents:
        if not 0 < len(one) <= _PATTERN_CHARS_MAX or not one.isprintable():
            raise ConfigError(f"{one[:40]!r} names no agent")
        if one.startswith("did:"):
            public_key_of(one)
            ids.append(one)
        elif one.startswith("tag:"):
            tags.append(fold_tag(one[4:]))
        else:
            names.append(one.casefold())
    return Partner(
        name,
        given.key,
        tuple(names),
        frozenset(tags),
        frozenset(ids),
        given.reshare,
        origin_of(given.hint) if given.hint else "",
    )


def _bad(path: Path, line: int, what: str, why: str = "") -> ConfigError:
    where = f"{path.name}:{line}" if line else path.name
    return ConfigError(
        f"{where}: {what}",
        code="federation.file",
        why=why or None,
        hint="docs/howto/federate.md shows a whole file",
        extra={"file": path.name, "line": line},
    )


def _line_of(text: str, value: str) -> int:
    at = text.find(value)
    return 0 if at < 0 or not value else text.count("\n", 0, at) + 1


def _mark(path: Path) -> object:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino, status.st_mode
