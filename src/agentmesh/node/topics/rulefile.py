"""This node's rules for topics: ``topics.toml`` in the home directory (docs/spec/topics.md §8).

    [[rules]]
    pattern = "ops.>"
    publish = ["planner", "did:key:z6Mk…"]
    subscribe = ["*"]

It is read again within two seconds of a change. A file with an error changes nothing: what was read before stays in force, and
until a first good one is read nobody may do anything.
"""

from __future__ import annotations

import json
import logging
import os
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from agentmesh.core.topics.rules import Rule, check_rules, rule_of
from agentmesh.errors import ConfigError, Full, MeshError

_log = logging.getLogger("agentmesh.topics")

FILE_BYTES_MAX = 1024 * 1024
_CACHE_MAX = 4_096
_NOBODY = (Rule(">", (), ()),)


class _File(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    rules: list[_Entry] = []


class _Entry(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    pattern: str
    publish: list[str] = msgspec.field(default_factory=lambda: ["*"])
    subscribe: list[str] = msgspec.field(default_factory=lambda: ["*"])


class RuleFile:
    """The rules as the file last made sense.

    Args:
        path: Where it is, if it is there.
        on_change: Called when other rules are in force.
    """

    def __init__(self, path: Path, on_change: Callable[[], None] = lambda: None) -> None:
        self.path, self.on_change = path, on_change
        #: What is wrong with the file now, for people; "" if nothing.
        self.warning = ""
        self.rules: tuple[Rule, ...] = ()
        self._seen: tuple[int, int, int] | None = None
        self._is_read = False
        self._cache: dict[str, Rule | None] = {}

    def refresh(self) -> None:
        """Read the file if it has changed. Never raises."""
        try:
            status = self.path.stat()
            seen = (status.st_mtime_ns, status.st_size, status.st_ino)
        except FileNotFoundError:
            seen = None
        except OSError as error:
            self._warn(f"{self.path} cannot be read: {error.strerror}")
            return
        if seen == self._seen and self._is_read:
            return
        self._seen = seen
        try:
            rules = () if seen is None else read_rules(self.path)
        except MeshError as error:
            held = (
                "the rules from before stay in force" if self._is_read else "nobody may use topics until it is mended"
            )
            self._warn(f"{error}{f': {error.why}' if error.why else ''}; {held}")
            if not self._is_read:
                self._set(_NOBODY)
            return
        self.warning, self._is_read = "", True
        if rules != self.rules:
            self._set(rules)

    def _set(self, rules: tuple[Rule, ...]) -> None:
        self.rules = rules
        self._cache.clear()
        self.on_change()

    def _warn(self, text: str) -> None:
        if text != self.warning:
            _log.error("%s", text)
        self.warning = text

    def of(self, subject: str) -> Rule | None:
        """Return the rule that decides on a subject; None where every member may."""
        if not self.rules:
            return None
        if subject not in self._cache:
            if len(self._cache) >= _CACHE_MAX:
                del self._cache[next(iter(self._cache))]
            self._cache[subject] = rule_of(self.rules, subject)
        return self._cache[subject]

    def replace(self, rules: Sequence[Rule]) -> None:
        """Write other rules to the file and obey them. Raises UsageError, LimitError, Full; nothing changed."""
        check_rules(rules)
        raw = "".join(_spell(rule) for rule in rules).encode()
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        try:
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.write(raw)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.path)
        except OSError as error:
            raise Full(f"cannot write {self.path}: {error.strerror}", hint=f"ls -l {self.path.parent}") from error
        self.refresh()


def _spell(rule: Rule) -> str:
    return (
        f"[[rules]]\npattern = {json.dumps(rule.pattern)}\npublish = {json.dumps(list(rule.publish))}\n"
        f"subscribe = {json.dumps(list(rule.subscribe))}\n\n"
    )


def read_rules(path: Path) -> tuple[Rule, ...]:
    """Read and check a file. Raises ConfigError (code "topic.file"): it says what makes no sense."""
    try:
        with open(path, "rb") as file:
            raw = file.read(FILE_BYTES_MAX + 1)
        if len(raw) > FILE_BYTES_MAX:
            raise ConfigError(f"{path} is larger than {FILE_BYTES_MAX} bytes", code="topic.file")
        read = msgspec.convert(tomllib.loads(raw.decode("utf-8")), _File)
        rules = tuple(Rule(one.pattern, tuple(one.publish), tuple(one.subscribe)) for one in read.rules)
        check_rules(rules)
    except ConfigError:
        raise
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError, msgspec.ValidationError) as error:
        raise ConfigError(f"{path} makes no sense", code="topic.file", why=str(error)[:300]) from error
    except MeshError as error:
        raise ConfigError(f"{path} makes no sense", code="topic.file", why=str(error)) from error
    return rules
