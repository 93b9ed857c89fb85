"""A chat session: every line is a prompt, which is answered, or a command, which is executed."""

import sys
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, closing, nullcontext
from itertools import chain
from pathlib import Path

from rich.console import Console
from rich.text import Text

from snaketune.chat.chat_history import ChatHistory
from snaketune.client.answer import ChatMessage
from snaketune.client.chat_client import ChatClient
from snaketune.core.errors import UserError, nearest
from snaketune.core.terminal import CtrlC
from snaketune.core.text import encodable, printable

HELP = """\
/help            show this help
/reset           start a new conversation; the system text stays
/system TEXT     set the system text; `/system off` restores the experiment's own
/compare on      also show the base model's answers, until `/compare off`
/compare PROMPT  answer this one prompt with both models
/save FILE       save the conversation as JSON, also usable as training data (format: openai)
/load FILE       continue a saved conversation
/exit            quit, as Ctrl-D does
Enter sends; Alt-Enter or Ctrl-J inserts a line break; Tab completes a command.
Ctrl-C stops an answer, which is kept as far as it got; at the prompt it clears the line.
Put a space before a prompt that begins with /."""


class ChatEnded(Exception):
    """The user wants to quit."""


class ChatSession:
    """A conversation with a model and, when compared, with its base.

    Args:
        model: The model that answers.
        compared: The model that answers the same prompts in /compare; None if there is none.
        history: The conversation so far.
        remark: Shows a remark of the program's.
        ctrl_c: Stops an answer; without it Ctrl-C ends the program.
    """

    def __init__(
        self,
        model: ChatClient,
        compared: ChatClient | None,
        history: ChatHistory,
        remark: Callable[[str], None],
        ctrl_c: CtrlC | None = None,
    ) -> None:
        self.model, self.compared, self.history = model, compared, history
        self.comparing = False
        self._remark, self._ctrl_c = remark, ctrl_c
        # soft_wrap: the terminal wraps, so that copied text has no line breaks of ours
        self._screen = Console(highlight=False, soft_wrap=True, emoji=False, markup=False)
        self._warned_of_limit: set[str] = set()
        self.commands: dict[str, Callable[[str], None]] = {
            "/help": lambda _: remark(HELP),
            "/reset": self._reset,
            "/system": self._system,
            "/compare": self._compare,
            "/save": self._save,
            "/load": self._load,
            "/exit": self._exit,
        }

    def handle(self, line: str) -> None:
        """Answer a prompt or execute a command.

        Raises:
            UserError: It failed; the conversation is unchanged.
            ChatEnded: The command was /exit.
        """
        line = encodable(line)
        if not line.startswith("/"):
            return self.ask(line.strip()) if line.strip() else None
        command, *rest = line.split(maxsplit=1)
        # never sent: a mistyped command is not a prompt
        if command not in self.commands:
            hint = nearest(command, self.commands)
            known = ", ".join(self.commands)
            raise UserError(
                f"unknown command '{printable(command)}'.{hint} Commands: {known}\n"
                "  Fix: put a space before a prompt that begins with /."
            )
        self.commands[command]("".join(rest).strip())

    def ask(self, prompt: str, both: bool = False) -> None:
        """Answer a prompt, with the base first and then the model when they are compared.

        Raises:
            UserError: The prompt is too long, or the server refuses it or fails.
        """
        if not (both or self.comparing):
            return self._answer("model", self.model, prompt)
        base = self._require_base()
        self._label("base", base)
        self._answer("compared", base, prompt)
        self._end_line()
        self._label("tuned", self.model)
        self._answer("model", self.model, prompt)

    def _answer(self, role: str, model: ChatClient, prompt: str) -> None:
        stopped = False
        try:
            with self._ctrl_c.stops() if self._ctrl_c else nullcontext():
                self._show_stream(model, self.history.messages(role, prompt))
        except KeyboardInterrupt:
            if not self._ctrl_c:  # without a terminal Ctrl-C ends the program
                raise
            stopped = True
        except UserError:
            if model.answer.text:
                self._end_line()  # the error is not part of the text before it
            raise
        if model.answer.text or not stopped:
            self._end_line()
        self.history.add(role, prompt, model.answer.text)
        self._comment(role, model, stopped)

    def _show_stream(self, model: ChatClient, messages: list[ChatMessage]) -> None:
        """Show an answer as it is generated, with a spinner until it begins."""
        with closing(model.stream(messages)) as pieces:
            first = self._wait_for_first(pieces)
            for piece in chain([first], pieces):
                self._write(piece)

    def _wait_for_first(self, pieces: Iterable[str]) -> str:
        # a model may be loaded first, which takes minutes for a large one
        spinner: AbstractContextManager[object] = nullcontext()
        if self._ctrl_c and self._screen.is_terminal:
            spinner = self._screen.status("", spinner="dots")
        with spinner:
            return next(iter(pieces), "")

    def _write(self, piece: str) -> None:
        sys.stdout.write(printable(piece))
        sys.stdout.flush()  # a piece seldom ends a line

    def _end_line(self) -> None:
        self._write("\n")

    def _label(self, title: str, model: ChatClient) -> None:
        style = "bold cyan" if title == "base" else "bold green"
        self._screen.print(Text.assemble((f"{title} ", style), (model.name, "dim")))

    def _comment(self, role: str, model: ChatClient, stopped: bool) -> None:
        """Remark on what the answer itself does not show."""
        answer = model.answer
        if stopped:
            self._remark("(stopped)" if answer.text else "(stopped before the first token)")
        elif answer.finish_reason == "length":
            self._remark("(cut off at --max-new-tokens)")
        elif not answer.text.strip():
            self._remark("(empty answer)")
        if answer.left_out and role not in self._warned_of_limit:
            self._warned_of_limit.add(role)
            self._remark(
                f"(the conversation is longer than the context of {model.name}: its oldest turns "
                "are no longer sent; /reset starts a new one)"
            )

    def _require_base(self) -> ChatClient:
        if self.compared is None:
            raise UserError(
                "no base model to compare with.\n"
                "  Fix: chat with an experiment, or name the base of a --url: --base NAME"
            )
        return self.compared

    def _reset(self, _: str) -> None:
        self.history.turns.clear()
        self._warned_of_limit.clear()
        self._remark("New conversation.")

    def _system(self, text: str) -> None:
        if text:
            self.history.system = None if text == "off" else text
        if self.history.system is None:
            return self._remark("The system text is the experiment's own.")
        self._remark(f"The system text is: {printable(self.history.system)}")

    def _compare(self, argument: str) -> None:
        base = self._require_base()
        if argument not in ("", "on", "off"):
            return self.ask(argument, both=True)
        self.comparing = argument != "off"
        names = f"{base.name} and {self.model.name}"
        self._remark(f"{names} both answer." if self.comparing else f"{self.model.name} answers.")

    def _save(self, file: str) -> None:
        path = _path(file, "/save")
        names = {"model": self.model.name}
        if self.compared:
            names["compared"] = self.compared.name
        self.history.save(path, names)
        self._remark(f"Saved: {printable(file)}")

    def _load(self, file: str) -> None:
        self.history.load(_path(file, "/load"))
        self._warned_of_limit.clear()
        turns = len(self.history.turns["model"]) // 2
        self._remark(f"Continuing after {turns} prompt{'' if turns == 1 else 's'}.")

    def _exit(self, _: str) -> None:
        raise ChatEnded


def _path(file: str, command: str) -> Path:
    if not file:
        raise UserError(f"{command} needs a file name, e.g. {command} chat.json")
    try:
        return Path(file).expanduser()
    except RuntimeError as error:
        raise UserError(f"{printable(file)}: unknown user.") from error


def handle_lines(
    session: ChatSession, lines: Iterable[str], report_error: Callable[[str], None]
) -> bool:
    """Handle lines of stdin; False if one failed."""
    succeeded = True
    for line in lines:
        try:
            session.handle(line.rstrip("\n"))
        except ChatEnded:
            break
        except UserError as error:
            report_error(str(error))
            succeeded = False
    return succeeded
