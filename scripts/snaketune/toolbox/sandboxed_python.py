"""Python code of a model, run by Monty: an interpreter in Rust, in a worker process of its own.

The code has no access to files, sockets, environment or packages and is stopped at its limits of
time, memory, depth and output. A crash of the worker affects nothing else.
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
"""Limit on the printed output, in bytes."""


def run(code: str) -> str:
    """Run a program: its output, and the value of its last line if that is an expression.

    No state is kept between calls.

    Raises:
        ValueError: It failed or was stopped; the message is the error with the output so far.
    """
    printed = CollectString(_OUTPUT)
    with Monty(max_processes=1, request_timeout=SECONDS + 3) as pool:
        try:
            with pool.checkout(limits=_LIMITS) as session:
                session.feed_run(_printing(code), print_callback=printed)
        except MontyRuntimeError as error:
            raise ValueError(_with_output(error.display("type-msg"), printed.output)) from error
        except MontyError as error:  # a syntax error, or the worker died
            raise ValueError(_with_output(str(error), printed.output)) from error
    return printed.output or "(it printed nothing)"


def _with_output(error: str, output: str) -> str:
    # the error comes first, as long text is cut at its end
    return f"{error}\nIt had printed:\n{output}" if output else error


def _printing(code: str) -> str:
    """Append a line that prints the value of the last expression.

    The value is printed in the worker: the repr of a list that contains itself twice, 40 deep,
    would never end in our own process.
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
        return code  # Monty reports what is wrong with it
