"""The line editor of the terminal: multi-line input, history, completion, Ctrl-C and Ctrl-D."""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

from snaketune.chat.chat_session import ChatEnded, ChatSession
from snaketune.core.errors import UserError
from snaketune.core.text import encodable


def run_line_editor(
    session: ChatSession, remark: Callable[[str], None], report_error: Callable[[str], None]
) -> None:
    """Read prompts and commands until the user quits.

    Args:
        remark: Shows a remark.
        report_error: Shows an error; the session continues.
    """
    editor: PromptSession[str] = PromptSession(
        history=open_history(),
        multiline=True,
        key_bindings=_keys(),
        completer=CommandCompleter(session.commands),
        complete_while_typing=False,
        prompt_continuation="  ",
    )
    presses = 0
    while presses < 2:
        try:
            line = editor.prompt([("bold", "\nboth> " if session.comparing else "\n> ")])
            presses = 0
            session.handle(line)
        except KeyboardInterrupt:
            presses += 1
            if presses == 1:
                remark("(Ctrl-C again or Ctrl-D quits)")
        except UserError as error:
            report_error(str(error))
        except (EOFError, ChatEnded):
            return


def _keys() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.validate_and_handle()

    # terminals send Alt-Enter as Escape, Enter
    @keys.add("escape", "enter")
    @keys.add("c-j")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.newline(copy_margin=False)

    # Ctrl-C is a key here; a SIGINT sent by another program arrives as <sigint>
    @keys.add("c-c")
    @keys.add("<sigint>")
    def _(event: KeyPressEvent) -> None:
        if event.current_buffer.text:
            event.current_buffer.reset()
        else:
            event.app.exit(exception=KeyboardInterrupt)

    return keys


class CommandCompleter(Completer):
    """Completes a command, and the file name or word after it."""

    def __init__(self, commands: Iterable[str]) -> None:
        self.commands = list(commands)
        self._files = PathCompleter(expanduser=True)

    def get_completions(self, document: Document, event: CompleteEvent) -> Iterator[Completion]:
        text = document.text_before_cursor
        command, space, argument = text.partition(" ")
        if not space and text.startswith("/"):
            yield from _completions(self.commands, text)
        elif command in ("/save", "/load"):
            yield from self._files.get_completions(Document(argument), event)
        elif command in ("/compare", "/system"):
            words = ("on", "off") if command == "/compare" else ("off",)
            yield from _completions(words, argument)


def _completions(words: Iterable[str], start: str) -> Iterator[Completion]:
    return (Completion(word, -len(start)) for word in words if word.startswith(start))


def history_file() -> Path:
    """The user's own file of typed lines, in the state folder of the XDG specification."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "snaketune" / "chat_history"


def open_history() -> History:
    """Open the history of typed lines, which only its owner can read; in memory if that fails."""
    with contextlib.suppress(OSError, RuntimeError):  # RuntimeError: no home folder
        file = history_file()
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # created readable by its owner alone: FileHistory would create it by the umask
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        os.fchmod(descriptor, 0o600)
        os.close(descriptor)
        return _SafeFileHistory(file)
    return InMemoryHistory()


class _SafeFileHistory(FileHistory):
    """A history file that accepts any bytes typed and survives a full disk."""

    def store_string(self, string: str) -> None:
        with contextlib.suppress(OSError):
            super().store_string(encodable(string))
