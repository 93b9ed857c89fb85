"""What fits a model's context, counted with the model's own tokenizer and chat template."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer

from snaketune.client.answer import ChatMessage
from snaketune.core.errors import UserError
from snaketune.data.conversation import RowError
from snaketune.data.template import ChatTemplate
from snaketune.serving.artifacts import ServedModel

ANSWER_SHARE = 4
"""Room reserved for an answer: `max_new_tokens`, but at most 1/4 of the context."""


class Context:
    """The context of a model: its length, and what messages take of it.

    Args:
        served: The model whose tokenizer, chat template and system message (`system`) count.

    Raises:
        UserError: The model has no chat template.
    """

    def __init__(self, served: ServedModel) -> None:
        self.limit = served.context_length
        self.system = served.system
        self._tokenizer = str(served.folder / "tokenizer.json")
        self._template = ChatTemplate(served.folder, "auto")

    def prompt(self, messages: Sequence[ChatMessage]) -> str:
        """Render messages as the model reads them, up to the beginning of its answer.

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

    def bare_prompt(self, messages: Sequence[ChatMessage]) -> str:
        """Render messages for /v1/completions, which adds the tokenizer's BOS token itself."""
        before = Tokenizer.from_file(self._tokenizer).encode("").tokens
        return self.prompt(messages).removeprefix("".join(before))

    def count(self, messages: Sequence[ChatMessage]) -> int:
        """Count the tokens of a prompt, up to the beginning of the answer.

        Raises:
            UserError: The template refuses the messages.
        """
        tokenizer = self._template.tokenizer
        # the template writes the special tokens; the tokenizer must not add them again
        return len(tokenizer.encode(self.prompt(messages), add_special_tokens=False).ids)


@dataclass(frozen=True)
class FittedMessages:
    """The part of a conversation that is sent.

    Attributes:
        messages: The system message, if there is one, and the newest turns.
        max_new_tokens: The longest answer that fits after them.
        left_out: How many of the oldest turns did not fit.
    """

    messages: list[ChatMessage]
    max_new_tokens: int
    left_out: int = 0


def fit(
    messages: Sequence[ChatMessage],
    max_new_tokens: int,
    limit: int,
    count: Callable[[Sequence[ChatMessage]], int],
) -> FittedMessages:
    """Leave out as few of the oldest turns as possible, so that prompt and answer fit.

    The system message and the last prompt always stay. The answer may take what is left.

    Args:
        messages: They end with a prompt.
        limit: Tokens of prompt and answer together.
        count: Counts the tokens of messages as a prompt.

    Raises:
        UserError: The last prompt alone is too long.
    """
    head = list(messages[:1]) if messages[0]["role"] == "system" else []
    starts = [n for n, message in enumerate(messages) if message["role"] == "user"]
    room = min(max_new_tokens, limit // ANSWER_SHARE)

    def without(turns: int) -> list[ChatMessage]:
        if turns == 0:
            return list(messages)  # also an answer before the first prompt
        return head + list(messages[starts[turns] :])

    last = len(starts) - 1
    # fewer turns never take more tokens, so the number to leave out is found by bisection
    left_out = bisect_left(range(last), True, key=lambda n: count(without(n)) + room <= limit)
    tokens = count(without(left_out))
    if tokens >= limit:
        raise UserError(
            f"the prompt has {tokens:,} tokens, system text and template included; the model's "
            f"context is {limit:,} tokens for prompt and answer.\n  Fix: shorten it."
        )
    return FittedMessages(without(left_out), min(max_new_tokens, limit - tokens), left_out)
