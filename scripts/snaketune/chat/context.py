"""What of a conversation fits a model's context, counted by its own tokenizer and template."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer

from snaketune.core.errors import UserError
from snaketune.data.conversation import RowError
from snaketune.data.template import ChatTemplate
from snaketune.serving.artifacts import ServedModel

Message = dict[str, Any]
"""`role` and `content`, as the endpoint takes them."""

SHARE_FOR_ANSWER = 4
"""An answer is kept room for: `max_new_tokens`, but at most this part (1/4) of the context."""


class Context:
    """How many tokens a model's conversation takes, and how many it may.

    Args:
        served: Whose tokenizer, chat template and system message (`system`) count.

    Raises:
        UserError: The model brings no chat template.
    """

    def __init__(self, served: ServedModel) -> None:
        self.limit = served.context_length
        self.system = served.system
        self._tokenizer = str(served.folder / "tokenizer.json")
        self._template = ChatTemplate(served.folder, "auto")

    def prompt(self, messages: Sequence[Message]) -> str:
        """Return the text that a model is given for these messages, up to where it answers.

        Raises:
            UserError: The template refuses the messages.
        """
        own = [{"role": "system", "content": self.system}]
        needs_system = self.system and messages[0]["role"] != "system"
        try:
            return self._template.render(
                [*(own if needs_system else []), *messages], add_generation_prompt=True
            )
        except RowError as error:
            raise UserError(f"{error}.\n  Fix: leave out what it names, or /reset.") from error

    def bare_prompt(self, messages: Sequence[Message]) -> str:
        """Return the same for /v1/completions, which puts the beginning token before a text."""
        before = Tokenizer.from_file(self._tokenizer).encode("").tokens
        return self.prompt(messages).removeprefix("".join(before))

    def count(self, messages: Sequence[Message]) -> int:
        """Return the tokens of a prompt, up to where the answer begins.

        Raises:
            UserError: The template refuses the messages.
        """
        tokenizer = self._template.tokenizer
        return len(tokenizer.encode(self.prompt(messages), add_special_tokens=False).ids)


@dataclass(frozen=True)
class Fitted:
    """What is sent of a conversation.

    Attributes:
        messages: The system message, if there is one, and the newest turns.
        max_new_tokens: How long the answer may be.
        left_out: The oldest turns that did not fit.
    """

    messages: list[Message]
    max_new_tokens: int
    left_out: int = 0


def fit(
    messages: Sequence[Message],
    max_new_tokens: int,
    limit: int,
    count: Callable[[Sequence[Message]], int],
) -> Fitted:
    """Leave out as few of the oldest turns as possible, so that prompt and answer fit.

    The system message and the last question always stay. The answer may take what is left.

    Args:
        messages: They end with a question.
        limit: Tokens of prompt and answer together.
        count: The tokens of some messages as a prompt.

    Raises:
        UserError: The last question alone is too long.
    """
    head = list(messages[:1]) if messages[0]["role"] == "system" else []
    starts = [n for n, message in enumerate(messages) if message["role"] == "user"]
    room = min(max_new_tokens, limit // SHARE_FOR_ANSWER)

    def rest(turns: int) -> list[Message]:
        if turns == 0:
            return list(messages)  # with an answer that no question came before, too
        return head + list(messages[starts[turns] :])

    last = len(starts) - 1
    left_out = bisect_left(range(last), True, key=lambda n: count(rest(n)) + room <= limit)
    tokens = count(rest(left_out))
    if tokens >= limit:
        raise UserError(
            f"the question has {tokens:,} tokens with its system text and template, and the model "
            f"takes {limit:,}, answer included.\n  Fix: shorten it."
        )
    return Fitted(rest(left_out), min(max_new_tokens, limit - tokens), left_out)
