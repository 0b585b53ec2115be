"""``agentmesh identity root init|certify|rotate|show|revoke``: node keys under a root key that the operator keeps cold."""

from __future__ import annotations

import os
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentmesh.cli import i18n
from agentmesh.cli.output import Output, age
from agentmesh.cli.verb import built, group, new_app, verb

if TYPE_CHECKING:
    from agentmesh.daemon.home import Home
    from agentmesh.identity.keys import KeyPair

_OPTIONS = {"help_option_names": ["-h", "--help"]}
_HOURS = 24.0
_Root = Annotated[str, typer.Option("--root", help="File of the root key [identity/root.key in the home].")]
_Hours = Annotated[float, typer.Option("--hours", help="How long the credential holds, at most 24.")]


def init(out: Output, root: _Root = "") -> None:
    """Make a root key.

    \b
    agentmesh identity root init --root /media/stick/root.key

    Keep it away from the machines it certifies. Whoever has it can certify nodes in your name.
    """
    from agentmesh.errors import StateError
    from agentmesh.store.keyfile import load_or_create_key

    path = _root_path(out, root)
    if path.exists():
        raise StateError(f"{path} exists already", code="key.exists", hint="agentmesh identity root show")
    key = load_or_create_key(path)
    if out.json:
        out.data({"root": key.did, "path": str(path)})
        return
    out.check("ok", "root", f"{key.did}   {path}")
    out.next("agentmesh identity root certify", i18n.t("certify this node; or give the id of another one"))


def certify(
    out: Output,
    node: Annotated[str, typer.Argument(help="Id of the node (did:key:…); this one when left out.")] = "",
    root: _Root = "",
    hours: _Hours = _HOURS,
    to: Annotated[str, typer.Option("--out", help="Write the credential to this file; '-' is stdout.")] = "",
) -> None:
    """Certify a node's key for a day at most.

    \b
    agentmesh identity root certify
    agentmesh identity root certify did:key:z6Mk… --out anna.jwt

    On the node it belongs in identity/credential.jwt of the home; a running node finds it there by itself. The credential of
    another node goes to stdout unless --out names a file.
    """
    from agentmesh.daemon.home import write_atomic

    home = _home(out)
    own = _own_id(home)
    node = node or own
    raw = _signed(_load_root(out, root), node, hours)
    if not to and node != own:
        to = "-"
    if to == "-" and not out.json:
        out.line(raw)
        return
    path = None if to == "-" else Path(to) if to else home.credential
    if path is not None:
        write_atomic(path, f"{raw}\n".encode())
    ends = int(time.time() + hours * 3600)
    if out.json:
        out.data({"node": node, "credential": raw, "exp": ends, "path": str(path) if path else None})
        return
    out.check("ok", "certified", f"{node}   {age(hours * 3600)}   {path}")


def rotate(out: Output, root: _Root = "", hours: _Hours = _HOURS) -> None:
    """Give this node a new key and a credential for it, and revoke the old one here.

    \b
    agentmesh down
    agentmesh identity root rotate
    agentmesh up

    The node has another id afterwards; its agents keep theirs, and their manifests are signed for the new node when it starts.
    The old key is kept beside the new one, as node.key.old, and the audit log that it signed as audit-…; the new id begins its
    own. Tell the other nodes with 'agentmesh identity root revoke OLD'.
    """
    from agentmesh.daemon.home import write_atomic
    from agentmesh.daemon.lock import DaemonLock
    from agentmesh.store.keyfile import load_key, load_or_create_key

    home = _home(out)
    root_key = _load_root(out, root)
    with DaemonLock(home):
        old = load_key(home.node_key)
        fresh = home.node_key.with_suffix(".key.new")
        fresh.unlink(missing_ok=True)
        new = load_or_create_key(fresh)
        raw = _signed(root_key, new.did, hours)
        _add_revoked(home, [old.did])
        os.replace(home.node_key, home.node_key.with_suffix(".key.old"))
        os.replace(fresh, home.node_key)
        # Its checkpoints are signed by the old key. Moved last: a log of another key keeps the node from serving, none does not.
        closed = home.path / f"audit-{old.did[-12:]}"
        if home.audit.exists():
            os.replace(home.audit, closed)
        write_atomic(home.credential, f"{raw}\n".encode())
    if out.json:
        audit = str(closed) if closed.exists() else None
        out.data({"old": old.did, "new": new.did, "credential": raw, "audit": audit})
        return
    out.check("ok", "node", f"{new.did}   {home.node_key}")
    out.check("ok", i18n.t("revoked"), f"{old.did}   {home.revoked}")
    if closed.exists():
        out.next(f"agentmesh audit verify {closed} --key {old.did}")
    out.next(f"agentmesh identity root revoke {old.did}", i18n.t("on every other node"))


def show(out: Output, root: _Root = "") -> None:
    """Show the root key's id, this node's credential and what was revoked here.

    \b
    agentmesh identity root show
    agentmesh identity root show --json
    """
    from agentmesh.errors import MeshError
    from agentmesh.identity.credential import CREDENTIAL_CHARS_MAX, read_credential

    home = _home(out)
    root_path, node = _root_path(out, root), _own_id(home)
    root_did = _load_root(out, root).did if root_path.exists() else ""
    revoked = _revoked(home)
    held: dict[str, Any] | None = None
    problem = ""
    if home.credential.exists():
        now = int(time.time())
        try:
            with open(home.credential, "rb") as file:
                raw = file.read(CREDENTIAL_CHARS_MAX + 1).decode("ascii", "replace").strip()
            read = read_credential(raw, now=now, node=node, roots=None)
            held = {"root": read.root, "id": read.id, "iat": read.iat, "exp": read.exp, "left_s": read.exp - now}
        except MeshError as error:
            problem = str(error)
    if out.json:
        out.data(
            {"root": root_did or None, "node": node, "credential": held, "problem": problem or None, "revoked": revoked}
        )
        return
    if root_did:
        out.check("ok", "root", f"{root_did}   {root_path}")
    else:
        out.check("warn", "root", i18n.t("no root key in {path}", path=root_path))
    out.check("ok", "node", node)
    if held:
        out.check("ok", "credential", f"{held['root']}   {age(held['left_s'])}")
    else:
        out.check("warn", "credential", problem or i18n.t("none"))
    for did in revoked:
        out.check("ok", i18n.t("revoked"), did)


def revoke(
    out: Output, ids: Annotated[list[str], typer.Argument(help="Ids of nodes or roots (did:key:…) to turn away.")]
) -> None:
    """Turn nodes away from this one, whatever they show; a running node follows within seconds.

    \b
    agentmesh identity root revoke did:key:z6Mk…

    It is added to identity/revoked.txt in the home, one id on a line; take the line out to let the node in again.
    """
    from agentmesh.ids import parse_node_id

    home = _home(out)
    added = _add_revoked(home, [parse_node_id(one) for one in ids])
    if out.json:
        out.data({"added": added, "path": str(home.revoked)})
        return
    for one in ids:
        out.check("ok", i18n.t("revoked"), f"{one}   {home.revoked}")


def _home(out: Output) -> Home:
    from agentmesh.cli.connect import home_of

    home = home_of(out)
    home.prepare()
    return home


def _root_path(out: Output, root: str) -> Path:
    return Path(root).expanduser() if root else _home(out).root_key


def _load_root(out: Output, root: str) -> KeyPair:
    from agentmesh.store.keyfile import load_key

    return load_key(_root_path(out, root))


def _own_id(home: Home) -> str:
    """Return this home's node id; its key is made if the node has never run."""
    from agentmesh.store.keyfile import load_or_create_key

    return load_or_create_key(home.node_key).did


def _signed(root_key: KeyPair, node: str, hours: float) -> str:
    from agentmesh.identity.credential import sign_credential

    return sign_credential(
        root_key, node, id=secrets.token_hex(8), iat=int(time.time()), life_s=int(min(max(hours, 0), 1000) * 3600)
    )


def _revoked(home: Home) -> list[str]:
    from agentmesh.errors import ConfigError
    from agentmesh.node.admission import REVOKED_BYTES_MAX

    try:
        with open(home.revoked, "rb") as file:
            content = file.read(REVOKED_BYTES_MAX + 1)
    except FileNotFoundError:
        return []
    if len(content) > REVOKED_BYTES_MAX:
        raise ConfigError(f"{home.revoked} is larger than {REVOKED_BYTES_MAX} bytes", code="config.file")
    lines = (line.partition("#")[0].strip() for line in content.decode("utf-8", "replace").splitlines())
    return [line for line in lines if line]


def _add_revoked(home: Home, ids: list[str]) -> list[str]:
    """Append ids that are not in the list yet, keeping its comments; return them."""
    from agentmesh.daemon.home import write_atomic

    known = set(_revoked(home))
    new = [one for one in dict.fromkeys(ids) if one not in known]
    if new:
        before = home.revoked.read_bytes() if home.revoked.exists() else b""
        before += b"\n" if before and not before.endswith(b"\n") else b""
        write_atomic(home.revoked, before + "".join(f"{one}\n" for one in new).encode())
    return new


def build() -> Any:
    """Return the group."""
    root = new_app(context_settings=_OPTIONS)
    root.callback(invoke_without_command=True, help="Node keys under a root key that is kept cold.")(group(show))
    for name, body in (
        ("init", init),
        ("certify", certify),
        ("rotate", rotate),
        ("show", show),
        ("revoke", revoke),
    ):
        root.command(name, context_settings=_OPTIONS)(verb(body))
    app = new_app(context_settings=_OPTIONS)
    app.callback(invoke_without_command=True, help="Certify, rotate and revoke node keys under a root key.")(group())
    app.add_typer(root, name="root")
    return built(app)
