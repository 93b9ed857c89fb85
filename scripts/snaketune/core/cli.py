"""What every stage program shares: its log, its exit status, and how its errors look."""

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
"""How often a waiting thread of torch looks before it sleeps. By GNU OpenMP's own number, two
programs on two cores get a quarter of this in bf16 products, and three far less; a training that
has the machine for itself is as fast (383 and 379 tokens/s; never to spin at all: 243)."""

console = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)
"""The terminal. `open_log` keeps it on the real stderr when stray output goes to the log."""


def parser(docstring: str | None) -> argparse.ArgumentParser:
    """Return an argument parser with a program's docstring as help and the common `--log`."""
    result = argparse.ArgumentParser(
        description=docstring, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    result.add_argument("--log", type=Path, help="also write everything that happens to this file")
    return result


def open_log(path: Path | None) -> None:
    """Show our own messages on the terminal, and write them with all other output to `path`.

    Libraries, compilers and crashes print to file descriptors 1 and 2; those are pointed at the
    log, so the terminal shows one readable line at a time and nothing is lost.
    """
    leads = os.environ.get("RANK", "0") == "0"  # of several processes one tells the progress
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
    logging.getLogger().addHandler(root.handlers[-1])  # other libraries' warnings: the log alone


def also_log_to(path: Path) -> None:
    """Append everything that is told from now on to another file as well."""
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logging.getLogger("snaketune").addHandler(handler)


def close_log() -> None:
    """Give stdout and stderr back to the terminal, for a program that takes this one's place."""
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
    """Return where the traceback is, if there is a log."""
    files = [h.baseFilename for h in _log_files()]
    return f"\n  The traceback is in {os.path.relpath(files[0])}" if files else ""


def _log_files() -> list[logging.FileHandler]:
    handlers = logging.getLogger("snaketune").handlers
    return [handler for handler in handlers if isinstance(handler, logging.FileHandler)]


class _Terminal(logging.Handler):
    """Prints time, program and message in one line, above a progress bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a message."""
        program = Path(sys.argv[0]).stem
        line = f"{time.strftime('%H:%M:%S')} {program:<14} {self.format(record)}"
        console.print(Text(line))


def _fail(title: str, message: str, status: int) -> int:
    text = Text.assemble((title, "bold red" if status == 1 else "bold yellow"), " ", message)
    console.print(text)
    for handler in _log_files():
        Console(file=handler.stream, soft_wrap=True).print(text)
    return status
