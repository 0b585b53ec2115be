"""Where spans of calls go: the exporter is opened here if a setting or the environment asks for one."""

from __future__ import annotations

import contextlib
import logging
import os

import agentmesh
from agentmesh.daemon.knobs import Settings
from agentmesh.errors import ConfigError
from agentmesh.node.spans import SpanKit

_log = logging.getLogger("agentmesh.otel")


def open_spans(settings: Settings, node_id: str, stack: contextlib.AsyncExitStack) -> tuple[SpanKit | None, str]:
    """Open the exporter, if there is to be one; the stack closes it.

    A node that cannot export serves calls all the same: what is wrong is a warning.

    Returns:
        Where spans go, None for nowhere; and a sentence for ``agentmesh status`` if they should go somewhere and cannot.
    """
    if settings.otel_endpoint == "off" or (
        not settings.otel_endpoint and not any(k.startswith("OTEL_") for k in os.environ)
    ):
        return None, ""
    from agentmesh.obs.otel import SpanExport, endpoint_of

    try:
        endpoint = endpoint_of(settings.otel_endpoint, os.environ)
        if not endpoint:
            return None, ""
        resource = {
            "service.name": "agentmesh",
            "service.version": agentmesh.__version__,
            "service.instance.id": node_id,
            "agentmesh.node.id": node_id,
            "agentmesh.node.name": settings.name,
        }
        export = SpanExport(endpoint, resource, agentmesh.__version__, os.environ)
    except ConfigError as error:
        _log.warning("%s (%s)", error, error.code)
        return None, f"{error.detail} ({error.code}); {error.hint}"
    stack.push_async_callback(export.aclose)
    return SpanKit(export.take, settings.otel_content == "on", export.view, export.warnings), ""
