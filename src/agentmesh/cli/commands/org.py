"""``agentmesh org create|vouch|join|leave|list|revoke|restore``: an organisation is a key that vouches for its own."""

from __future__ import annotations

import contextlib
import re
import secrets
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentmesh.cli import i18n
from agentmesh.cli.output import Output, Styled, age, printable
from agentmesh.cli.verb import built, group, new_app, verb

if TYPE_CHECKING:
    from agentmesh.daemon.home import Home
    from agentmesh.identity.keys import KeyPair
    from agentmesh.identity.voucher import Voucher

_OPTIONS = {"help_option_names": ["-h", "--help"]}
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?", re.ASCII)
_DAYS = 90.0
_VOUCHER_FILE_BYTES_MAX = 16 * 1024
_Org = Annotated[str, typer.Option("--org", help="Name of the organisation; the only one here when left out.")]


def create(out: Output, name: Annotated[str, typer.Argument(help="What to call it here: a-z 0-9 . _ -")]) -> None:
    """Make the key of an organisation.

    \b
    agentmesh org create acme

    Whoever has this key speaks for the organisation. Keep it on a machine without a node, or on a stick; nodes get vouchers.
    """
    from agentmesh.errors import StateError
    from agentmesh.store.keyfile import load_or_create_key

    path = _path_of(out, name)
    if path.exists():
        raise StateError(f"{path} exists already", code="key.exists", hint="agentmesh org list")
    key = load_or_create_key(path)
    if out.json:
        out.data({"organisation": key.did, "name": name, "path": str(path)})
        return
    out.check("ok", name, key.did)
    out.note(i18n.t("key in {path}", path=path))
    out.next("agentmesh org vouch NODE", i18n.t("for each node of it; 'agentmesh status' there shows its id"))


def vouch(
    out: Output,
    subject: Annotated[str, typer.Argument(metavar="ID", help="did:key of a node, or of an agent with --agent.")],
    days: Annotated[float, typer.Option("--days", help="How long it holds, at most 366.")] = _DAYS,
    agent: Annotated[
        bool, typer.Option("--agent", help="It is for one agent, not for a node and all its agents.")
    ] = False,
    org: _Org = "",
    to: Annotated[str, typer.Option("--out", help="Write the voucher to this file.")] = "",
) -> None:
    """Vouch for a node, which may then vouch for its agents, or for a single agent.

    \b
    agentmesh org vouch did:key:z6Mk… --days 90 --out node.jwt
    agentmesh org join node.jwt            on that node
    """
    from agentmesh.daemon.home import write_atomic
    from agentmesh.identity.voucher import read_voucher, sign_voucher

    key = _load(out, org)
    now = int(time.time())
    raw = sign_voucher(
        key, subject, "agent" if agent else "node", id=secrets.token_urlsafe(12), iat=now, life_s=int(days * 86_400)
    )
    exp = read_voucher(raw, now=now).exp
    if to:
        write_atomic(Path(to), f"{raw}\n".encode())
    if out.json:
        out.data({"organisation": key.did, "subject": subject, "voucher": raw, "exp": exp, "path": to or None})
    elif to:
        out.check("ok", i18n.t("vouched"), f"{subject}   {age(exp - now)}   {to}")
    else:
        out.line(raw)


def join(out: Output, file: Annotated[str, typer.Argument(help="The voucher ('-' = stdin).")]) -> None:
    """Let this node, or an agent beside it, belong to the organisation that vouches for it.

    \b
    agentmesh org join node.jwt

    A running node finds it within seconds and signs the manifests of its agents again.
    """
    from agentmesh.errors import Unauthorized
    from agentmesh.identity.voucher import read_voucher

    home = _home(out)
    voucher = read_voucher(_read(file), now=int(time.time()))
    node = _own_id(home)
    if voucher.role == "node" and voucher.subject != node:
        raise Unauthorized(
            "the voucher is for another node",
            code="voucher.subject",
            why=f"it is for {voucher.subject}, and this node is {node}",
            hint=f"agentmesh org vouch {node}",
        )
    kept = [one for one in _vouchers(home) if (one.subject, one.role) != (voucher.subject, voucher.role)]
    _write(home, [*kept, voucher])
    if out.json:
        out.data({"organisation": voucher.organisation, "subject": voucher.subject, "exp": voucher.exp})
        return
    out.check("ok", i18n.t("joined"), f"{voucher.organisation}   {age(voucher.exp - time.time())}")


def leave(
    out: Output,
    subject: Annotated[str, typer.Argument(metavar="[ID]", help="Only this node or agent; all when left out.")] = "",
) -> None:
    """Belong to no organisation any longer.

    \b
    agentmesh org leave
    """
    home = _home(out)
    known = _vouchers(home)
    kept = [one for one in known if subject and one.subject != subject]
    _write(home, kept)
    if out.json:
        out.data({"left": sorted({one.organisation for one in known if one not in kept}), "kept": len(kept)})
        return
    out.check("ok", i18n.t("left"), str(len(known) - len(kept)))


def show(out: Output) -> None:
    """List the organisations whose keys are here, those that this node and its agents belong to, and those met in the mesh.

    \b
    agentmesh org list
    agentmesh org list --json
    """
    from agentmesh.cli.connect import connect
    from agentmesh.daemon import lock
    from agentmesh.store.keyfile import load_key

    home = _home(out)
    keys = {path.stem: load_key(path).did for path in _keys(home)}
    vouchers = _vouchers(home)
    met: dict[str, int] = {}
    if lock.is_held(home):
        with connect(out) as mesh:
            for agent in mesh.discover():
                if agent.organisation:
                    met[agent.organisation] = met.get(agent.organisation, 0) + 1
    if out.json:
        out.data(
            {
                "keys": [{"name": name, "organisation": did} for name, did in keys.items()],
                "vouchers": [
                    {"organisation": v.organisation, "subject": v.subject, "role": v.role, "exp": v.exp}
                    for v in vouchers
                ],
                "agents": [{"organisation": did, "agents": count} for did, count in met.items()],
            }
        )
        return
    names = {did: name for name, did in keys.items()}
    rows: list[list[Styled]] = [[("key", "ok"), printable(name), did, ""] for name, did in keys.items()]
    for one in vouchers:
        left_s = one.exp - time.time()
        state = age(left_s) if left_s > 0 else i18n.t("expired")
        what = i18n.t("this node") if one.role == "node" else one.subject
        rows.append([("member", "plain"), names.get(one.organisation, what), one.organisation, state])
    rows += [[("agents", "dim"), names.get(did, ""), did, str(count)] for did, count in met.items()]
    if not rows:
        out.note(i18n.t("no organisation: nobody vouches for this node"))
        return
    out.table(["WHAT", "NAME", "ORGANISATION", ""], rows)


def revoke(
    out: Output,
    dids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]...", help="Members; the organisation itself when left out.")
    ] = None,
    org: _Org = "",
    reason: Annotated[str, typer.Option("--reason", "-r", help="Why, for people.")] = "",
) -> None:
    """Take back the word for members, or end the whole organisation: its agents may neither call nor be called.

    \b
    agentmesh org revoke did:key:z6Mk… --reason "laptop stolen"
    agentmesh org revoke --org acme
    """
    _change(out, org, dids or [], reason, add=True)


def restore(
    out: Output,
    dids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]...", help="Members; the organisation itself when left out.")
    ] = None,
    org: _Org = "",
) -> None:
    """Take revocations back.

    \b
    agentmesh org restore did:key:z6Mk…
    """
    _change(out, org, dids or [], "", add=False)


def _change(out: Output, org: str, dids: list[str], reason: str, *, add: bool) -> None:
    from agentmesh.cli.orders import desk, revoke_with
    from agentmesh.ids import public_key_of

    key = _load(out, org)
    whom = dids or [key.did]
    for did in whom:
        public_key_of(did)  # before anybody is asked
    if add and not dids and not out.confirm(i18n.t("end the whole organisation {org}?", org=key.did)):
        return
    with desk(out) as node:
        taken, keys = revoke_with(node, key, whom, reason, add=add)
    if out.json:
        out.data(taken)
        return
    out.check("ok", i18n.t("revoked"), str(len(keys)))


# Files


def _home(out: Output) -> Home:
    from agentmesh.cli.connect import home_of

    return home_of(out)


def _own_id(home: Home) -> str:
    from agentmesh.store.keyfile import load_or_create_key

    home.prepare()
    return load_or_create_key(home.node_key).did


def _keys(home: Home) -> list[Path]:
    return sorted(home.organisations.glob("*.key")) if home.organisations.is_dir() else []


def _path_of(out: Output, name: str) -> Path:
    from agentmesh.errors import UsageError

    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name[:80]!r} is no name of an organisation",
            code="org.name",
            why="1 to 64 of a-z 0-9 . _ -, a letter or digit at both ends",
            hint="agentmesh org create acme",
        )
    home = _home(out)
    home.prepare()
    home.organisations.mkdir(mode=0o700, exist_ok=True)
    return home.organisations / f"{name}.key"


def _load(out: Output, name: str) -> KeyPair:
    """Return the key of an organisation. Raises RecordNotFound, UsageError, ConfigError."""
    from agentmesh.errors import RecordNotFound, UsageError
    from agentmesh.store.keyfile import load_key

    if name:
        path = _path_of(out, name)
        if not path.exists():
            raise RecordNotFound(
                f"there is no organisation {name!r} in this home", code="org.none", hint="agentmesh org list"
            )
        return load_key(path)
    found = _keys(_home(out))
    if not found:
        raise RecordNotFound("no organisation's key is in this home", code="org.none", hint="agentmesh org create NAME")
    if len(found) > 1:
        names = ", ".join(path.stem for path in found)
        raise UsageError(f"there are {len(found)} organisations here: {names}", code="org.which", hint="--org NAME")
    return load_key(found[0])


def _read(file: str) -> str:
    from agentmesh.errors import UsageError

    try:
        if file == "-":
            raw = sys.stdin.buffer.read(_VOUCHER_FILE_BYTES_MAX + 1)
        else:
            with open(file, "rb") as stream:
                raw = stream.read(_VOUCHER_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise UsageError(f"{file[:200]!r} cannot be read", code="usage.file", why=error.strerror) from error
    return raw[:_VOUCHER_FILE_BYTES_MAX].decode("ascii", "replace").strip()


def _vouchers(home: Home) -> list[Voucher]:
    """Return the vouchers in use here, also those whose time is over; what cannot be read is left out."""
    from agentmesh.errors import MeshError
    from agentmesh.identity.voucher import read_kept_voucher
    from agentmesh.node.organisations import read_vouchers

    found: list[Voucher] = []
    for raw in read_vouchers(home.organisation):
        with contextlib.suppress(MeshError):
            found.append(read_kept_voucher(raw))
    return found


def _write(home: Home, vouchers: list[Voucher]) -> None:
    from agentmesh.daemon.home import write_atomic

    home.prepare()
    home.organisation.parent.mkdir(mode=0o700, exist_ok=True)
    write_atomic(home.organisation, "".join(f"{one.raw}\n" for one in vouchers).encode())


def build() -> Any:
    """Return the group."""
    app = new_app(context_settings=_OPTIONS)
    about = "Organisations: make their keys, vouch for nodes and agents, join, revoke."
    app.callback(invoke_without_command=True, help=about)(group(show))
    verbs = (
        *(("create", create), ("vouch", vouch), ("join", join), ("leave", leave)),
        *(("list", show), ("revoke", revoke), ("restore", restore)),
    )
    for name, body in verbs:
        app.command(name, context_settings=_OPTIONS)(verb(body))
    return built(app)
