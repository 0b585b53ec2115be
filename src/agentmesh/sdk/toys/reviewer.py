"""reviewer: checks a claim such as "6 * 7 = 42" by asking calc, which asks echo."""

from __future__ import annotations

from agentmesh.sdk.agent import Context, agent, run


@agent(tags=["review", "chain"])
async def reviewer(text: str, ctx: Context) -> str:
    """Checks a claim such as 6 * 7 = 42 with the help of calc and echo."""
    expression, _, claimed = text.partition("=")
    ctx.reasoning(f"calc knows arithmetic, so I ask it about {expression.strip()}")
    said = (await ctx.call("calc", expression.strip(), skill="say")).text
    if not claimed.strip():
        return said
    correct = said.rpartition("=")[2].strip() == claimed.strip()
    return f"{'correct' if correct else 'wrong'}: {said}"


if __name__ == "__main__":
    run(reviewer)
