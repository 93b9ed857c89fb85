"""The prompt in the terminal: several lines, history, completion, Ctrl-C and Ctrl-D."""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

from snaketune.chat.talk import Ended, Talk
from snaketune.chat.text import encodable
from snaketune.core.errors import UserError


def talk_at_prompt(
    talk: Talk, tell: Callable[[str], None], complain: Callable[[str], None]
) -> None:
    """Read questions and commands until the user ends.

    Args:
        tell: Shows a remark.
        complain: Shows what was wrong; the talk goes on.
    """
    history = open_history()
    session: PromptSession[str] = PromptSession(
        history=history,
        multiline=True,
        key_bindings=_keys(),
        completer=Commands(talk.commands),
        complete_while_typing=False,
        prompt_continuation="  ",
    )
    presses = 0
    while presses < 2:
        try:
            line = session.prompt([("bold", "\nboth> " if talk.comparing else "\n> ")])
            presses = 0
            talk.take(line)
        except KeyboardInterrupt:
            presses += 1
            if presses == 1:
                tell("(Ctrl-C again or Ctrl-D ends)")
        except UserError as error:
            complain(str(error))
        except (EOFError, Ended):
            return


def _keys() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.validate_and_handle()

    @keys.add("escape", "enter")
    @keys.add("c-j")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.newline(copy_margin=False)

    @keys.add("c-c")
    @keys.add("<sigint>")
    def _(event: KeyPressEvent) -> None:
        if event.current_buffer.text:
            event.current_buffer.reset()
        else:
            event.app.exit(exception=KeyboardInterrupt)

    return keys


class Commands(Completer):
    """Completes a command, and the file or the word after it."""

    def __init__(self, commands: Iterable[str]) -> None:
        self.commands = list(commands)
        self._files = PathCompleter(expanduser=True)

    def get_completions(self, document: Document, event: CompleteEvent) -> Iterator[Completion]:
        """Yield what the text before the cursor may become."""
        text = document.text_before_cursor
        command, space, argument = text.partition(" ")
        if not space and text.startswith("/"):
            yield from _of(self.commands, text)
        elif command in ("/save", "/load"):
            yield from self._files.get_completions(Document(argument), event)
        elif command in ("/compare", "/system"):
            yield from _of(("on", "off") if command == "/compare" else ("off",), argument)


def _of(words: Iterable[str], begun: str) -> Iterator[Completion]:
    return (Completion(word, -len(begun)) for word in words if word.startswith(begun))


def history_file() -> Path:
    """Return where typed lines are kept: in the user's own state folder, as XDG names it."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "snaketune" / "chat_history"


def open_history() -> History:
    """Return the lines typed before, in a file that only its owner reads; in memory if it fails."""
    with contextlib.suppress(OSError, RuntimeError):  # RuntimeError: there is no home
        file = history_file()
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        os.fchmod(descriptor, 0o600)
        os.close(descriptor)
        return _Kept(file)
    return InMemoryHistory()


class _Kept(FileHistory):
    """A history file that takes any bytes typed and stands a full disk."""

    def store_string(self, string: str) -> None:
        with contextlib.suppress(OSError):
            super().store_string(encodable(string))
