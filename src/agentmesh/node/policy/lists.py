"""Organisations, tags, and the allow, deny and grey lists: ``policies/lists.toml``, and what trusted issuers publish.

An entry names a key (``did:key:…``), an organisation (``organisation:acme``) or a tag (``tag:finance``). Which keys are an
organisation's, and which tags they have, is what the operator of this node writes; what a published list calls an
organisation is therefore what it is called here.
"""

from __future__ import annotations

import re
import tomllib
import unicodedata
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import msgspec

from agentmesh.errors import ConfigError, DecodeError, MeshError
from agentmesh.ids import public_key_of
from agentmesh.node.policy.facts import OWN
from agentmesh.node.policy.files import Source, bad_file

ENTRIES_MAX = 10_000
GROUPS_MAX = 1_000
ISSUERS_MAX = 16
_TAG_CHARS_MAX = 64
_WHY_CHARS_MAX = 200
_ORGANISATION = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?", re.ASCII)

ListName = Literal["deny", "allow", "grey"]
LIST_NAMES: tuple[ListName, ...] = ("deny", "allow", "grey")
OutName = Literal["deny", "confined"]
OUT_NAMES: tuple[OutName, ...] = ("deny", "confined")


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One entry with a reason that may be told to whom it concerns."""

    who: str
    why: str = ""


class _Group(msgspec.Struct, forbid_unknown_fields=True):
    keys: list[str]


class _Out(msgspec.Struct, forbid_unknown_fields=True):
    deny: list[str | Entry] = []
    confined: list[str | Entry] = []


class _File(msgspec.Struct, forbid_unknown_fields=True):
    organisations: dict[str, _Group] = {}
    tags: dict[str, _Group] = {}
    deny: list[str | Entry] = []
    allow: list[str | Entry] = []
    grey: list[str | Entry] = []
    grey_trust_min: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0
    out: _Out = msgspec.field(default_factory=_Out)


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    deny: list[str | Entry] = []
    allow: list[str | Entry] = []
    grey: list[str | Entry] = []


class Listed(NamedTuple):
    """Where somebody was found.

    Attributes:
        who: The entry.
        why: Its reason, "" if it gives none.
        source: ``lists.toml:7``, or the issuer of a published list.
        rank: 2 by key, 1 by organisation, 0 by tag: the more particular entry wins.
    """

    who: str
    why: str
    source: str
    rank: int


Index = dict[str, tuple[str, str]]


class Lists(NamedTuple):
    """What ``lists.toml`` says.

    Attributes:
        organisation_of: did:key → name of its organisation.
        tags_of: did:key → its tags, folded.
        entries: For each list, entry → (reason, source).
        grey_trust_min: Trust below which a grey caller is refused, 0 … 1.
        out: Of calls that leave, entry → (reason, source): whom nobody here calls, and which agents here call nobody elsewhere.
    """

    organisation_of: Mapping[str, str]
    tags_of: Mapping[str, tuple[str, ...]]
    entries: Mapping[ListName, Index]
    grey_trust_min: float
    out: Mapping[OutName, Index]

    @property
    def organisations(self) -> list[str]:
        """The names of all organisations."""
        return list(dict.fromkeys((OWN, *self.organisation_of.values())))


NO_LISTS = Lists({}, {}, {name: {} for name in LIST_NAMES}, 0.0, {name: {} for name in OUT_NAMES})


def fold_tag(text: str) -> str:
    """Return the form in which tags are compared: spelling and letter case do not matter; look-alikes stay different."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).strip()


def read_lists(source: Source) -> Lists:
    """Read the text of ``lists.toml``.

    Raises:
        ConfigError: code "policy.file"; names line and reason. Nothing is kept.
    """
    text, name = source.text, source.name
    try:
        file = msgspec.convert(tomllib.loads(text), _File)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        at = re.search(r"at line (\d+)", str(error))
        line = int(at[1]) if at else text.count("\n") + 1 if "end of document" in str(error) else 0
        raise bad_file(name, "is not valid TOML", line=line, why=str(error)[:300]) from error
    except msgspec.ValidationError as error:
        key = re.search(r"unknown field `([^`]*)`", str(error))
        raise bad_file(
            name,
            "is not as it should be",
            line=_line_of(text, key[1]) if key else 0,
            why=str(error),
            hint="it holds deny, allow, grey, grey_trust_min, [organisations.NAME] and [tags.NAME] keys, [out] deny, confined",
        ) from error
    if len(file.organisations) > GROUPS_MAX or len(file.tags) > GROUPS_MAX:
        raise bad_file(name, f"more than {GROUPS_MAX} organisations or tags")
    organisation_of: dict[str, str] = {}
    tags_of: dict[str, tuple[str, ...]] = {}
    for organisation, group in file.organisations.items():
        if not _ORGANISATION.fullmatch(organisation):
            why = "1 to 64 of a-z 0-9 . _ -, a letter or digit at both ends"
            raise bad_file(
                name, f"{organisation[:64]!r} is no name of an organisation", line=_line_of(text, organisation), why=why
            )
        for key in group.keys:
            _check_key(name, text, key)
            if (other := organisation_of.setdefault(key, organisation)) != organisation:
                raise bad_file(
                    name,
                    f"{key} is in two organisations, {other} and {organisation}",
                    line=_line_of(text, key),
                    why="each key belongs to one, or nobody could say whose it is",
                )
    for tag, group in file.tags.items():
        folded = fold_tag(tag)
        if not 0 < len(folded) <= _TAG_CHARS_MAX or not folded.isprintable():
            raise bad_file(name, f"{tag[:64]!r} is no tag", line=_line_of(text, tag))
        for key in group.keys:
            _check_key(name, text, key)
            tags_of[key] = tuple(dict.fromkeys((*tags_of.get(key, ()), folded)))
    if len(organisation_of) + len(tags_of) > ENTRIES_MAX:
        raise bad_file(name, f"more than {ENTRIES_MAX} keys")
    known = {OWN, *file.organisations}
    entries: dict[ListName, Index] = {which: _index(source, which, getattr(file, which), known) for which in LIST_NAMES}
    out: dict[OutName, Index] = {
        which: _index(source, f"out.{which}", getattr(file.out, which), known) for which in OUT_NAMES
    }
    return Lists(organisation_of, tags_of, entries, file.grey_trust_min, out)


def _index(source: Source, which: str, items: Sequence[str | Entry], known: Collection[str]) -> Index:
    """Return the entries of one list: entry → (reason, where it stands). Raises ConfigError."""
    text, name = source.text, source.name
    index: Index = {}
    for given in items:
        entry = Entry(given) if isinstance(given, str) else given
        line = _line_of(text, entry.who)
        try:
            who = _checked(entry)
        except MeshError as error:
            raise bad_file(name, str(error), line=line, why=error.why or "") from error
        organisation = who.removeprefix("organisation:")
        if organisation != who and organisation not in known:
            raise bad_file(
                name,
                f"{which} names the organisation {organisation!r}, which is not in this file",
                line=line,
                why=f"known are {', '.join(sorted(known))[:300]}",
                hint=f"add [organisations.{organisation}] with its keys",
            )
        if which == "out.confined" and organisation != who:
            raise bad_file(name, "out.confined names keys and tags of agents at this node", line=line)
        index[who] = (entry.why, f"{name}:{line}" if line else name)
    if len(index) > ENTRIES_MAX:
        raise bad_file(name, f"{which} has more than {ENTRIES_MAX} entries")
    return index


class Published:
    """The lists that trusted issuers publish: the newest of each, gone when it is withdrawn. Kept in memory only.

    Args:
        on_change: Called after each change.
    """

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._bodies: dict[str, tuple[int, Mapping[ListName, Index]]] = {}

    def apply(self, issuer: str, seq: int, body: Mapping[str, Any]) -> bool:
        """Take an issuer's list in place of its former one.

        Args:
            issuer: did:key of somebody this node obeys; whether that is so, the caller has checked, and the signature too.
            seq: Rises with every list of this issuer.
            body: ``{"allow": […], "deny": […], "grey": […]}``; each may be missing. An entry is text or ``{"who", "why"}``.

        Returns:
            False if one with this ``seq`` or a higher one is in force already.

        Raises:
            DecodeError: the body is no list (code "policy.list"). The former one stays in force.
            ConfigError: too many issuers. Nothing changed.
        """
        former = self._bodies.get(issuer)
        if former is not None and seq <= former[0]:
            return False
        if former is None and len(self._bodies) >= ISSUERS_MAX:
            raise ConfigError(f"lists of {ISSUERS_MAX} issuers are in force, no more are taken", code="policy.issuers")
        try:
            given = msgspec.convert(body, _Body)
            entries: dict[ListName, Index] = {}
            for which in LIST_NAMES:
                items: list[str | Entry] = getattr(given, which)
                if len(items) > ENTRIES_MAX:
                    raise DecodeError(f"{which} has more than {ENTRIES_MAX} entries")
                checked = [Entry(one) if isinstance(one, str) else one for one in items]
                entries[which] = {_checked(one): (one.why, issuer) for one in checked}
        except (msgspec.ValidationError, MeshError) as error:
            raise DecodeError(
                "a published list cannot be read",
                code="policy.list",
                why=str(error),
                hint="each entry is a did:key, organisation:NAME or tag:NAME",
            ) from error
        self._bodies[issuer] = (seq, entries)
        self._on_change()
        return True

    def withdraw(self, issuer: str) -> bool:
        """Forget an issuer's list; False if there was none. A later ``apply`` may bring any ``seq``."""
        if self._bodies.pop(issuer, None) is None:
            return False
        self._on_change()
        return True

    def issuers(self) -> list[tuple[str, int, int]]:
        """Return (issuer, seq, number of entries) of each list in force."""
        return [(who, seq, sum(map(len, entries.values()))) for who, (seq, entries) in self._bodies.items()]

    def merged(self, entries: Mapping[ListName, Index]) -> dict[ListName, Index]:
        """Return the operator's own entries with the published ones under them."""
        merged: dict[ListName, Index] = {}
        for which in LIST_NAMES:
            merged[which] = {}
            for issuer in sorted(self._bodies):
                merged[which].update(self._bodies[issuer][1][which])
            merged[which].update(entries[which])
        return merged


def look_up(
    index: Index, *, keys: tuple[str, ...], organisation: str, home: bool, tags: tuple[str, ...]
) -> Listed | None:
    """Return the most particular entry that names one of these, None if none does."""
    if not index:
        return None
    wanted = [(key, 2) for key in keys]
    wanted += [(f"organisation:{name}", 1) for name in (organisation, OWN if home else "") if name]
    wanted += [(f"tag:{tag}", 0) for tag in tags]
    for who, rank in wanted:
        if (found := index.get(who)) is not None:
            return Listed(who, found[0], found[1], rank)
    return None


def _checked(entry: Entry) -> str:
    """Return an entry as it is compared. Raises MeshError."""
    if len(entry.why) > _WHY_CHARS_MAX or not entry.why.isprintable():
        raise DecodeError(f"the reason of an entry is one line of at most {_WHY_CHARS_MAX} characters")
    kind, _, name = entry.who.partition(":")
    if kind == "organisation" and _ORGANISATION.fullmatch(name):
        return entry.who
    if kind == "tag" and 0 < len(folded := fold_tag(name)) <= _TAG_CHARS_MAX and folded.isprintable():
        return f"tag:{folded}"
    try:
        public_key_of(entry.who)
    except DecodeError as error:
        raise DecodeError(
            f"{entry.who[:80]!r} is no entry", why="an entry is a did:key, organisation:NAME or tag:NAME"
        ) from error
    return entry.who


def _check_key(name: str, text: str, key: str) -> None:
    try:
        public_key_of(key)
    except DecodeError as error:
        raise bad_file(name, str(error), line=_line_of(text, key)) from error


def _line_of(text: str, value: str) -> int:
    """Return the first line that holds a value, 0 if none does as it is written."""
    at = text.find(value)
    return 0 if at < 0 or not value else text.count("\n", 0, at) + 1
