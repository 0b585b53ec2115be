"""``agentmesh operator``: the key whose orders nodes obey, the lists it publishes and the keys it revokes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentmesh.cli import i18n
from agentmesh.cli.output import Output
from agentmesh.cli.verb import built, group, new_app, verb

if TYPE_CHECKING:
    from agentmesh.identity.order import Lists

_OPTIONS = {"help_option_names": ["-h", "--help"]}
_FILE_BYTES_MAX = 1024 * 1024
_Dids = Annotated[list[str], typer.Argument(help="did:keys of agents, nodes or operators.")]


def init(out: Output) -> None:
    """Make the operator's key of this home, and show its did:key for the other machines.

    \b
    agentmesh operator init

    Nothing happens if there is one. Who holds this file can stop every node that obeys it: keep a copy offline.
    """
    from agentmesh.cli.connect import home_of
    from agentmesh.cli.orders import operator_key
    from agentmesh.errors import RecordNotFound

    try:
        key, made = operator_key(out), False
    except RecordNotFound:
        key, made = operator_key(out, create=True), True
    path = home_of(out).operator_key
    if out.json:
        out.data({"operator": key.did, "path": str(path), "created": made})
        return
    out.check("ok", "operator", f"{key.did}  ({i18n.t('created') if made else i18n.t('loaded')})")
    out.note(i18n.t("key in {path}", path=path))
    out.next(f"agentmesh config set operators {key.did}", i18n.t("on every other machine it is to stop"))


def show(out: Output) -> None:
    """Print the did:key of this home's operator, for the setting 'operators' of other machines.

    \b
    agentmesh operator show
    """
    from agentmesh.cli.orders import operator_key

    did = operator_key(out).did
    if out.json:
        out.data({"operator": did})
    else:
        out.line(did)


def publish_list(
    out: Output,
    source: Annotated[str, typer.Argument(help="TOML or JSON with the lists allow, deny and grey ('-' = stdin).")],
) -> None:
    """Publish lists of whom to allow, deny or watch; they replace this operator's former lists on every node.

    \b
    agentmesh operator publish-list lists.toml

    Entries are did:keys, organisations or tags, as the policies of the nodes read them. Empty lists withdraw what was published.
    """
    from agentmesh.cli.orders import desk, operator_key
    from agentmesh.node.operator import sign

    key = operator_key(out)
    body = _read_lists(source)
    with desk(out) as node:
        taken = node.take_order(sign(key, body, node.orders()))
    if out.json:
        out.data(taken)
        return
    out.check("ok", "lists", f"allow {len(body.allow)} · deny {len(body.deny)} · grey {len(body.grey)}")


def revoke(
    out: Output,
    dids: _Dids,
    reason: Annotated[str, typer.Option("--reason", "-r", help="Why, for people.")] = "",
) -> None:
    """Revoke keys: they may neither call, nor be called, nor link with a node that obeys this operator.

    \b
    agentmesh operator revoke did:key:z6Mk… --reason "laptop stolen"
    """
    _change(out, dids, reason, add=True)


def restore(out: Output, dids: _Dids) -> None:
    """Take revocations back.

    \b
    agentmesh operator restore did:key:z6Mk…
    """
    _change(out, dids, "", add=False)


def _change(out: Output, dids: list[str], reason: str, *, add: bool) -> None:
    from agentmesh.cli.orders import desk, operator_key, revoke_with

    key = operator_key(out)
    with desk(out) as node:
        taken, _ = revoke_with(node, key, dids, reason, add=add)
        revoked = node.orders().revoked
    if out.json:
        out.data(taken)
        return
    out.check("ok", "revoked", str(len(revoked)))
    for did in revoked:
        out.line(did)


def _read_lists(source: str) -> Lists:
    """Read a file of lists. Raises UsageError."""
    import msgspec

    from agentmesh.errors import UsageError
    from agentmesh.identity.order import Lists

    hint = 'deny = ["did:key:z6Mk…"]   in a TOML file'
    try:
        raw = sys.stdin.buffer.read(_FILE_BYTES_MAX + 1) if source == "-" else _bytes_of(Path(source))
        if len(raw) > _FILE_BYTES_MAX:
            raise msgspec.ValidationError(f"it is larger than {_FILE_BYTES_MAX >> 10} KB")
        decode = msgspec.json.decode if raw.lstrip().startswith(b"{") else msgspec.toml.decode
        read = decode(raw, type=dict[str, tuple[str, ...]])
        if unknown := sorted(set(read) - {"allow", "deny", "grey"}):
            raise msgspec.ValidationError(f"there is no list {unknown[0][:40]!r}")
        return Lists(**read)
    except OSError as error:
        raise UsageError(
            f"{source[:200]!r} cannot be read", code="usage.list_file", why=error.strerror, hint=hint
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(
            f"{source[:200]!r} holds no lists", code="usage.list_file", why=str(error), hint=hint
        ) from error


def _bytes_of(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(_FILE_BYTES_MAX + 1)


def build() -> Any:
    """Return the group."""
    app = new_app(context_settings=_OPTIONS)
    about = "Make and show the key whose orders nodes obey; publish lists and revoke keys with it."
    app.callback(invoke_without_command=True, help=about)(group(show))
    verbs = (("init", init), ("show", show), ("publish-list", publish_list), ("revoke", revoke), ("restore", restore))
    for name, body in verbs:
        app.command(name, context_settings=_OPTIONS)(verb(body))
    return built(app)
