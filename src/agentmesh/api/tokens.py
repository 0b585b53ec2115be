"""The call token that came with a request, in the header ``DPoP`` (docs/spec/tokens.md §8).

It is taken up at the doors for calls only, and checked there by the node, since it is about the body. Once a token is there, the
request passes with it or not at all: never as one of nobody.
"""

from __future__ import annotations

from starlette.types import Scope

from agentmesh.api.scopes import Rights
from agentmesh.errors import Unauthorized
from agentmesh.identity.grant import GRANT_CHARS_MAX
from agentmesh.identity.token import TOKEN_CHARS_MAX
from agentmesh.node.presented import Presented

#: Where the token is in the ASGI scope of a request.
PRESENTED = "agentmesh.presented"


def presented_in(scope: Scope, proofs: list[bytes], grant: str) -> Presented:
    """Return what a request at a door for calls presents.

    Args:
        scope: ASGI scope of the request; its Host names loopback.
        proofs: Its ``DPoP`` headers, one or more.
        grant: What stands in its Authorization header after "DPoP"; "" if that is not used for a grant.

    Raises:
        Unauthorized: more than one token, or one that is too large (codes "token.several", "token.too_large").
    """
    if len(proofs) != 1:
        raise Unauthorized(
            f"{len(proofs)} call tokens were given",
            code="token.several",
            why="whoever stands between could read one and we the other",
            hint="send exactly one header DPoP",
        )
    if len(proofs[0]) > TOKEN_CHARS_MAX or len(grant) > GRANT_CHARS_MAX:
        raise Unauthorized(
            "the call token or its grant is too large",
            code="token.too_large",
            why=f"at most {TOKEN_CHARS_MAX} and {GRANT_CHARS_MAX} characters are read",
        )
    host = next((value for name, value in scope["headers"] if name == b"host"), b"").decode("latin-1")
    path = scope.get("raw_path") or str(scope["path"]).encode()
    url = f"http://{host}{path.partition(b'?')[0].decode('latin-1')}"
    return Presented(proofs[0].decode("latin-1"), scope["method"], (url,), grant)


def refuse_for_tenant(rights: Rights) -> None:
    """Raise Unauthorized (code "token.tenant") for the key of a tenant beside a call token: nobody calls as two at once."""
    if rights.tenant:
        raise Unauthorized(
            f"{rights.who} acts for tenant {rights.tenant}, and the call token for somebody else",
            code="token.tenant",
            hint="send the call token alone, or the key alone",
        )
