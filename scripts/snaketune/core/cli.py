"""What all stage programs share: logging, exit status and error messages."""

import argparse
import faulthandler
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from snaketune.core.errors import Interrupted, UserError

os.environ.setdefault("GOMP_SPINCOUNT", "3000")
"""How often a waiting OpenMP thread polls before it sleeps. With GNU OpenMP's default, two programs
on two cores reach a quarter of this speed in bf16 products, and three far less. A training that
has the machine for itself is as fast (383 and 379 tokens/s; without any polling: 243)."""

console = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)
"""The terminal. `open_log` keeps it on the real stderr when stray output goes to the log."""


def parser(docstring: str | None) -> argparse.ArgumentParser:
    """Create the argument parser: a program's docstring as help, and the common `--log`."""
    result = argparse.ArgumentParser(
        description=docstring, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    result.add_argument("--log", type=Path, help="also write all output to this file")
    return result


def open_log(path: Path | None) -> None:
    """Show our own messages on the terminal, and write them with all other output to `path`.

    Libraries, compilers and crashes print to file descriptors 1 and 2; those are pointed at the
    log, so the terminal shows one readable line at a time and nothing is lost.
    """
    leads = os.environ.get("RANK", "0") == "0"  # only rank 0 reports progress
    root = logging.getLogger("snaketune")
    root.setLevel(logging.INFO if leads else logging.WARNING)
    root.propagate = False
    root.handlers = [_Terminal()]
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    terminal = os.fdopen(os.dup(2), "w", buffering=1)
    console.file = terminal
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    if leads:
        os.ftruncate(descriptor, 0)
    for stream, number in ((sys.stdout, 1), (sys.stderr, 2)):
        stream.flush()
        os.dup2(descriptor, number)
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    faulthandler.enable()
    also_log_to(path)
    logging.getLogger().addHandler(root.handlers[-1])  # other libraries' warnings: only to the log


def also_log_to(path: Path) -> None:
    """Append all messages from now on to another file as well."""
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logging.getLogger("snaketune").addHandler(handler)


def close_log() -> None:
    """Give stdout and stderr back to the terminal, before os.execv starts another program."""
    for number in (1, 2):
        os.dup2(console.file.fileno(), number)


def run(main: Callable[[Sequence[str] | None], None], argv: Sequence[str] | None = None) -> int:
    """Call a program's main and return its exit status: 0, 1, or 128 + the signal's number."""
    try:
        main(argv)
    except UserError as error:
        return _fail("Error:", f"{error}", 1)
    except Interrupted as error:
        return _fail("Stopped:", f"{error}", 128 + error.signum)
    except Exception as error:
        traceback.print_exc()
        return _fail(f"Unexpected {type(error).__name__}:", f"{error}{_where()}", 1)
    except KeyboardInterrupt:
        return _fail("Stopped", "by Ctrl-C; nothing is left half-written.", 128 + signal.SIGINT)
    return 0


def _where() -> str:
    files = [h.baseFilename for h in _log_files()]
    return f"\n  The traceback is in {os.path.relpath(files[0])}" if files else ""


def _log_files() -> list[logging.FileHandler]:
    handlers = logging.getLogger("snaketune").handlers
    return [handler for handler in handlers if isinstance(handler, logging.FileHandler)]


class _Terminal(logging.Handler):
    """Prints time, program and message in one line, above a progress bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        program = Path(sys.argv[0]).stem
        line = f"{time.strftime('%H:%M:%S')} {program:<14} {self.format(record)}"
        console.print(Text(line))


def _fail(title: str, message: str, status: int) -> int:
    text = Text.assemble((title, "bold red" if status == 1 else "bold yellow"), " ", message)
    console.print(text)
    for handler in _log_files():
        Console(file=handler.stream, soft_wrap=True).print(text)
    return status
