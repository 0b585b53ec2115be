"""The agent that is called, as a process: plain HTTP, ``POST /rpc`` answers 1 KB. ``python -m bench.agent`` prints its port.

With ``--delay-ms N`` it thinks for so long.
"""

from __future__ import annotations

import argparse
import asyncio
import json

import uvloop

from bench.lean_http import server_of

ANSWER = json.dumps({"text": "y" * 1000}).encode()


async def main(delay_s: float) -> None:
    """Serve on a free port of loopback and print it."""
    server = await asyncio.get_running_loop().create_server(server_of(ANSWER, delay_s), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--delay-ms", type=int, default=0)
    uvloop.run(main(parser.parse_args().delay_ms / 1000))
