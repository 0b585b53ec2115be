"""As much of a daemon as registration needs: it keeps agents, forgets them on demand, can go away and come back elsewhere."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from tests.agents.raw import Asked, RawServer, http


class FakeDaemon:
    """Attributes: ``agents`` name → registration, ``renewals`` how many, ``refuse`` a status for the next answers."""

    def __init__(self, home: Path, token: str = "secret") -> None:
        self.home = home
        self.token = token
        self.agents: dict[str, dict[str, Any]] = {}
        self.names = ["hello"]
        self.renewals = 0
        self.log: list[str] = []
        self.refuse = ""
        self._changed = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._raw = RawServer(self._answer)

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._raw.handle, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.home.mkdir(parents=True, exist_ok=True)
        (self.home / "daemon.json").write_text(json.dumps({"pid": 1, "port": port, "node_id": "x", "version": "1"}))
        (self.home / "api.token").write_text(self.token + "\n")

    async def stop(self) -> None:
        """Go away as a killed daemon does: the files stay."""
        if self._server is not None:
            self._server.close()
            self._server = None
        await asyncio.sleep(0)

    async def until(self, what: str, count: int = 1) -> None:
        """Wait until the log holds an entry so many times."""
        async with asyncio.timeout(5):
            while self.log.count(what) < count:
                self._changed.clear()
                await self._changed.wait()

    def forget(self) -> None:
        self.agents.clear()

    def _answer(self, asked: Asked) -> list[bytes]:
        answer = self._decide(asked)
        self._changed.set()
        # Each answer closes its connection, so that a stopped daemon is really gone.
        return [http(json.dumps(answer[1]).encode(), "application/json", answer[0], "Connection: close")]

    def _decide(self, asked: Asked) -> tuple[str, Any]:
        if asked.headers.get("authorization") != f"Bearer {self.token}":
            return problem("401 Unauthorized", "unauthorized", "refused.unauthorized", "wrong token")
        if self.refuse:
            return problem("409 Conflict", "state", "state.wrong", self.refuse)
        ref = asked.path.removeprefix("/api/v1/agents").strip("/").replace("%3A", ":")
        match asked.method, ref.endswith("/renew"):
            case "POST", False:
                self.log.append("register")
                for name in self.names:
                    self.agents[f"did:key:{name}"] = json.loads(asked.body)
                return "200 OK", {
                    "agents": [{"agent_id": f"did:key:{n}", "name": n, "node_id": "did:key:node"} for n in self.names]
                }
            case "POST", True:
                agent_id = ref.removesuffix("/renew")
                self.log.append("renew")
                if agent_id not in self.agents:
                    return problem("404 Not Found", "agent_not_found", "not_found.agent", "unknown")
                return "200 OK", {"agent_id": agent_id, "renewed": True}
            case _:
                self.log.append("delete")
                self.agents.pop(ref, None)
                return "200 OK", {"agent_id": ref, "name": "x", "node_id": "did:key:node"}


def problem(status: str, kind: str, code: str, detail: str) -> tuple[str, Any]:
    return status, {
        "type": f"https://x/{kind}",
        "title": kind,
        "status": int(status[:3]),
        "detail": detail,
        "code": code,
    }
