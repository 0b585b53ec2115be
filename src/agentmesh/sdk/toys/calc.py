"""calc: does arithmetic, and can have echo say the result."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from typing import Any

from agentmesh.errors import AgentFailed
from agentmesh.sdk.agent import Agent, Context, run

_EXPRESSION_CHARS_MAX = 200
_NUMBER_MAX = 10**15
# The stubs of true and floor division are untyped.
_OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,  # pyright: ignore[reportUnknownMemberType]
    ast.FloorDiv: operator.floordiv,  # pyright: ignore[reportUnknownMemberType]
    ast.Mod: operator.mod,
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
}

calc = Agent("calc", description="Can do arithmetic: add, subtract, multiply and divide numbers.")


def evaluate(expression: str) -> float:
    """Work out an arithmetic expression of numbers, + - * / // % and parentheses.

    Raises:
        AgentFailed: it is none, divides by zero, or leaves the range of ±10¹⁵.
    """
    if len(expression) > _EXPRESSION_CHARS_MAX:
        raise AgentFailed(f"an expression of at most {_EXPRESSION_CHARS_MAX} characters, please", code="calc.too_long")
    try:
        return _value(ast.parse(expression.strip(), mode="eval").body)
    except ZeroDivisionError as error:
        raise AgentFailed(f"{expression.strip()} divides by zero", code="calc.zero") from error
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise AgentFailed(f"{expression.strip()!r} is no arithmetic", code="calc.syntax", hint="1 + 2 * 3") from error


def _value(node: ast.AST) -> float:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        value: float = node.value  # pyright: ignore[reportAssignmentType]
    elif isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        value = _OPERATORS[type(node.op)](_value(node.left), _value(node.right))
    elif isinstance(node, ast.UnaryOp) and type(node.op) in _OPERATORS:
        value = _OPERATORS[type(node.op)](_value(node.operand))
    else:
        raise ValueError(type(node).__name__)
    if not -_NUMBER_MAX <= value <= _NUMBER_MAX:
        raise AgentFailed("the number leaves my range of ±10¹⁵", code="calc.range")
    return value


@calc.skill(default=True, tags=["math", "arithmetic"])
async def add_mul(text: str, ctx: Context) -> str:
    """Works out an arithmetic expression such as (1 + 2) * 3."""
    result = evaluate(text)
    shown = str(int(result)) if float(result).is_integer() else str(result)
    ctx.tool("evaluate", {"expression": text.strip()}, shown)
    return shown


@calc.skill(tags=["math", "chain"])
async def say(text: str, ctx: Context) -> str:
    """Works out an expression and has the agent echo say the result."""
    result = await add_mul(text, ctx)
    return (await ctx.call("echo", f"{text.strip()} = {result}")).text


if __name__ == "__main__":
    run(calc)
