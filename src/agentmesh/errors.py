"""Every error that AgentMesh raises, and the one table that maps each to HTTP, exit code and wire.

    MeshError
    ├── CallerError        you broke a rule here
    │   ├── ConfigError        a setting, file or flag is wrong
    │   ├── UsageError         a request or an argument is malformed
    │   ├── StateError         right call, wrong moment (already running, not started)
    │   ├── LimitError         larger, deeper or more than allowed
    │   └── TeamFileError      a team file is wrong
    ├── PeerError          they broke the protocol
    │   ├── DecodeError        bytes that are no message
    │   ├── SignatureError     a signature or a key that does not hold
    │   ├── ReplayError        an old or repeated message
    │   └── VersionError       a version or feature we do not speak
    ├── Refused            a lawful no
    │   ├── Unauthorized       no or wrong credentials
    │   ├── BudgetExceeded
    │   ├── TrustTooLow
    │   ├── Busy               try again after retry_after_s
    │   ├── LoopDetected
    │   └── ReadOnly           the kill switch is on
    ├── Unreached          no answer
    │   ├── Timeout
    │   ├── NoRoute
    │   └── Closed
    ├── NotFound
    │   ├── AgentNotFound      carries near names
    │   ├── RecordNotFound
    │   └── RunNotFound
    ├── AgentFailed        the called agent itself failed; carries its own error
    │   └── AgentCanceled      the task was canceled before it ended
    └── StoreError
        ├── Corrupt
        └── Full               disk full, read-only, or no permission

Local fault, remote fault and lawful refusal are different types, so that a caller can tell whose move is next.
``code`` is stable and dotted ("budget.exceeded"); ``detail`` may change between versions. ``why`` says what caused it
and ``hint`` is the next step, if possible a command that can be pasted.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple


class MeshError(Exception):
    """Root of all errors; never raised itself.

    Args:
        detail: One line for a person: what happened.
        code: Stable dotted code; the class default when left out.
        why: One line: the cause, when known.
        hint: One line: the next step, if possible a command.
        extra: Further JSON-ready members for problem details (``{"retry_after_s": 2}``).
    """

    code: str = "mesh.error"

    def __init__(
        self,
        detail: str,
        *,
        code: str | None = None,
        why: str | None = None,
        hint: str | None = None,
        extra: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        if code is not None:
            self.code = code
        self.detail = detail
        self.why = why
        self.hint = hint
        self.extra: dict[str, Any] = dict(extra or {})

    def __str__(self) -> str:
        return self.detail

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form used by the CLI, the HTTP API and the wire: code, message, why, hint and extras."""
        return {
            "code": self.code,
            "message": self.detail,
            **({"why": self.why} if self.why else {}),
            **({"hint": self.hint} if self.hint else {}),
            **self.extra,
        }


class CallerError(MeshError):
    """A rule was broken on this side; nothing was sent."""

    code = "caller.error"


class ConfigError(CallerError):
    """A setting, file or flag is wrong. No state changed."""

    code = "config.invalid"


class UsageError(CallerError):
    """A request or an argument is malformed. No state changed."""

    code = "usage.invalid"


class StateError(CallerError):
    """The call is right but the moment is wrong (already running, not started). No state changed."""

    code = "state.wrong"


class LimitError(CallerError):
    """Something is larger, deeper or more than allowed. No state changed."""

    code = "limit.exceeded"


class TeamFileError(CallerError):
    """A team file is wrong; the message names line and reason. No state changed."""

    code = "team.file"


class PeerError(MeshError):
    """The other side broke the protocol; what it sent was dropped."""

    code = "peer.error"


class DecodeError(PeerError):
    """Bytes that are no message of ours: malformed, truncated, oversized or too deep. No state changed."""

    code = "peer.decode"


class SignatureError(PeerError):
    """A signature, key or identity that does not hold. No state changed."""

    code = "peer.signature"


class ReplayError(PeerError):
    """An old, repeated or superseded message. No state changed."""

    code = "peer.replay"


class VersionError(PeerError):
    """A protocol version or feature that this node does not speak. No state changed."""

    code = "peer.version"


class Refused(MeshError):
    """A lawful no, given before any work started."""

    code = "refused"


class Unauthorized(Refused):
    """No or wrong credentials."""

    code = "refused.unauthorized"


class BudgetExceeded(Refused):
    """The budget of the call or the caller is spent."""

    code = "budget.exceeded"


class TrustTooLow(Refused):
    """The trust in the peer or agent is under the threshold."""

    code = "trust.low"


class Busy(Refused):
    """Rate, concurrency or queue limit reached; ``extra["retry_after_s"]`` says when to try again."""

    code = "refused.busy"

    def __init__(self, detail: str, *, retry_after_s: float = 1.0, **kwargs: Any) -> None:
        super().__init__(detail, **kwargs)
        self.extra.setdefault("retry_after_s", retry_after_s)

    @property
    def retry_after_s(self) -> float:
        """Seconds to wait before the next try, 0 to 86400; 1 when a peer sent something that is no duration."""
        value = self.extra.get("retry_after_s")
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 86_400:
            return 1.0
        return float(value)


class LoopDetected(Refused):
    """The chain of calls already contains the callee, or is too deep."""

    code = "refused.loop"


class ReadOnly(Refused):
    """The kill switch is on: reads work, calls and writes do not."""

    code = "refused.read_only"


class Unreached(MeshError):
    """No answer; whether the other side did any work is unknown unless the message says so."""

    code = "unreached"


class Timeout(Unreached):
    """No answer within the deadline."""

    code = "unreached.timeout"


class NoRoute(Unreached):
    """No address, path or living replica to reach the target; it has done no work."""

    code = "unreached.no_route"


class Closed(Unreached):
    """The connection, stream or daemon went away."""

    code = "unreached.closed"


class NotFound(MeshError):
    """The named thing does not exist here."""

    code = "not_found"


class AgentNotFound(NotFound):
    """No agent of that name or id in the directory; ``extra["did_you_mean"]`` lists near names."""

    code = "not_found.agent"

    @classmethod
    def near(cls, name: str, known: Iterable[str]) -> AgentNotFound:
        """Build the error with did-you-mean names, nearest first."""
        names = sorted(set(known))
        import difflib  # when somebody mistyped: 0.14 MB that an idle daemon does not need

        close = difflib.get_close_matches(name[:200], names[:5000], n=3, cutoff=0.5)
        hint = (
            f"did you mean {', '.join(repr(c) for c in close)}?" if close else "agentmesh discover   lists every agent"
        )
        return cls(
            f"no agent named {name[:200]!r}",
            why="it is neither registered here nor known from any connected node",
            hint=hint,
            extra={"did_you_mean": close},
        )


class RecordNotFound(NotFound):
    """No record under that key."""

    code = "not_found.record"


class RunNotFound(NotFound):
    """No run or task with that id or prefix."""

    code = "not_found.run"


class AgentFailed(MeshError):
    """The called agent itself failed; ``detail`` is its own text."""

    code = "agent.failed"


class AgentCanceled(AgentFailed):
    """The task was canceled before it ended."""

    code = "agent.canceled"


class StoreError(MeshError):
    """The local store failed; the failing write was not acknowledged."""

    code = "store.error"


class Corrupt(StoreError):
    """Stored bytes do not make sense; what could be rebuilt was rebuilt."""

    code = "store.corrupt"


class Full(StoreError):
    """The disk is full, read-only or closed to us. The failing write was not acknowledged."""

    code = "store.full"


class ErrorRow(NamedTuple):
    """Where one error goes: HTTP status, CLI exit code, and the short name that crosses the wire."""

    http: int
    exit: int
    wire: str


#: Exit codes of the CLI, published and frozen (docs/reference/cli.md).
EXIT_OK, EXIT_BUG, EXIT_USAGE, EXIT_AUTH, EXIT_UNREACHABLE = 0, 1, 2, 3, 4
EXIT_AGENT_FAILED, EXIT_NOT_FOUND, EXIT_TIMEOUT, EXIT_REFUSED, EXIT_WAITING, EXIT_INTERRUPTED = 5, 6, 7, 8, 9, 130

#: The one table: each leaf error → HTTP status, exit code, wire name. ``tests/test_errors.py`` checks that none lacks.
ERROR_TABLE: dict[type[MeshError], ErrorRow] = {
    ConfigError: ErrorRow(500, EXIT_USAGE, "config"),
    UsageError: ErrorRow(422, EXIT_USAGE, "usage"),
    StateError: ErrorRow(409, EXIT_USAGE, "state"),
    LimitError: ErrorRow(413, EXIT_USAGE, "limit"),
    TeamFileError: ErrorRow(422, EXIT_USAGE, "team_file"),
    DecodeError: ErrorRow(400, EXIT_BUG, "decode"),
    SignatureError: ErrorRow(403, EXIT_AUTH, "signature"),
    ReplayError: ErrorRow(409, EXIT_AUTH, "replay"),
    VersionError: ErrorRow(426, EXIT_USAGE, "version"),
    Unauthorized: ErrorRow(401, EXIT_AUTH, "unauthorized"),
    BudgetExceeded: ErrorRow(402, EXIT_REFUSED, "budget"),
    TrustTooLow: ErrorRow(403, EXIT_AUTH, "trust"),
    Busy: ErrorRow(429, EXIT_REFUSED, "busy"),
    LoopDetected: ErrorRow(508, EXIT_REFUSED, "loop"),
    ReadOnly: ErrorRow(503, EXIT_REFUSED, "read_only"),
    Timeout: ErrorRow(504, EXIT_TIMEOUT, "timeout"),
    NoRoute: ErrorRow(502, EXIT_UNREACHABLE, "no_route"),
    Closed: ErrorRow(502, EXIT_UNREACHABLE, "closed"),
    AgentNotFound: ErrorRow(404, EXIT_NOT_FOUND, "agent_not_found"),
    RecordNotFound: ErrorRow(404, EXIT_NOT_FOUND, "record_not_found"),
    RunNotFound: ErrorRow(404, EXIT_NOT_FOUND, "run_not_found"),
    AgentFailed: ErrorRow(502, EXIT_AGENT_FAILED, "agent_failed"),
    AgentCanceled: ErrorRow(409, EXIT_AGENT_FAILED, "agent_canceled"),
    Corrupt: ErrorRow(500, EXIT_BUG, "corrupt"),
    Full: ErrorRow(507, EXIT_BUG, "full"),
}

_BY_WIRE: dict[str, type[MeshError]] = {row.wire: cls for cls, row in ERROR_TABLE.items()}


#: ``type`` of a problem (RFC 9457) is a relative URI reference; its last segment is the wire name of the error.
PROBLEM_PREFIX = "/problems/"


def row_of(error: MeshError) -> ErrorRow:
    """Return the table row of an error's class or of its nearest ancestor that has one; (500, 1, "error") if none."""
    for cls in type(error).__mro__:
        if cls in ERROR_TABLE:
            return ERROR_TABLE[cls]
    return ErrorRow(500, EXIT_BUG, "error")


def to_wire(error: MeshError) -> dict[str, Any]:
    """Return the wire form: ``to_dict()`` plus ``type``, the short name from the table."""
    return {"type": row_of(error).wire, **error.to_dict()}


def from_wire(body: dict[str, Any]) -> MeshError:
    """Rebuild an error from its wire or API form. Unknown or malformed members never raise: the result is AgentFailed."""
    cls = _BY_WIRE.get(str(body.get("type", "")), AgentFailed)
    known = {"type", "code", "message", "why", "hint"}
    why, hint = body.get("why"), body.get("hint")
    error = cls(
        str(body.get("message", "failed"))[:4000],
        code=str(body["code"])[:100] if body.get("code") else None,
        why=str(why)[:1000] if why else None,
        hint=str(hint)[:1000] if hint else None,
    )
    error.extra.update({str(k)[:64]: v for k, v in list(body.items())[:32] if k not in known})
    return error


def problem_type(error: MeshError) -> str:
    """Return the ``type`` that names this kind of error in problem details and receipts."""
    return PROBLEM_PREFIX + row_of(error).wire
