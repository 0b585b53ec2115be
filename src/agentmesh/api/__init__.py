"""The HTTP API of a node, and what it serves to browsers.

Starlette reads forms, sends files with dates and paints pages for debugging; this API does none of it. Loading it without what
it needs for that (form parsers, temporary files, archives, HTML entities, e-mail, an HTTP client) spares an idle daemon
1.8 MB. A form would be refused with Starlette's own words about the missing ``python-multipart``.
"""

from __future__ import annotations

import http
from typing import Any

from agentmesh.api.standins import load_without, module_of


def _escape(text: str, quote: bool = True) -> str:
    import html

    return html.escape(text, quote)


def _format_datetime(*args: Any, **options: Any) -> str:
    import email.utils

    return email.utils.format_datetime(*args, **options)


def _formatdate(*args: Any, **options: Any) -> str:
    import email.utils

    return email.utils.formatdate(*args, **options)


_client = module_of("http.client", responses={status.value: status.phrase for status in http.HTTPStatus})
if not hasattr(http, "client"):
    http.__dict__["client"] = _client  # Starlette looks for it here; the real one takes its place when it is loaded
load_without(
    ("starlette.requests", "starlette.responses", "starlette.exceptions", "starlette.middleware.errors"),
    {
        "email": module_of("email", __path__=[]),
        "email.utils": module_of("email.utils", format_datetime=_format_datetime, formatdate=_formatdate),
        "html": module_of("html", escape=_escape),
        "http.client": _client,
        "multipart": None,
        "python_multipart": None,
        "starlette.formparsers": module_of(
            "starlette.formparsers",
            FormParser=None,
            MultiPartParser=None,
            MultiPartException=type("MultiPartException", (Exception,), {}),
        ),
    },
)
