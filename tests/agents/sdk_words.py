"""An agent process made with our SDK, for the contract suite: ``sdk_words.py``. Prints its URL; registers nowhere."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

from agentmesh.sdk.agent import Context, agent
from agentmesh.sdk.process import AgentProcess

MEMORY: dict[str, str] = {}
COUNTS = {"started": 0, "cancels": 0}


@agent
async def words(text: str, ctx: Context) -> AsyncIterator[str]:
    """Obey the words of the contract suite."""
    word, _, rest = text.partition(" ")
    match word:
        case "stream":
            for piece in rest.split():
                yield piece
        case "hang":
            COUNTS["started"] += 1
            try:
                await asyncio.Event().wait()
            finally:
                COUNTS["cancels"] += 1
        case "fail":
            raise ValueError(rest)
        case "flood":
            while True:
                yield "x" * 2**20
        case "remember":
            MEMORY[ctx.context_id or ""] = rest
            yield "ok"
        case "recall":
            yield MEMORY.get(ctx.context_id or "", "nothing")
        case "big":
            yield "x" * int(rest)
        case "wide":
            yield "你好🙂" * int(rest)
        case "started" | "cancels":
            yield str(COUNTS[word])
        case "empty":
            pass
        case _:
            yield rest


async def main() -> None:
    process = AgentProcess([words], port=int(sys.argv[1]), secret="contract")
    await process.open()
    print(process.base_url, flush=True)
    await process.wait()


if __name__ == "__main__":
    asyncio.run(main())
