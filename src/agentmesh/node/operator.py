"""The operator's key of a home, and the orders signed with it: what the CLI does by itself and the daemon when it is asked to.

The key is read for one signature and kept nowhere. Whoever may ask the daemon for it holds the scope "admin".
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from pathlib import Path

from agentmesh.errors import RecordNotFound, UsageError
from agentmesh.identity.keys import KeyPair
from agentmesh.identity.order import Body, Resume, Stop, sign_order
from agentmesh.ids import short
from agentmesh.store.keyfile import load_key, load_or_create_key
from agentmesh.wire.order_views import OrdersView

#: Longest time after which a stop ends by itself, seconds: ten years. Longer is "until it is released".
FOR_S_MAX = 315_360_000
#: Longest reason, characters.
REASON_CHARS_MAX = 500
#: Random bytes of a jti.
_JTI_BYTES = 16


def operator_key(path: Path, *, create: bool = False, obeyed: Sequence[str] = ()) -> KeyPair:
    """Return the operator's key that is kept in a file.

    Args:
        path: The file.
        create: Make one if there is none.
        obeyed: Operators that the node obeys, to say whose key would do.

    Raises:
        RecordNotFound: there is none (code "operator.none").
        ConfigError: it is damaged, encrypted, or others can read it (codes "key.*").
        Full: it could not be written.
    """
    if path.exists():
        return load_key(path)
    if create:
        return load_or_create_key(path)
    whose = ", ".join(map(short, obeyed))
    raise RecordNotFound(
        "there is no operator's key in this home",
        code="operator.none",
        why=f"{path} does not exist" + (f"; this node obeys {whose}" if obeyed else ""),
        hint="on the machine that has the operator's key:   agentmesh killswitch on | off"
        if obeyed
        else "agentmesh operator init",
    )


def sign(key: KeyPair, body: Body, known: OrdersView, *, txn: str = "", audience: tuple[str, ...] = ()) -> str:
    """Sign an order with a ``seq`` above all that the node knows of this operator. Raises UsageError: nothing was signed."""
    last = max((one.seq for one in known.orders if one.operator == key.did), default=0)
    unix_s = time.time()
    jti = secrets.token_urlsafe(_JTI_BYTES)
    seq = max(int(unix_s * 1000), last + 1)
    return sign_order(key, body, seq=seq, iat=int(unix_s), jti=jti, txn=txn, audience=audience)


def stop_order(path: Path, known: OrdersView, *, reason: str = "", for_s: int = 0, local: bool = False) -> str:
    """Sign a stop with the operator's key in a file; a missing key is made where the node obeys nobody else.

    Args:
        path: The key's file.
        known: What is in force at the node.
        reason: For people.
        for_s: Seconds after which it ends by itself; 0 = when it is released.
        local: For this node only.

    Raises:
        UsageError: a number or the reason makes no sense. Nothing was signed.
        RecordNotFound, ConfigError, Full: as ``operator_key``.
    """
    if not 0 <= for_s <= FOR_S_MAX:
        raise UsageError(f"a stop lasts 0 to {FOR_S_MAX} seconds", code="order.for", hint="0 = until it is released")
    if len(reason) > REASON_CHARS_MAX or not reason.isprintable():
        raise UsageError(f"a reason is one line of at most {REASON_CHARS_MAX} characters", code="order.reason")
    # A new key would be obeyed by nobody where others are named; where nobody is, this node obeys it from now on.
    key = operator_key(path, create=not known.operators, obeyed=known.operators)
    until = int(time.time()) + for_s if for_s else None
    return sign(key, Stop(reason, until), known, audience=(known.node_id,) if local else ())


def resume_order(path: Path, known: OrdersView, *, local: bool = False) -> str:
    """Sign an order that ends this operator's stop, and those of other operators that are in force at the node.

    Raises:
        RecordNotFound, ConfigError: as ``operator_key``.
    """
    key = operator_key(path, obeyed=known.operators)
    stops = [one for one in known.orders if one.jti in known.stops]
    releases = tuple(one.jti for one in stops if one.operator != key.did)
    mine = next((one.jti for one in stops if one.operator == key.did), "")
    return sign(key, Resume(releases), known, txn=mine, audience=(known.node_id,) if local else ())
