"""Solve equations written by a model, such as `2x + 3y = 8; x = y`, in a process of its own.

sympy's own readers of text use eval; here Python's parser makes a tree, of which numbers,
unknowns, + - * / ^ and a few functions are allowed. A system can take for ever or all memory, so
`solve` starts this file as a program with limits, and ends it when its time is over.
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

SECONDS = 10
MEMORY = 512 << 20
"""Bytes that the process may address; it takes 60 MiB at least."""
_CHARACTERS = 500
_UNKNOWNS = 8
_EXPONENT = 20
"""Exponents above it are refused: 9^9^9 alone would fill the memory."""
_BITS = 2000

_IMPLIED = re.compile(r"((?<![\w.])(?>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|\))(?=[^\W\d]|\()")
"""A number or a bracket before a name or a bracket: 2x is 2*x, (x+1)(x-1) a product; 1e3 is not."""


def solve(equations: str) -> list[str]:
    """Return what solves equations that are separated by `;`.

    Numbers are Python's, as in MOSS's rows: 2/5 is 0.4, while x/5 stays a fraction.

    Returns:
        Lines such as `x = 130/3`; for one of several solutions in several unknowns such as
        `x = 1, y = 2`.

    Raises:
        ValueError: They are no equations, have no solution, or take too long to solve.
    """
    if len(equations) > _CHARACTERS:
        raise ValueError(f"they have {len(equations):,} characters; at most {_CHARACTERS} may be")
    try:
        done = subprocess.run(
            [sys.executable, "-I", __file__, str(ceil(SECONDS)), str(MEMORY)],
            input=equations.encode("utf-8", "replace"),
            capture_output=True,
            timeout=SECONDS,
            env={},
        )
    except subprocess.TimeoutExpired as error:
        raise ValueError(f"not solved within {SECONDS} seconds") from error
    if done.returncode:
        raise ValueError("solving them took too much memory, or failed")
    found = json.loads(done.stdout)
    if "error" in found:
        raise ValueError(found["error"])
    return found["lines"]


def _solved(text: str) -> list[str]:
    """Return the lines of `solve`, in this process."""
    import sympy

    sides = [part.split("=") for part in text.split(";") if part.strip()]
    if not sides or any(len(each) != 2 for each in sides):
        raise ValueError("expected equations with one = each, separated by ;")
    terms = [_term(left) - _term(right) for left, right in sides]
    unknowns = sorted(set().union(*(getattr(each, "free_symbols", ()) for each in terms)), key=str)
    if not unknowns:
        raise ValueError("no unknown is left in them")
    if len(unknowns) > _UNKNOWNS:
        raise ValueError(f"there are {len(unknowns)} unknowns; at most {_UNKNOWNS} may be")
    found = sympy.solve(terms, unknowns, dict=True)
    if not found:
        raise ValueError("there is no solution")
    lines = [[f"{name} = {each[name]}" for name in unknowns if name in each] for each in found]
    return lines[0] if len(lines) == 1 else [", ".join(line) for line in lines]


def _term(text: str) -> Any:
    """Return one side of an equation as a number or as sympy's expression."""
    text = _IMPLIED.sub(r"\1*", text.strip().replace("^", "**"))
    try:
        return _value(ast.parse(text, mode="eval").body)
    except SyntaxError as error:
        raise ValueError(f"{text[:80]!r} is no expression ({error.msg})") from error


def _value(node: ast.expr) -> Any:
    """Return the value of a tree; whatever is no arithmetic is refused."""
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
    raise ValueError(f"{ast.unparse(node)[:80]!r} is no arithmetic")


def _within(value: Any) -> Any:
    if isinstance(value, int) and value.bit_length() > _BITS:
        raise ValueError("a number is too large")
    return value


def _power(base: Any, exponent: Any) -> Any:
    if isinstance(exponent, int | float) and abs(exponent) > _EXPONENT:
        raise ValueError(f"exponents may be at most {_EXPONENT}")
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
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))  # also when nobody waits any more
    try:
        told: dict[str, Any] = {"lines": _solved(sys.stdin.buffer.read().decode("utf-8"))}
    except ValueError as error:
        told = {"error": str(error)}
    except (ArithmeticError, NotImplementedError, TypeError, RecursionError, MemoryError) as error:
        told = {"error": f"sympy cannot solve them ({type(error).__name__})"}
    print(json.dumps(told))


if __name__ == "__main__":
    _main(*map(int, sys.argv[1:]))
