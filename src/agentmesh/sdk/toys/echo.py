"""echo: says what it hears."""

from __future__ import annotations

from agentmesh.sdk.agent import agent, run


@agent
async def echo(text: str) -> str:
    """Repeats the text it is given."""
    return text


if __name__ == "__main__":
    run(echo)
