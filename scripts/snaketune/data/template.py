"""Chat templates: conversations to token ids and labels, supervising the assistant's turns."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Encoding, Tokenizer

from snaketune.data.formats import Conversation
from snaketune.errors import UserError

IGNORE = -100
"""The label of a token that carries no loss, as torch's cross entropy has it."""

NAMED_TEMPLATES = {
    "chatml": "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
}


Span = tuple[int, int]
"""First character, and the one after the last."""


@dataclass(frozen=True)
class Encoded:
    """A conversation's token ids and labels, both int32 of its length in tokens; unshifted."""

    input_ids: np.ndarray
    labels: np.ndarray


class ChatTemplate:
    """A tokenizer together with the chat template in force.

    transformers has the same rendering, but importing it costs seconds and torch; here it is
    tokenizers and jinja2 alone. A test pins that both give the same ids.

    Args:
        folder: A base model's folder, with tokenizer.json and tokenizer_config.json.
        name: `auto` for the tokenizer's own template, or one of NAMED_TEMPLATES.

    Raises:
        UserError: `auto`, and the tokenizer brings no template, or a broken one.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        self.tokenizer.post_processor = None  # it would trim white space off the offsets
        self._config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        self.text = NAMED_TEMPLATES.get(name) or _own_template(folder, self._config)
        self._template = _compiled(self.text, name)
        self._require_end_token()
        self._special = {
            token.content
            for token in self.tokenizer.get_added_tokens_decoder().values()
            if token.special
        }
        self._learn_turn()

    def render(self, messages: Conversation, add_generation_prompt: bool = False) -> str:
        """Return the text the model is given for `messages`.

        Raises:
            ValueError: The template refuses them, e.g. because it knows no system message.
        """
        try:
            return self._template.render(
                messages=messages,
                tools=None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                bos_token=self._token("bos_token"),
                eos_token=self._token("eos_token"),
            )
        except jinja2.TemplateError as error:
            raise ValueError(f"template '{self.name}' refuses a conversation: {error}") from error

    def tokenise(self, texts: list[str], spans: list[list[Span]]) -> Iterator[Encoded]:
        """Yield ids and labels of each text, tokenised in one batched call.

        The text is tokenised whole, so ids equal those of `apply_chat_template`; labels are those
        of the tokens that start inside a span of characters.
        """
        encodings = self.tokenizer.encode_batch(texts, add_special_tokens=False)
        for encoding, supervised in zip(encodings, spans, strict=True):
            ids = np.array(encoding.ids, np.int32)
            labels = np.full_like(ids, IGNORE)
            for begin, end in supervised:
                part = slice(_first_token(encoding, begin), _first_token(encoding, end))
                labels[part] = ids[part]
            yield Encoded(ids, labels)

    def end_token_ids(self) -> list[int]:
        """Return the ids that end an answer: what the template puts after it, and the EOS."""
        question = [{"role": "user", "content": "?"}]
        prompt = self.render(question, add_generation_prompt=True)
        full = self.render([*question, {"role": "assistant", "content": "!"}])
        suffix = full[len(prompt) + 1 :]
        first = min(filter(suffix.count, self._special), key=suffix.index, default=None)
        names = [name for name in (first, self._token("eos_token")) if name]
        ids = [self.tokenizer.token_to_id(name) for name in names]
        return sorted({token for token in ids if token is not None})

    def _require_end_token(self) -> None:
        """Refuse ChatML on a tokenizer that knows its marks as text only: answers never end."""
        if self.name == "chatml" and self.tokenizer.token_to_id("<|im_end|>") is None:
            raise UserError(
                "template: chatml needs <|im_start|> and <|im_end|> as tokens, and this model's "
                "tokenizer has neither: the model could never end an answer.\n"
                "  Fix: use template: auto, or a base model whose tokenizer has them."
            )

    def render_with_spans(self, messages: Conversation) -> tuple[str, list[Span]]:
        """Return the text, and the character span of each answer with its end token.

        A template is taken for fixed text around the contents, learned once for each sequence of
        roles; where a text is not that, answers are found by rendering the turns before them.

        Raises:
            ValueError: The template refuses the conversation, or hides where its answers are.
        """
        text = self.render(messages)
        spans = self._match(text, messages)
        return text, self._spans_by_prefix(text, messages) if spans is None else spans

    def _match(self, text: str, messages: Conversation) -> list[Span] | None:
        """Return the spans of the answers in a text of fixed parts and contents, else None."""
        literals = self._literals(tuple(message["role"] for message in messages))
        if literals is None:
            return None
        spans, position = [], 0
        for message, before, after in zip(messages, literals[:-1], literals[1:], strict=True):
            if not text.startswith(before, position):
                return None
            start = position = position + len(before)
            length = _length_in(text, position, message["content"])
            if length is None:
                return None
            position += length
            if message["role"] == "assistant":
                lead = len(self._lead) if before.endswith(self._lead) else 0
                spans.append((start - lead, position + _length_of(self._end, after)))
        whole = text.startswith(literals[-1], position)
        return spans if whole and position + len(literals[-1]) == len(text) else None

    def _literals(self, roles: tuple[str, ...]) -> list[str] | None:
        """Return the text before, between and after the contents, if each stands there once."""
        if roles not in self._known_literals:
            messages = [
                {"role": role, "content": _placeholder(number)} for number, role in enumerate(roles)
            ]
            parts = _PLACEHOLDER.split(self.render(messages))
            in_order = parts[1::2] == [str(number) for number in range(len(roles))]
            self._known_literals[roles] = parts[::2] if in_order else None
        return self._known_literals[roles]

    def _learn_turn(self) -> None:
        """Find out what an answer begins with beyond the prompt, and what ends it."""
        self._known_literals: dict[tuple[str, ...], list[str] | None] = {}
        self._lead = self._end = ""
        question = {"role": "user", "content": _placeholder(0)}
        try:
            prompt = self.render([question], add_generation_prompt=True)
            literals = self._literals(("user", "assistant"))
        except ValueError:
            return  # it refuses this; each conversation will tell why
        if literals is None:
            return
        before = literals[0] + _placeholder(0) + literals[1]
        if before.startswith(prompt):
            self._lead = before[len(prompt) :]
        tail = literals[2]
        blank = len(tail) - len(tail.lstrip())
        marks = [mark for mark in self._special if tail.startswith(mark, blank)]
        self._end = tail[:blank] + max(marks, key=len) if marks else tail

    def _spans_by_prefix(self, text: str, messages: Conversation) -> list[Span]:
        spans = []
        for index, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            before = self.render(messages[:index], add_generation_prompt=True)
            after = self.render(messages[: index + 1])
            if not (text.startswith(after) and after.startswith(before)):
                raise ValueError(
                    f"template '{self.name}' renders earlier turns differently once later ones "
                    "follow, so the answers cannot be told from the prompt"
                )
            end = len(after)
            if self._end and (found := after.rfind(self._end.strip(), len(before))) >= 0:
                end = found + len(self._end.strip())
            spans.append((len(before), end))
        return spans

    def _token(self, key: str) -> str:
        token = self._config.get(key) or ""
        return token["content"] if isinstance(token, dict) else token


def supervised_tokens(encoded: Encoded) -> int:
    """Count the tokens that carry loss; the first of a sample never does, nothing predicts it."""
    return int(np.count_nonzero(encoded.labels[1:] != IGNORE))


def _own_template(folder: Path, config: dict[str, Any]) -> str:
    file = folder / "chat_template.jinja"
    text = file.read_text(encoding="utf-8") if file.exists() else config.get("chat_template")
    if not isinstance(text, str) or not text:
        raise UserError(
            f"the tokenizer in {folder} brings no chat template, so `template: auto` cannot work.\n"
            f"  Fix: name one in the experiment, e.g. template: {next(iter(NAMED_TEMPLATES))}"
        )
    return text


class _Generation(Extension):
    """`{% generation %}`, which some templates put around an answer; it renders what is inside."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _compiled(text: str, name: str) -> jinja2.Template:
    try:
        return _environment().from_string(text)
    except jinja2.TemplateSyntaxError as error:
        raise UserError(
            f"chat template '{name}' is not valid Jinja, line {error.lineno}: {error.message}.\n"
            f"  Fix: name another in the experiment, e.g. template: {next(iter(NAMED_TEMPLATES))}"
        ) from error


def _environment() -> ImmutableSandboxedEnvironment:
    """Return jinja2 set up as chat templates expect: sandboxed, with their helpers.

    `strftime_now` is left out: today's date would make other data of the same rows tomorrow.
    """

    def fail(message: str) -> None:
        raise jinja2.TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _Generation]
    )
    environment.filters["tojson"] = lambda value, **options: json.dumps(
        value, ensure_ascii=False, **options
    )
    environment.globals["raise_exception"] = fail
    return environment


_PLACEHOLDER = re.compile("\ue000(\\d+)\ue001")
"""Private-use characters: no template looks for them, and none trims them."""


def _placeholder(number: int) -> str:
    return f"\ue000{number}\ue001"


def _length_in(text: str, position: int, content: str) -> int | None:
    """Return how long a content is in a text, where a template may have stripped it."""
    for variant in (content, content.strip(), content.lstrip(), content.rstrip()):
        if text.startswith(variant, position):
            return len(variant)
    return None


def _length_of(end: str, after: str) -> int:
    return len(end) if after.startswith(end) else 0


def _first_token(encoding: Encoding, position: int) -> int:
    """Return the first token that starts at a character or after it."""
    token = encoding.char_to_token(position)
    if token is None:  # the end of the text, or a character that is in no token
        return sum(start < position for start, _ in encoding.offsets)
    start, _ = encoding.token_to_chars(token) or (position, position)
    return token + (start < position)
