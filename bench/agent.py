"""The agent that is called, as a process: plain HTTP, ``POST /rpc`` answers 1 KB. ``python -m bench.agent`` prints its port."""

from __future__ import annotations

import json
import socket
from typing import Any

import uvicorn

ANSWER = json.dumps({"text": "y" * 1000}).encode()


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer every request with 1 KB of JSON, after reading its body."""
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(ANSWER)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": ANSWER})


def main() -> None:
    """Serve on a free port of loopback and print it."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(1024)
    print(listener.getsockname()[1], flush=True)
    config = uvicorn.Config(app, lifespan="off", log_level="error", access_log=False)  # pyright: ignore[reportArgumentType]
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
