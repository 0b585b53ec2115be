"""The smallest agent: agentmesh dev examples/hello.py, then agentmesh run --to hello "Ben"."""

from agentmesh import agent, run


@agent
async def hello(name: str) -> str:
    """Greets a person."""
    return f"你好 {name}"


if __name__ == "__main__":
    run(hello)
