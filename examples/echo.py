"""An agent that says what it hears, word by word: agentmesh dev examples/echo.py, then agentmesh run --to echo "hi there"."""

from collections.abc import AsyncIterator

from agentmesh import agent, run


@agent(tags=["text", "demo"])
async def echo(text: str) -> AsyncIterator[str]:
    """Repeats the text it is given."""
    for n, word in enumerate(text.split(" ")):
        yield word if n == 0 else " " + word


if __name__ == "__main__":
    run(echo)
