"""Plain HTTP requests for federation (``node.federation.imports.Fetch``), over the one client of this room.

No redirect is followed, not even to the same host: a partner that could send this node elsewhere could send it to addresses that
only this machine can reach.
"""

from __future__ import annotations

import ssl

from agentmesh.adapters.http_client import HttpClient, read_whole
from agentmesh.errors import AgentFailed, ConfigError
from agentmesh.node.federation.imports import Answer


class PlainFetch:
    """Send requests.

    Args:
        ca_file: PEM file of the authorities that certificates must be of; "" = those of this machine.

    Raises:
        ConfigError: the file cannot be used (code "federation.ca").
    """

    def __init__(self, ca_file: str = "") -> None:
        tls: ssl.SSLContext | None = None
        if ca_file:
            try:
                tls = ssl.create_default_context(cafile=ca_file)
            except (OSError, ssl.SSLError) as error:
                raise ConfigError(
                    f"{ca_file} holds no certificates of authorities",
                    code="federation.ca",
                    why=str(error),
                    hint="agentmesh config explain federation_ca",
                ) from error
        self._client = HttpClient(tls=tls, redirects_max=0)

    async def __call__(
        self, method: str, url: str, headers: dict[str, str], body: bytes | None, *, timeout_s: float, bytes_max: int
    ) -> Answer:
        """Send one request. Raises as ``HttpClient.fetch``; AgentFailed (code "federation.redirect") for a redirect."""
        exchange = self._client.open(method, url, body=body, headers=headers, timeout_s=timeout_s)
        async with exchange as response:
            if 300 <= response.status < 400:
                raise AgentFailed(
                    "the seed redirects elsewhere",
                    code="federation.redirect",
                    why="no redirect is followed: it could lead to addresses that only this machine can reach",
                    hint="set the address that it redirects to, if that is meant",
                )
            return Answer(response.status, response.headers, await read_whole(response, bytes_max))

    async def aclose(self) -> None:
        """Close all connections. Idempotent."""
        await self._client.aclose()
