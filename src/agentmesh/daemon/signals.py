"""Signals of the daemon: the first SIGTERM or SIGINT asks for an orderly stop, the second one ends it at once.

SIGHUP asks a daemon without a terminal to read its certificates again (a closed terminal must not take one in the background
down); SIGUSR1 writes the stack of every thread to stderr, which is daemon.log, for bug reports about a hang.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import os
import signal
import sys
from collections.abc import Callable

from agentmesh.errors import EXIT_INTERRUPTED


class Stop:
    """The daemon's wish to end, from a signal or from ``POST /api/v1/shutdown``.

    ``install`` needs the running loop; without it (tests, embedding) only ``request`` sets it.
    """

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self.reason = ""
        #: Called on SIGHUP, each in turn.
        self.on_hup: list[Callable[[], object]] = []

    def install(self) -> None:
        """Route SIGTERM and SIGINT to this object on the running loop."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(NotImplementedError):
                loop.add_signal_handler(number, self._signalled, number)
        if not sys.stderr.isatty() and hasattr(signal, "SIGHUP"):
            with contextlib.suppress(NotImplementedError):
                loop.add_signal_handler(signal.SIGHUP, self._hung_up)
        if hasattr(signal, "SIGUSR1"):
            with contextlib.suppress(ValueError, OSError):
                faulthandler.register(signal.SIGUSR1, all_threads=True)

    def request(self, reason: str) -> None:
        """Ask for an orderly stop; the first reason is kept."""
        if not self._event.is_set():
            self.reason = reason
            self._event.set()

    async def wait(self) -> str:
        """Wait until someone asks and return the reason."""
        await self._event.wait()
        return self.reason

    def _hung_up(self) -> None:
        for call in self.on_hup:
            call()

    def _signalled(self, number: signal.Signals) -> None:
        if self._event.is_set():
            # Asked twice: the person does not want to wait. What was acknowledged is on disk already.
            os._exit(EXIT_INTERRUPTED)
        self.request(signal.Signals(number).name)
