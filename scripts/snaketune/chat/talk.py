"""What is done with a line: a question is answered, a command is followed."""

import sys
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path

from rich.console import Console
from rich.text import Text

from snaketune.chat.context import Message
from snaketune.chat.conversation import Conversation
from snaketune.chat.model import Speaker
from snaketune.chat.text import encodable, printable
from snaketune.core.errors import UserError, nearest
from snaketune.core.terminal import CtrlC

HELP = """\
/help             this
/reset            forget what was said; the system text stays
/system TEXT      say it before the conversation; `/system off` is the experiment's own again
/compare          have base and tuned model answer, until `/compare off`
/compare QUESTION have them both answer this one
/save FILE        write the conversation as JSON, which is also a row to train on (format: openai)
/load FILE        go on with a saved one
/exit             end, as Ctrl-D does
Enter sends; Alt-Enter or Ctrl-J begins a new line; Tab completes a command.
Ctrl-C stops an answer, and what was said of it stays; at the prompt it clears the line.
A text that begins with / is sent with a space before it."""


class Ended(Exception):
    """The user wants to end."""


class Talk:
    """A conversation with a model and, when compared, with its base.

    Args:
        model: Who is talked to.
        compared: Who answers the same questions in /compare; None if there is nobody.
        conversation: What was said so far.
        tell: Shows a remark of ours.
        ctrl_c: Stops an answer; without it Ctrl-C ends the program.
    """

    def __init__(
        self,
        model: Speaker,
        compared: Speaker | None,
        conversation: Conversation,
        tell: Callable[[str], None],
        ctrl_c: CtrlC | None = None,
    ) -> None:
        self.model, self.compared, self.conversation = model, compared, conversation
        self.comparing = False
        self._tell, self._ctrl_c = tell, ctrl_c
        self._screen = Console(highlight=False, soft_wrap=True, emoji=False, markup=False)
        self._told_of_limit: set[str] = set()
        self.commands: dict[str, Callable[[str], None]] = {
            "/help": lambda _: tell(HELP),
            "/reset": self._reset,
            "/system": self._system,
            "/compare": self._compare,
            "/save": self._save,
            "/load": self._load,
            "/exit": self._exit,
        }

    def take(self, line: str) -> None:
        """Answer a question or follow a command.

        Raises:
            UserError: It cannot be done; the conversation is as it was.
            Ended: The command was /exit.
        """
        line = encodable(line)
        if not line.startswith("/"):
            return self.ask(line.strip()) if line.strip() else None
        word, *rest = line.split(maxsplit=1)
        if word not in self.commands:
            hint = nearest(word, self.commands)
            known = ", ".join(self.commands)
            raise UserError(
                f"there is no command '{printable(word)}'.{hint} Commands: {known}\n"
                "  Fix: put a space before a text that begins with /."
            )
        self.commands[word]("".join(rest).strip())

    def ask(self, question: str, both: bool = False) -> None:
        """Have a question answered, by base and model one after the other when they are compared.

        Raises:
            UserError: The question is too long, or the server refuses it or is gone.
        """
        if not (both or self.comparing):
            return self._answer("model", self.model, question)
        self._label("base", self._other())
        self._answer("compared", self._other(), question)
        self._line()
        self._label("tuned", self.model)
        self._answer("model", self.model, question)

    def _answer(self, role: str, speaker: Speaker, question: str) -> None:
        stopped = False
        try:
            with self._ctrl_c.stops() if self._ctrl_c else nullcontext():
                self._stream(speaker, self.conversation.asking(role, question))
        except KeyboardInterrupt:
            if not self._ctrl_c:
                raise
            stopped = True
        except UserError:
            if speaker.answer.text:
                self._line()  # the error is not a part of what was said before it
            raise
        if speaker.answer.text or not stopped:
            self._line()
        self.conversation.answered(role, question, speaker.answer.text)
        self._remark(role, speaker, stopped)

    def _stream(self, speaker: Speaker, messages: list[Message]) -> None:
        """Show an answer as it comes; until it begins, something moves."""
        with closing(speaker.reply(messages)) as pieces:  # type: ignore[type-var]
            first = self._await(pieces)
            for piece in filter(None, [first]):
                self._write(piece)
            for piece in pieces:
                self._write(piece)

    def _await(self, pieces: Iterable[str]) -> str:
        waiting: AbstractContextManager[object] = nullcontext()
        if self._ctrl_c and self._screen.is_terminal:
            waiting = self._screen.status("", spinner="dots")
        with waiting:
            return next(iter(pieces), "")

    def _write(self, piece: str) -> None:
        sys.stdout.write(printable(piece))
        sys.stdout.flush()

    def _line(self) -> None:
        self._write("\n")

    def _label(self, title: str, speaker: Speaker) -> None:
        style = "bold cyan" if title == "base" else "bold green"
        self._screen.print(Text.assemble((f"{title} ", style), (speaker.name, "dim")))

    def _remark(self, role: str, speaker: Speaker, stopped: bool) -> None:
        """Tell what the answer itself does not show."""
        answer = speaker.answer
        if stopped:
            self._tell("(stopped)" if answer.text else "(stopped before the first word)")
        elif answer.finish_reason == "length":
            self._tell("(stopped here: as long as it may be, see --max-new-tokens)")
        elif not answer.text.strip():
            self._tell("(an empty answer)")
        if answer.left_out and role not in self._told_of_limit:
            self._told_of_limit.add(role)
            self._tell(
                f"(the conversation is longer than {speaker.name} can attend to: from now on its "
                "oldest turns are not sent; /reset begins a new one)"
            )

    def _other(self) -> Speaker:
        if self.compared is None:
            raise UserError(
                "there is no base model to compare with.\n"
                "  Fix: talk to an experiment, or with --url name it: --base NAME"
            )
        return self.compared

    def _reset(self, _: str) -> None:
        self.conversation.turns.clear()
        self._told_of_limit.clear()
        self._tell("A new conversation.")

    def _system(self, text: str) -> None:
        if text:
            self.conversation.system = None if text == "off" else text
        if self.conversation.system is None:
            return self._tell("The system text is the experiment's own.")
        self._tell(f"The system text is: {printable(self.conversation.system)}")

    def _compare(self, argument: str) -> None:
        other = self._other()
        if argument not in ("", "on", "off"):
            return self.ask(argument, both=True)
        self.comparing = argument != "off"
        names = f"{other.name} and {self.model.name}"
        self._tell(f"{names} both answer." if self.comparing else f"{self.model.name} answers.")

    def _save(self, file: str) -> None:
        path = self._path(file, "/save")
        names = {"model": self.model.name} | (
            {"compared": self.compared.name} if self.compared else {}
        )
        self.conversation.save(path, names)
        self._tell(f"Saved: {printable(file)}")

    def _load(self, file: str) -> None:
        self.conversation.load(self._path(file, "/load"))
        self._told_of_limit.clear()
        turns = len(self.conversation.turns["model"]) // 2
        self._tell(f"Going on after {turns} question{'' if turns == 1 else 's'}.")

    def _path(self, file: str, command: str) -> Path:
        if not file:
            raise UserError(f"name a file, e.g. {command} talk.json")
        try:
            return Path(file).expanduser()
        except RuntimeError as error:
            raise UserError(f"{printable(file)}: there is no such user.") from error

    def _exit(self, _: str) -> None:
        raise Ended


def take_lines(talk: Talk, lines: Iterable[str], complain: Callable[[str], None]) -> bool:
    """Take each line of a text as if it were typed, and return whether all went well."""
    good = True
    for line in lines:
        try:
            talk.take(line.rstrip("\n"))
        except Ended:
            break
        except UserError as error:
            complain(str(error))
            good = False
    return good
