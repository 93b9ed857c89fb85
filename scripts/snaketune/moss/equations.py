"""Solve equations written by a model, such as `2x + 3y = 8; x = y`, in a separate process.

sympy's own parsers use eval; here Python's parser builds a tree, in which only numbers, unknowns,
+ - * / ^ and a few functions are allowed. Solving can take unlimited time and memory, so `solve`
runs this file as a program with limits, and kills it after a timeout.
"""

import ast
import json
import operator
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from math import ceil
from typing import Any

TIMEOUT_SECONDS = 10
MEMORY_BYTES = 512 << 20
"""The address space of the process; Python with sympy needs 60 MiB."""
_MAX_CHARACTERS = 500
_MAX_UNKNOWNS = 8
_MAX_EXPONENT = 20
"""9^9^9 alone would fill the memory."""
_MAX_BITS = 2000

_IMPLIED = re.compile(r"((?<![\w.])(?>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|\))(?=[^\W\d]|\()")
"""A number or a bracket before a name or a bracket: 2x is 2*x, (x+1)(x-1) a product; 1e3 is not.

The group of the number is atomic: backtracking would read 1e3 as 1*e3.
"""


def solve(equations: str) -> list[str]:
    """Solve equations that are separated by `;`.

    Numbers are Python's, as in MOSS's rows: 2/5 is 0.4, while x/5 stays a fraction.

    Returns:
        One line per unknown, such as `x = 130/3`; if there are several solutions, one line per
        solution, such as `x = 1, y = 2`.

    Raises:
        ValueError: The text is not equations, they have no solution, or solving takes too long.
    """
    if len(equations) > _MAX_CHARACTERS:
        raise ValueError(f"{len(equations):,} characters, the limit is {_MAX_CHARACTERS}")
    try:
        # isolated (-I) and without an environment: no file of the user's shadows a module
        process = subprocess.run(
            [sys.executable, "-I", __file__, str(ceil(TIMEOUT_SECONDS)), str(MEMORY_BYTES)],
            input=equations.encode("utf-8", "replace"),
            capture_output=True,
            timeout=TIMEOUT_SECONDS,
            env={},
        )
    except subprocess.TimeoutExpired as error:
        raise ValueError(f"not solved within {TIMEOUT_SECONDS} seconds") from error
    if process.returncode:
        raise ValueError("solving took too much memory, or failed")
    output = json.loads(process.stdout)
    if "error" in output:
        raise ValueError(output["error"])
    return output["lines"]


def solve_here(text: str) -> list[str]:
    """Do what `solve` does, in this process and without limits."""
    import sympy

    sides = [part.split("=") for part in text.split(";") if part.strip()]
    if not sides or any(len(pair) != 2 for pair in sides):
        raise ValueError("expected equations with exactly one '=', separated by ';'")
    terms = [_term(left) - _term(right) for left, right in sides]
    # a term in which every unknown cancels is a plain number without free_symbols
    unknowns = sorted(set().union(*(getattr(term, "free_symbols", ()) for term in terms)), key=str)
    if not unknowns:
        raise ValueError("the equations contain no unknown")
    if len(unknowns) > _MAX_UNKNOWNS:
        raise ValueError(f"{len(unknowns)} unknowns, the limit is {_MAX_UNKNOWNS}")
    solutions = sympy.solve(terms, unknowns, dict=True)
    if not solutions:
        raise ValueError("the equations have no solution")
    lines = [
        [f"{name} = {solution[name]}" for name in unknowns if name in solution]
        for solution in solutions
    ]
    return lines[0] if len(lines) == 1 else [", ".join(line) for line in lines]


def _term(text: str) -> Any:
    """Parse one side of an equation to a number or sympy's expression."""
    text = _IMPLIED.sub(r"\1*", text.strip().replace("^", "**"))
    try:
        return _value(ast.parse(text, mode="eval").body)
    except SyntaxError as error:
        raise ValueError(f"{text[:80]!r} is not an expression ({error.msg})") from error


def _value(node: ast.expr) -> Any:
    """Evaluate a syntax tree; whatever is not arithmetic is refused."""
    import sympy

    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return number
        case ast.Name(id="pi"):
            return sympy.pi
        case ast.Name(id=name):
            return sympy.Symbol(name)
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=operand):
            return -_value(operand) if isinstance(sign, ast.USub) else _value(operand)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _within(_OPERATORS[type(op)](_value(left), _value(right)))
        case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]) if name in _FUNCTIONS:
            return getattr(sympy, _FUNCTIONS[name])(_value(argument))
    raise ValueError(f"{ast.unparse(node)[:80]!r} is not an arithmetic expression")


def _within(value: Any) -> Any:
    if isinstance(value, int) and value.bit_length() > _MAX_BITS:
        raise ValueError("a number is too large")
    return value


def _power(base: Any, exponent: Any) -> Any:
    if isinstance(exponent, int | float) and abs(exponent) > _MAX_EXPONENT:
        raise ValueError(f"exponents may be at most {_MAX_EXPONENT}")
    return base**exponent


_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: _power,
}
_FUNCTIONS = {name: name for name in ("sqrt", "exp", "log", "sin", "cos", "tan")}
_FUNCTIONS |= {"ln": "log", "abs": "Abs"}


def _main(seconds: int, memory: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    # the parent kills this process after its timeout, unless the parent itself was killed
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    try:
        output: dict[str, Any] = {"lines": solve_here(sys.stdin.buffer.read().decode("utf-8"))}
    except ValueError as error:
        output = {"error": str(error)}
    except (ArithmeticError, NotImplementedError, TypeError, RecursionError, MemoryError) as error:
        output = {"error": f"sympy cannot solve the equations ({type(error).__name__})"}
    print(json.dumps(output))


if __name__ == "__main__":
    _main(*map(int, sys.argv[1:]))
