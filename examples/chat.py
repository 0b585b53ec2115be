"""Two agents on two nodes chat, publish and count: ``python chat.py bob`` on one, ``chat.py amy bob hello`` on the other."""

import asyncio
import sys

from agentmesh import Mesh


async def main(me: str, other: str = "", text: str = "") -> None:
    async with Mesh() as mesh:
        await mesh.register(f"mailbox:{me}")
        said = mesh.state("chat").counter("said")
        if other:
            await mesh.send(other, text, sender=me)
        async for message in mesh.inbox(me):
            await mesh.publish("chat.read", f"{me} read {message.text!r}")
            print(f"{message.sender_name}: {message.text} ({await said.add(1)} said)", flush=True)
            if message.kind == "response":
                break
            await mesh.reply(message, f"{message.text} to you, too")


asyncio.run(main(*sys.argv[1:]))
