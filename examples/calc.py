"""An agent with skills: agentmesh run --to calc "2*21", or agentmesh run --to calc --skill add '{"a": 1, "b": 2}'."""

import ast
import operator

from agentmesh import Agent, run

calc = Agent("calc", description="Does arithmetic: adds, multiplies, and evaluates expressions such as 2*21.")
OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


@calc.skill(tags=["arithmetic", "math"])
def add(a: float, b: float) -> float:
    """Adds two numbers."""
    return a + b


@calc.skill(tags=["arithmetic", "math"])
def mul(a: float, b: float) -> float:
    """Multiplies two numbers."""
    return a * b


@calc.skill(default=True, tags=["arithmetic", "math"])
def evaluate(text: str) -> str:
    """Evaluates an expression of numbers, + - * / and brackets."""
    return f"{value(ast.parse(text.strip()[:200], mode='eval').body):.15g}"


def value(node: ast.expr) -> float:
    match node:
        case ast.Constant(value=int() | float() as number):
            return number
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
            return OPERATORS[type(op)](value(left), value(right))
    raise ValueError("only numbers, + - * / and brackets are understood")


if __name__ == "__main__":
    run(calc)
