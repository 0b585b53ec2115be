"""An agent that calls others: it has calc compute, then has echo repeat the result. Both calls join the same run."""

from agentmesh import Context, agent, run


@agent(tags=["review", "demo"])
async def reviewer(text: str, ctx: Context) -> str:
    """Checks a sum: asks calc for the result and echo to confirm it."""
    ctx.reasoning(f"{text!r} looks like arithmetic; calc can do that")
    result = await ctx.call("calc", text)
    heard = await ctx.call("echo", f"{text} = {result.text}")
    return f"reviewed: {heard.text}"


if __name__ == "__main__":
    run(reviewer)
