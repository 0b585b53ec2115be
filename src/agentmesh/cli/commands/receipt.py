"""``agentmesh receipt show|verify``: what callees signed of a call, and whether it holds."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentmesh.cli import i18n
from agentmesh.cli.connect import run_ids
from agentmesh.cli.output import Output, clip
from agentmesh.cli.verb import built, group, new_app, verb

if TYPE_CHECKING:
    from agentmesh.identity.receipt import Receipt
    from agentmesh.wire.proof_views import ReceiptView

_OPTIONS = {"help_option_names": ["-h", "--help"]}
_FILE_BYTES_MAX = 64 * 1024 * 1024
_Ref = Annotated[
    str, typer.Argument(help="Run or task id, a unique prefix of it, 'last' or 'last~1'.", autocompletion=run_ids)
]


def show(out: Output, ref: _Ref = "last") -> None:
    """Show the receipts of a run or task that are kept here.

    \b
    agentmesh receipt show last
    agentmesh receipt show last --json > receipts.json

    The JSON holds receipts and tokens as they were signed; 'receipt verify' checks it on any machine.
    """
    kept = _fetch(out, ref)
    if out.json:
        from agentmesh.wire.proof_views import ReceiptList

        out.data(ReceiptList(receipts=kept))
        return
    from agentmesh.ids import short
    from agentmesh.node.receipt_check import check_kept

    rows: list[list[str]] = []
    for one in kept:
        receipt, token = check_kept(one)
        said = receipt.claims
        problem = said.problem.rpartition("/")[2] if said.problem else "-"
        purpose = clip(token.claims.purpose, 32) or "-"
        took = f"{said.usage.wall_ms} ms"
        rows.append(
            [said.outcome, short(receipt.issuer), short(token.caller), purpose, took, problem, one.task_id[:12]]
        )
    out.table(["outcome", "callee", "caller", "purpose", "took", "problem", "task"], rows)
    out.next(f"agentmesh receipt verify {ref}")


def verify(
    out: Output,
    source: Annotated[
        str, typer.Argument(help="Run or task id, 'last', or a file that 'receipt show --json' wrote ('-' = stdin).")
    ] = "last",
    offline: Annotated[bool, typer.Option("--offline", help="Read a file and ask no node.")] = False,
) -> None:
    """Check receipts with nothing but what they hold: signatures, that each belongs to its call, and how they are linked.

    \b
    agentmesh receipt verify last
    agentmesh receipt verify receipts.json --offline

    The ids of caller and callee are their public keys, so no key and no node is needed.
    """
    from agentmesh.node.receipt_check import check_kept, follow_each_other

    is_file = source == "-" or Path(source).is_file()
    kept = _read(source) if is_file or offline else _fetch(out, source)
    chains: dict[tuple[str, str], list[Receipt]] = {}
    for one in kept:
        receipt, token = check_kept(one)
        chains.setdefault((receipt.issuer, token.caller), []).append(receipt)
        if not out.json:
            _tell(out, one, receipt)
    linked = follow_each_other(chains.values())
    if out.json:
        out.data({"verified": len(kept), "linked": linked, "receipts": [one.hash for one in kept]})
    else:
        one_text, many = i18n.t("1 receipt holds"), i18n.t("{count} receipts hold", count=len(kept))
        out.line((one_text if len(kept) == 1 else many, "head"))
        if not linked:
            out.note(i18n.t("other calls of the same agents lie between them, or receipts are missing"))


def _tell(out: Output, one: ReceiptView, receipt: Receipt) -> None:
    from agentmesh.ids import short

    said = receipt.claims
    out.check(
        "ok", said.outcome, f"{short(receipt.issuer)} → {short(said.aud)} · task {one.task_id[:12]} · {one.hash[:12]}"
    )


def _fetch(out: Output, ref: str) -> list[ReceiptView]:
    from agentmesh.cli.connect import connect

    with connect(out) as mesh:
        return mesh.receipts(ref)


def _read(source: str) -> list[ReceiptView]:
    """Read a file of receipts. Raises UsageError."""
    import msgspec

    from agentmesh.errors import UsageError
    from agentmesh.wire.proof_views import ReceiptList

    hint = "agentmesh receipt show last --json > receipts.json"
    try:
        if source != "-" and Path(source).stat().st_size > _FILE_BYTES_MAX:
            raise UsageError(
                f"{source} is larger than {_FILE_BYTES_MAX >> 20} MB", code="usage.receipt_file", hint=hint
            )
        raw = sys.stdin.buffer.read(_FILE_BYTES_MAX) if source == "-" else Path(source).read_bytes()
        return msgspec.json.decode(raw, type=ReceiptList).receipts
    except OSError as error:
        raise UsageError(
            f"{source[:200]!r} cannot be read", code="usage.receipt_file", why=error.strerror, hint=hint
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(
            f"{source[:200]!r} is no list of receipts", code="usage.receipt_file", why=str(error), hint=hint
        ) from error


def build() -> Any:
    """Return the group."""
    app = new_app(context_settings=_OPTIONS)
    app.callback(invoke_without_command=True, help="Show and verify what callees signed of a call.")(group(show))
    for name, body in (("show", show), ("verify", verify)):
        app.command(name, context_settings=_OPTIONS)(verb(body))
    return built(app)
