"""What an operator says of single callers and agents: ``guard.toml`` in the home directory (docs/spec/guard.md §5).

    [callers."*"]                        # each caller that has no entry of its own
    qps = 20
    [callers."did:key:z6Mk…"]
    weight = 4
    per_day = "usd=5,calls=1000"
    [agents.reviewer]
    concurrency = 2
    per_call = "usd=0.50,wall=60s"

It is read again within a second of a change. A file with an error changes nothing: what was read before stays in force.
"""

from __future__ import annotations

import logging
import stat
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import msgspec

from agentmesh.core.budget.bucket import BURST_MAX
from agentmesh.core.budget.limits import CallerLimits
from agentmesh.errors import ConfigError, MeshError
from agentmesh.identity.budget import UNBOUNDED, Budget
from agentmesh.ids import is_name, public_key_of

_log = logging.getLogger("agentmesh.guard")

FILE_BYTES_MAX = 1024 * 1024
ENTRIES_MAX = 10_000
#: How often the file is looked at, seconds.
LOOK_EVERY_S = 1.0

_Rate = Annotated[float, msgspec.Meta(gt=0, le=1_000_000)]
_Count = Annotated[int, msgspec.Meta(ge=1, le=BURST_MAX)]
_Room = Annotated[int, msgspec.Meta(ge=0, le=BURST_MAX)]


class CallerEntry(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, frozen=True):
    """One caller, by did:key; "*" is every caller that is not named.

    Attributes:
        qps, burst, concurrency, queue, weight: At each agent (``core.budget.limits.CallerLimits``).
        per_call: What one call may use at most, as ``Budget.from_text`` reads it; also the budget of a call that names none.
        per_day: What all its calls at this node may use in one day (UTC).
    """

    qps: _Rate | None = None
    burst: _Count | None = None
    concurrency: _Count | None = None
    queue: _Room | None = None
    weight: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 1
    per_call: str = ""
    per_day: str = ""


class AgentEntry(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, frozen=True):
    """One agent beside this node, by name; what is given here counts more than its manifest and the settings.

    Attributes:
        qps, burst, concurrency, queue, wait_s: Of all its callers together (``core.budget.limits.GateLimits``).
        per_call, per_day: As in ``CallerEntry``, for all its callers together.
    """

    qps: _Rate | None = None
    burst: _Count | None = None
    concurrency: _Count | None = None
    queue: _Room | None = None
    wait_s: Annotated[float, msgspec.Meta(gt=0, le=3_600)] | None = None
    per_call: str = ""
    per_day: str = ""


class _File(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    callers: dict[str, CallerEntry] = {}
    agents: dict[str, AgentEntry] = {}


class Bounds:
    """One entry, ready for use.

    Attributes:
        limits: Of the caller; of an agent only as its entry says.
        per_call, per_day: Budgets.
    """

    __slots__ = ("entry", "limits", "per_call", "per_day")

    def __init__(self, entry: CallerEntry | AgentEntry) -> None:
        self.entry = entry
        self.per_call, self.per_day = Budget.from_text(entry.per_call), Budget.from_text(entry.per_day)
        self.limits = CallerLimits()
        if isinstance(entry, CallerEntry):
            self.limits = CallerLimits(entry.qps, entry.burst, entry.concurrency, entry.queue, entry.weight)


_ANY, _NO_CALLER, _NO_AGENT = "*", Bounds(CallerEntry()), Bounds(AgentEntry())


class GuardFile:
    """The file as it was when it last made sense.

    Args:
        path: Where it is, if it is there.
        on_change: Called when what it says is in force.
    """

    def __init__(self, path: Path, on_change: Callable[[], None] = lambda: None) -> None:
        self.path, self.on_change = path, on_change
        #: What is wrong with the file now, for people; "" if nothing.
        self.warning = ""
        #: Rises with every change that was taken.
        self.version = 0
        self._callers: dict[str, Bounds] = {}
        self._agents: dict[str, Bounds] = {}
        self._seen: tuple[int, int, int] | None = None
        self._look_s = float("-inf")

    def look(self, now_s: float) -> None:
        """Read the file if it has changed, at most once in ``LOOK_EVERY_S``. Never raises."""
        if abs(now_s - self._look_s) < LOOK_EVERY_S:
            return
        self._look_s = now_s
        try:
            status = self.path.stat()
            if not stat.S_ISREG(status.st_mode):  # reading a pipe could take for ever
                self._warn(f"{self.path} is no file")
                return
            seen = (status.st_mtime_ns, status.st_size, status.st_ino)
        except FileNotFoundError:
            seen = None
        except OSError as error:
            self._warn(f"{self.path} cannot be read: {error.strerror}")
            return
        if seen == self._seen:
            return
        self._seen = seen
        try:
            callers, agents = ({}, {}) if seen is None else read_guard(self.path)
        except MeshError as error:
            self._warn(f"{error}{f': {error.why}' if error.why else ''}; the limits from before stay in force")
            return
        self.warning = ""
        self._callers, self._agents = callers, agents
        self.version += 1
        self.on_change()

    def _warn(self, text: str) -> None:
        if text != self.warning:
            _log.error("%s", text)
        self.warning = text

    def caller(self, did: str) -> Bounds:
        """Return what is said of a caller."""
        return self._callers.get(did) or self._callers.get(_ANY) or _NO_CALLER

    def agent(self, name: str) -> Bounds:
        """Return what is said of an agent."""
        return self._agents.get(name.casefold()) or _NO_AGENT


def read_guard(path: Path) -> tuple[dict[str, Bounds], dict[str, Bounds]]:
    """Read and check a file: (by caller, by agent name in lower case).

    Raises:
        ConfigError: it cannot be read, is too large, or says what makes no sense; names place and reason.
    """
    try:
        with open(path, "rb") as file:
            raw = file.read(FILE_BYTES_MAX + 1)
        if len(raw) > FILE_BYTES_MAX:
            raise ConfigError(f"{path} is larger than {FILE_BYTES_MAX} bytes", code="guard.file")
        read = msgspec.convert(tomllib.loads(raw.decode("utf-8")), _File)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError, msgspec.ValidationError) as error:
        raise ConfigError(f"{path} makes no sense", code="guard.file", why=str(error)[:300]) from error
    if len(read.callers) + len(read.agents) > ENTRIES_MAX:
        raise ConfigError(f"{path} has more than {ENTRIES_MAX} entries", code="guard.file")
    callers = {did: _bounds(path, "callers", did, entry) for did, entry in read.callers.items()}
    agents = {name.casefold(): _bounds(path, "agents", name, entry) for name, entry in read.agents.items()}
    return callers, agents


def _bounds(path: Path, table: str, name: str, entry: Any) -> Bounds:
    where = f'{path} [{table}."{name[:80]}"]'
    try:
        if table == "agents" and not is_name(name):
            raise ConfigError("no agent can have this name")
        if table == "callers" and name != _ANY:
            public_key_of(name)
        bounds = Bounds(entry)
        if "wall_ms" in _bounded(bounds.per_day):
            raise ConfigError("per_day bounds usd, tokens and calls; the time of a call is bounded by per_call")
        return bounds
    except MeshError as error:
        raise ConfigError(f"{where} makes no sense", code="guard.file", why=error.why or str(error)) from error


def _bounded(budget: Budget) -> dict[str, int | str]:
    return {} if budget is UNBOUNDED else budget.to_claim()
