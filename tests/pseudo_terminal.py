"""A program in a pseudo-terminal: keys go in, and what its user sees comes out."""

import os
import re
from pathlib import Path

import pexpect

PROMPT_BEGINS, PROMPT_ENDS = "\x1b[?2004h", "\x1b[?2004l"
"""Bracketed paste is switched on while a prompt waits for keys."""

_ESCAPES = re.compile(r"\x1b(\[[0-9;?]*[A-Za-z]|[=>])")


class Terminal:
    """The program, with 40 lines of 100 columns."""

    def __init__(self, command: list[str], folder: Path, **environment: str) -> None:
        environment = {"PROMPT_TOOLKIT_NO_CPR": "1", "TERM": "xterm"} | environment
        self.child = pexpect.spawn(
            command[0],
            command[1:],
            cwd=str(folder),
            env=os.environ | environment,
            encoding="utf-8",
            timeout=30,
            dimensions=(40, 100),
        )
        self.child.delaybeforesend = None

    def type(self, keys: str | bytes) -> None:
        """Press keys; Enter is `\\r`."""
        os.write(self.child.child_fd, keys.encode() if isinstance(keys, str) else keys)

    def ask(self, line: str) -> str:
        """Send a line, and return what is shown from then to the next prompt."""
        self.type(line + "\r")
        return self.until_prompt()

    def until_prompt(self) -> str:
        """Return what is shown until the next time that the program waits for keys."""
        self.wait_for(PROMPT_ENDS)
        return self.until_ready()

    def until_ready(self) -> str:
        """Return what is shown until the program waits for keys, if it does not already."""
        self.wait_for(PROMPT_BEGINS)
        return plain(self.child.before)

    def wait_for(self, text: str) -> None:
        self.child.expect_exact(text)

    def ends(self) -> int:
        """Wait for the program's end, and return its status."""
        self.child.expect(pexpect.EOF)
        self.child.close()
        return self.child.exitstatus

    def hang_up(self) -> None:
        """Close the terminal, as closing its window does."""
        self.child.ptyproc.fileobj.close()


def plain(shown: str) -> str:
    """Remove colours and cursor movements."""
    return _ESCAPES.sub("", shown).replace("\r\n", "\n").replace("\r", "")
