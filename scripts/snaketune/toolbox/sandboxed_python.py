"""A model's Python, run by Monty: an interpreter in Rust, in a worker process of its own.

The code sees no file, socket, environment or package; it is stopped at its limits of time, memory,
depth and output, and what kills the worker kills nothing else.
"""

import ast

from pydantic_monty import CollectString, Monty, MontyError, MontyRuntimeError, ResourceLimits

SECONDS = 5.0
_LIMITS = ResourceLimits(
    max_feed_duration_secs=SECONDS,
    max_memory=128 << 20,
    max_recursion_depth=500,
    max_suspensions=100,
    max_total_sleep_secs=1.0,
)
_VALUE = "_value_of_the_last_line"
_OUTPUT = 100_000
"""Bytes that may be printed."""


def run(code: str) -> str:
    """Return what a program prints, and the value of its last line if it has one.

    Nothing is kept from one call to the next.

    Raises:
        ValueError: It does not run, or was stopped; the message is the error with what was printed.
    """
    printed = CollectString(_OUTPUT)
    with Monty(max_processes=1, request_timeout=SECONDS + 3) as pool:
        try:
            with pool.checkout(limits=_LIMITS) as session:
                session.feed_run(_printing(code), print_callback=printed)
        except MontyRuntimeError as error:
            raise ValueError(_told(error.display("type-msg"), printed.output)) from error
        except MontyError as error:  # no Python, or the worker died
            raise ValueError(_told(str(error), printed.output)) from error
    return printed.output or "(it printed nothing)"


def _told(error: str, output: str) -> str:
    """Return the error first: what was printed before it may be cut."""
    return f"{error}\nIt had printed:\n{output}" if output else error


def _printing(code: str) -> str:
    """Return the program with a last line that prints the value of its last expression.

    No value leaves the worker: of a list that holds itself twice, 40 deep, it is our own repr that
    would never end.
    """
    try:
        tree = ast.parse(code)
        last = tree.body[-1] if tree.body else None
        if not isinstance(last, ast.Expr):
            return f"{code}\nNone"
        target = ast.Assign([ast.Name(_VALUE, ast.Store())], last.value)
        tree.body[-1] = ast.fix_missing_locations(target)
        return f"{ast.unparse(tree)}\nif {_VALUE} is not None: print(repr({_VALUE}))"
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return code  # Monty tells what is wrong with it
