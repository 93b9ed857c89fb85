"""Arithmetic by simpleeval, without eval, and within limits that rule out long computations.

Only numbers and functions of numbers are known: no text, list, attribute or comprehension. An
expression has at most 1,000 characters and its integers 10,000 bits, so that each of its few
hundred operations takes microseconds. simpleeval's own limits are insufficient: 3999999**3999999,
which is within them, takes half a minute, during which nothing else in the process runs.
"""

import ast
import math
import operator
from collections.abc import Callable
from typing import Any

from simpleeval import InvalidExpression, SimpleEval

_CHARACTERS = 1000
_BITS = 10_000
_DIGITS = 400
"""More decimals than a float has; round(5, -1000000000) would compute 10**1000000000."""


def evaluate(expression: str) -> str:
    """Evaluate an expression such as `(17 * 23) / 4` or `sqrt(2)`; 10 / 2 is 5.

    Raises:
        ValueError: It is too long, too deep, too large, or not arithmetic.
    """
    number = value(expression)
    # every float holds 15 decimal digits exactly; a 16th may be noise: 0.1 + 0.2
    return format(number, ".15g") if isinstance(number, float) else str(number)


def value(expression: str) -> int | float:
    """The value of an expression as a finite real number; raises what `evaluate` raises."""
    if len(expression) > _CHARACTERS:
        raise ValueError(f"it has {len(expression):,} characters; at most {_CHARACTERS:,} may be")
    try:
        tree = ast.parse(expression.strip(), mode="eval").body
        return _real(_Numbers().eval(expression, tree))
    except InvalidExpression as error:
        raise ValueError(str(error)) from error
    except (RecursionError, MemoryError) as error:
        raise ValueError("it has too many parts; compute it in several calls") from error
    except SyntaxError as error:
        raise ValueError(f"it is no expression ({error.msg})") from error
    except (TypeError, ArithmeticError) as error:
        raise ValueError(f"it has no value: {error}") from error


def _real(value: object) -> int | float:
    if type(value) is int or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise ValueError(f"the result is {type(value).__name__}, not a finite real number")


def _within(value: Any) -> Any:
    if isinstance(value, int) and value.bit_length() > _BITS:
        raise ValueError("a number is too large")
    return value


def _power(base: Any, exponent: Any) -> Any:
    whole = isinstance(base, int) and isinstance(exponent, int)
    if whole and base.bit_length() * exponent > _BITS:
        raise ValueError("a number is too large")
    return base**exponent


def _product(left: Any, right: Any) -> Any:
    return _within(left * right)


def _no_power(left: Any, right: Any) -> Any:
    raise ValueError("write ** for a power: ^ is none")


def _round(value: Any, digits: int = 0) -> Any:
    if abs(digits) > _DIGITS:
        raise ValueError(f"round takes at most {_DIGITS} decimals")
    return round(value, digits) if digits else round(value)


def _of_small(function: Callable[..., int]) -> Callable[..., int]:
    """Limit a function that grows fast, such as factorial, to arguments up to 1,000."""

    def bounded(*numbers: int) -> int:
        if max(numbers) > 1000:
            raise ValueError(f"{function.__name__} takes numbers to 1,000")
        return function(*numbers)

    return bounded


_OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: _product,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: _power,
    ast.BitXor: _no_power,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}
_PLAIN = (
    "sqrt cbrt exp log log2 log10 sin cos tan asin acos atan atan2 sinh cosh tanh "
    "degrees radians floor ceil trunc hypot gcd isqrt"
)
_FAST_GROWING = (math.factorial, math.comb, math.perm)
_FUNCTIONS = {
    **{name: getattr(math, name) for name in _PLAIN.split()},
    **{function.__name__: _of_small(function) for function in _FAST_GROWING},
    "abs": abs,
    "lcm": lambda *numbers: _within(math.lcm(*numbers)),
    "max": max,
    "min": min,
    "pow": _power,
    "round": _round,
}
_NAMES = {"pi": math.pi, "e": math.e, "tau": math.tau}
_NODES: tuple[type[ast.AST], ...] = (ast.BinOp, ast.UnaryOp, ast.Call, ast.Name)


class _Numbers(SimpleEval):
    """simpleeval restricted to numbers."""

    nodes: dict[type[ast.AST], Callable[[Any], Any]]

    def __init__(self) -> None:
        super().__init__(operators=_OPERATORS, functions=_FUNCTIONS, names=_NAMES)
        self.nodes = {node: self.nodes[node] for node in _NODES}
        self.nodes[ast.Constant] = self._number

    @staticmethod
    def _number(node: ast.Constant) -> Any:
        if type(node.value) not in (int, float):
            raise ValueError(f"{str(node.value)[:40]!r} is not a number")
        return node.value
