"""Chat templates: conversations to token ids and labels, supervising the assistant's turns."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from snaketune.data.formats import Conversation
from snaketune.errors import UserError

IGNORE = -100
"""The label of a token that carries no loss, as torch's cross entropy has it."""

NAMED_TEMPLATES = {
    "chatml": "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
}


@dataclass(frozen=True)
class Encoded:
    """A conversation's token ids and labels, both of its length in tokens; labels unshifted."""

    input_ids: list[int]
    labels: list[int]


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

    def encode(self, conversations: Iterable[Conversation]) -> Iterator[Encoded]:
        """Yield ids and labels of each conversation, tokenised in one batched call.

        The text is tokenised whole, so ids equal those of `apply_chat_template`; labels come
        from character spans.

        Raises:
            ValueError: The template refuses a conversation, or does not render it piece by piece.
        """
        texts, spans = [], []
        for conversation in conversations:
            text, supervised = self._render_with_spans(conversation)
            texts.append(text)
            spans.append(supervised)
        encodings = self.tokenizer.encode_batch(texts, add_special_tokens=False)
        for encoding, supervised in zip(encodings, spans, strict=True):
            starts = [start for start, _ in encoding.offsets]
            yield Encoded(encoding.ids, _labels(encoding.ids, starts, supervised))

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

    def _render_with_spans(self, messages: Conversation) -> tuple[str, list[tuple[int, int]]]:
        """Return the text, and the character span of each answer with its end token."""
        text, spans = self.render(messages), []
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
            spans.append((len(before), self._end_of_turn(after)))
        return text, spans

    def _end_of_turn(self, after: str) -> int:
        """Return where an answer ends: after its end token, before the separator that follows."""
        stripped = after.rstrip()
        return len(stripped) if stripped.endswith(tuple(self._special)) else len(after)

    def _token(self, key: str) -> str:
        token = self._config.get(key) or ""
        return token["content"] if isinstance(token, dict) else token


def supervised_tokens(encoded: Encoded) -> int:
    """Count the tokens that carry loss; the first of a sample never does, nothing predicts it."""
    return sum(label != IGNORE for label in encoded.labels[1:])


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


def _labels(ids: list[int], starts: list[int], spans: list[tuple[int, int]]) -> list[int]:
    labels, position = [IGNORE] * len(ids), 0
    for begin, end in spans:
        while position < len(ids) and starts[position] < begin:
            position += 1
        while position < len(ids) and starts[position] < end:
            labels[position] = ids[position]
            position += 1
    return labels
