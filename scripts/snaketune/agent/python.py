"""A model's Python, run by Monty: an interpreter in Rust, in a worker process of its own.

The code sees no file, socket, environment or package; it is stopped at its limits of time, memory,
depth and output, and what kills the worker kills nothing else.
"""

from pydantic_monty import CollectString, Monty, MontyError, MontyRuntimeError, ResourceLimits

SECONDS = 5.0
_LIMITS = ResourceLimits(
    max_feed_duration_secs=SECONDS,
    max_memory=128 << 20,
    max_recursion_depth=500,
    max_suspensions=100,
    max_total_sleep_secs=1.0,
)
_OUTPUT = 100_000
"""Bytes that may be printed."""


def run(code: str) -> str:
    """Return what a program prints, and the value of its last line if it has one.

    Nothing is kept from one call to the next.

    Raises:
        ValueError: It does not run, or was stopped; the message is the traceback's last line.
    """
    printed = CollectString(_OUTPUT)
    with Monty(max_processes=1, request_timeout=SECONDS + 3) as pool:
        try:
            with pool.checkout(limits=_LIMITS) as session:
                value = session.feed_run(code, print_callback=printed)
        except MontyRuntimeError as error:
            raise ValueError(printed.output + error.display("type-msg")) from error
        except MontyError as error:  # no Python, or the worker died
            raise ValueError(printed.output + str(error)) from error
    shown = "" if value is None else repr(value)
    return printed.output + shown or "(it printed nothing)"
