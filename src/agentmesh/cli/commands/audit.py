"""``agentmesh audit show|verify|export|prove|verify-proof``: what this node wrote down of calls, refusals and changes.

All of it reads the files of the log, so it works whether or not the daemon runs, and on a copy.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentmesh.cli import i18n
from agentmesh.cli.output import Output, clip, printable
from agentmesh.cli.verb import built, group, new_app, verb

if TYPE_CHECKING:
    from agentmesh.identity.audit_record import AuditRecord
    from agentmesh.identity.checkpoint import Checkpoint

_OPTIONS = {"help_option_names": ["-h", "--help"]}
_FINDINGS_SHOWN = 20
_Directory = Annotated[Path | None, typer.Option("--dir", help="Directory of the log, or of a copy [HOME/audit].")]
_Key = Annotated[str, typer.Option("--key", help="did:key of the node whose log it must be.")]
_Ref = Annotated[str, typer.Argument(help="Number of a record, task or run id or the beginning of one, or 'last'.")]
_Action = Annotated[str, typer.Option("--action", help="Only these: call for calls both ways, or another action.")]
_Caller = Annotated[str, typer.Option("--caller", help="Only of this caller: its did:key or the beginning of it.")]
_Callee = Annotated[
    str, typer.Option("--callee", help="Only of this callee: its did:key, the beginning of it, or its name.")
]
_Result = Annotated[
    str, typer.Option("--result", help="Only with this decision, outcome or code: refused, completed, ….")
]
_Task = Annotated[str, typer.Option("--task", help="Only of this task, by its id or the beginning of it.")]
_Since = Annotated[str, typer.Option("--since", help="RFC 3339 time or its beginning, UTC: 2026-11-21T08.")]
_Until = Annotated[str, typer.Option("--until", help="As --since: only before it.")]
_Run = Annotated[str, typer.Option("--run", help="Only of this run, by its id or the beginning of it.")]
_Agent = Annotated[str, typer.Option("--agent", help="Only with this agent on either side: its id or name.")]


def show(
    out: Output,
    ref: Annotated[str, typer.Argument(help="One record in full; leave it out to list the newest.")] = "",
    lines: Annotated[int, typer.Option("--lines", "-n", help="How many of the newest.", min=1, max=10_000)] = 20,
    action: _Action = "",
    caller: _Caller = "",
    callee: _Callee = "",
    agent: _Agent = "",
    result: _Result = "",
    run: _Run = "",
    task: _Task = "",
    since: _Since = "",
    until: _Until = "",
    before: Annotated[int, typer.Option("--before", help="Only records with a lower number.", min=0)] = 2**53,
    directory: _Directory = None,
) -> None:
    """Show the newest audit records, or one in full with what would undo the call.

    \b
    agentmesh audit show
    agentmesh audit show last
    agentmesh audit show --action call --result refused
    """
    from agentmesh.store.audit_read import find
    from agentmesh.store.audit_survey import Wanted, look_back

    place = _place(out, directory)
    if ref:
        _show_one(out, find(place, ref))
        return
    wanted = Wanted(
        action=action,
        caller=caller,
        callee=callee,
        agent=agent,
        result=result,
        run=run,
        task=task,
        since=since,
        until=until,
    )
    look = look_back(place, wanted, limit=lines, before=before)
    newest = look.records[::-1]
    if out.json:
        out.data(
            {
                "records": [_json(record) for record in newest],
                "matching": look.matching,
                "digest": look.digest,
                "begin": look.begin,
                "end": look.end,
                "next": look.next,
            }
        )
        return
    from agentmesh.ids import short

    rows: list[list[str]] = []
    for record in newest:
        data = record.data
        who = str(data.get("name") or data.get("resource"))
        said = str(data.get("code") or data.get("outcome") or record.decision)
        rows.append(
            [
                str(record.seq),
                clip(record.time[:19].replace("T", " "), 19),
                record.action,
                clip(short(str(data.get("agent"))), 24),
                clip(short(who), 24),
                clip(said, 28),
                clip(str(data.get("purpose") or "-"), 32),
                "undo" if "remediation" in data else "-",
            ]
        )
    out.table(["#", "time", "action", "by", "of", "outcome", "purpose", "undo"], rows)
    counts = {
        "shown": len(newest),
        "matching": look.matching,
        "begin": look.begin,
        "end": max(look.begin, look.end - 1),
    }
    out.note(
        i18n.t("{shown} of {matching} that match among records {begin} to {end}", **counts) + f" · digest {look.digest}"
    )
    if look.begin and look.next is not None and look.matching <= len(newest):
        out.next(f"agentmesh audit show --before {look.next}", i18n.t("older ones"))
    out.next("agentmesh audit verify")


def verify(
    out: Output,
    directory: Annotated[Path | None, typer.Argument(help="The log or a copy of it [HOME/audit].")] = None,
    key: _Key = "",
    checkpoint: Annotated[
        Path | None,
        typer.Option("--checkpoint", help="An older checkpoint from elsewhere, that the log must continue."),
    ] = None,
) -> None:
    """Read every record and compare them with what the node signed; name what was changed, dropped or moved.

    \b
    agentmesh audit verify
    agentmesh audit verify /mnt/copy/audit --key did:key:z6Mk…

    It needs no daemon and no secret, only the id of the node.
    """
    from agentmesh.errors import Corrupt
    from agentmesh.store.audit_check import check_log

    node = key or (_own_id(out) if directory is None else "")
    pinned = [] if checkpoint is None else [_checkpoint(checkpoint, node)]
    checked = check_log(_place(out, directory), node=node or None, pinned=pinned)
    if checked.findings:
        found = [finding.text for finding in checked.findings]
        raise Corrupt(
            i18n.t("the audit log is not what was signed"),
            code="audit.changed",
            why=found[0] if len(found) == 1 else i18n.t("{count} findings", count=len(found) + checked.more),
            hint="keep the files as evidence, put a good copy back, and compare it with what other nodes pinned",
            extra={"findings": found, "more": checked.more, "log": found[:_FINDINGS_SHOWN]},
        )
    head = checked.head
    assert head is not None
    if out.json:
        out.data(
            {
                "verified": checked.size,
                "unsigned": checked.unsigned,
                "node_id": head.node_id,
                "checkpoint": head.text,
            }
        )
        return
    out.line((i18n.t("{count} records hold", count=checked.size), "head"), f" · {head.node_id}")
    if checked.unsigned:
        out.note(i18n.t("{count} of them are newer than the last signature", count=checked.unsigned))
    out.next("agentmesh audit prove last > proof.json")


def export(
    out: Output,
    since: _Since = "",
    until: _Until = "",
    run: _Run = "",
    agent: _Agent = "",
    action: _Action = "",
    caller: _Caller = "",
    callee: _Callee = "",
    result: _Result = "",
    task: _Task = "",
    directory: _Directory = None,
) -> None:
    """Write records as CloudEvents, one JSON object per line, exactly as they are hashed.

    \b
    agentmesh audit export --since 2026-11-01 > records.jsonl
    agentmesh audit export --run 8f3a91c2 > run.jsonl
    """
    from agentmesh.store.audit_survey import Wanted, pieces

    wanted = Wanted(
        action=action,
        caller=caller,
        callee=callee,
        agent=agent,
        result=result,
        run=run,
        task=task,
        since=since,
        until=until,
    )
    for piece in pieces(_place(out, directory), wanted):
        out.raw(piece.decode("utf-8"))


def prove(out: Output, ref: _Ref = "last", directory: _Directory = None) -> None:
    """Print a record with the proof that it is in the log that this node signed.

    \b
    agentmesh audit prove last > proof.json
    agentmesh audit verify-proof proof.json
    """
    from agentmesh.store.audit_read import prove as make_proof

    out.data(make_proof(_place(out, directory), ref, node=_own_id(out) or None if directory is None else None))


def verify_proof(
    out: Output,
    file: Annotated[str, typer.Argument(help="What 'audit prove' printed ('-' = stdin).")],
    key: _Key = "",
) -> None:
    """Check a proof with nothing but the id of the node, on any machine.

    \b
    agentmesh audit verify-proof proof.json --key did:key:z6Mk…
    """
    from agentmesh.store.audit_read import check_proof, read_proof

    record, head = check_proof(read_proof(_read(file)), node=key or None)
    if out.json:
        out.data({"record": _json(record), "index": record.seq, "size": head.size, "node_id": head.node_id})
        return
    _show_one(out, record)
    told = i18n.t(
        "record {seq} is among the {size} that {node} signed", seq=record.seq, size=head.size, node=head.node_id
    )
    out.line((told, "head"))


def _show_one(out: Output, record: AuditRecord) -> None:
    from agentmesh.identity.audit_record import undo_steps

    if out.json:
        out.data(_json(record))
        return
    out.line((f"{record.seq} ", "head"), f"{record.action} · {record.decision} · {clip(record.time, 40)}")
    for name, value in sorted(record.data.items()):
        if name not in ("seq", "action", "decision", "remediation"):
            out.line(f"  {clip(name, 20):<18} {clip(_plain(value), 400)}")
    for step in undo_steps(record):
        out.line(("  " + i18n.t("to undo:") + " ", "warn"), printable(_plain(step)))


def _plain(value: Any) -> str:
    import msgspec

    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _json(record: AuditRecord) -> dict[str, Any]:
    import msgspec

    return msgspec.json.decode(record.raw, type=dict[str, Any])


def _place(out: Output, directory: Path | None) -> Path:
    """Return the directory of the log. Raises UsageError: there is none."""
    from agentmesh.cli.connect import home_of
    from agentmesh.errors import UsageError

    place = home_of(out).audit if directory is None else directory
    if not place.is_dir() or not any(itertools.islice(place.glob("*.jsonl"), 1)):
        raise UsageError(
            f"there is no audit log in {place}",
            code="audit.none",
            hint="agentmesh up" if directory is None else "agentmesh audit verify HOME/audit",
        )
    return place


def _own_id(out: Output) -> str:
    """Return the id of the home's node, "" if it has no key."""
    from agentmesh.cli.connect import home_of
    from agentmesh.store.keyfile import load_or_create_key

    path = home_of(out).node_key
    return load_or_create_key(path).did if path.exists() else ""


def _checkpoint(path: Path, node: str) -> Checkpoint:
    from agentmesh.identity.checkpoint import read_checkpoint

    return read_checkpoint(_read(str(path)).decode("utf-8", "replace"), node=node or None)


def _read(source: str) -> bytes:
    """Read a small file, or stdin for "-". Raises UsageError."""
    from agentmesh.errors import UsageError
    from agentmesh.store.audit_read import PROOF_BYTES_MAX

    try:
        if source == "-":
            return sys.stdin.buffer.read(PROOF_BYTES_MAX + 1)
        with open(source, "rb") as file:
            return file.read(PROOF_BYTES_MAX + 1)
    except OSError as error:
        raise UsageError(
            f"{source[:200]!r} cannot be read",
            code="audit.proof_file",
            why=error.strerror,
            hint="agentmesh audit prove last > proof.json",
        ) from error


def build() -> Any:
    """Return the group."""
    app = new_app(context_settings=_OPTIONS)
    app.callback(invoke_without_command=True, help="Show, verify, export and prove what this node wrote down.")(
        group(show)
    )
    for name, body in (
        ("show", show),
        ("verify", verify),
        ("export", export),
        ("prove", prove),
        ("verify-proof", verify_proof),
    ):
        app.command(name, context_settings=_OPTIONS)(verb(body))
    return built(app)
