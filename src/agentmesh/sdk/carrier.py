"""What the parts of ``Mesh`` ask of it: to carry a request, and to open a stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

from agentmesh.errors import MeshError
from agentmesh.sdk.message_requests import Patience
from agentmesh.sdk.requests import Request
from agentmesh.sdk.sse import Frame

T = TypeVar("T")


class Carrier:
    """Base of the mixins; ``Mesh`` does the work."""

    async def _send(self, request: Request[T]) -> T:
        """Send a request and read its answer."""
        raise NotImplementedError

    def _streaming(self, request: Request[Any]) -> AbstractAsyncContextManager[AsyncIterator[Frame]]:
        """Open a stream; it is open when the context is entered."""
        raise NotImplementedError

    def _remember(self, reader: Reader) -> None:
        """Settle what a reader left unsettled when this client closes."""
        raise NotImplementedError

    def _forget(self, reader: Reader) -> None:
        """The reader has ended."""
        raise NotImplementedError

    async def _send_patiently(self, request: Request[T], patience: Patience) -> T:
        """Send a request that may be repeated, for as long as the patience lasts while the daemon is away."""
        while True:
            try:
                answer = await self._send(request)
            except MeshError as error:
                await asyncio.sleep(patience.next_delay_s(error))
            else:
                patience.answered()
                return answer


class Reader:
    """An inbox or a subscription that somebody reads."""

    async def aclose(self, *, done: bool = True) -> None:
        """End; what was handed out last counts as done, or is given back."""
        raise NotImplementedError
