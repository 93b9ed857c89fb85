"""Chat templates: conversations to token ids and labels, supervising the assistant's turns."""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jinja2
import numpy as np
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Encoding, Tokenizer

from snaketune.core.errors import UserError
from snaketune.data.conversation import Conversation, Message, RowError
from snaketune.data.named_templates import NAMED_TEMPLATES

if TYPE_CHECKING:
    from snaketune.data.data_record import TemplateRecord

IGNORE = -100
"""The label of a token that carries no loss, as torch's cross entropy has it."""


class TextSpan(NamedTuple):
    """The first learned character, the one after the last, and the weight in the loss.

    A weight of 0 masks what an earlier span covers.
    """

    begin: int
    end: int
    weight: float = 1.0


@dataclass(frozen=True)
class EncodedSample:
    """A tokenised conversation.

    `input_ids` and `labels` are int32 arrays of its length; labels are unshifted, IGNORE where
    nothing is learned. `weights` (float32) is None where every label counts the same.
    """

    input_ids: np.ndarray
    labels: np.ndarray
    weights: np.ndarray | None = None

    def part(self, start: int, stop: int) -> "EncodedSample":
        """The tokens from `start` to before `stop`, without a copy."""
        weights = None if self.weights is None else self.weights[start:stop]
        return EncodedSample(self.input_ids[start:stop], self.labels[start:stop], weights)


class ChatTemplate:
    """A tokenizer together with a chat template.

    transformers renders the same text, but importing it takes seconds and brings torch; this needs
    tokenizers and jinja2 only. A test pins that both give the same ids.

    Args:
        folder: A base model's folder, with tokenizer.json and tokenizer_config.json.
        name: `auto` for the tokenizer's own template, or one of NAMED_TEMPLATES.

    Raises:
        UserError: `auto` and the tokenizer has no template or a broken one, or a named template
            whose end token the tokenizer lacks.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        self.tokenizer.post_processor = None  # it would trim white space off the offsets
        self._config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        self._named = NAMED_TEMPLATES.get(name)
        self.text = self._named.jinja if self._named else _own_template(folder, self._config)
        self._template = _compiled(self.text, name)
        self._require_end_token()
        self._shows_calls: bool | None = None
        self._special = {
            token.content
            for token in self.tokenizer.get_added_tokens_decoder().values()
            if token.special
        }
        self._learn_turn()

    def render(
        self,
        messages: list[Message],
        add_generation_prompt: bool = False,
        tools: list[Any] | None = None,
    ) -> str:
        """Render `messages` as the text that the model receives.

        Raises:
            RowError: The template rejects them, e.g. because it supports no system message.
        """
        try:
            return self._template.render(
                messages=messages,
                tools=tools,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                bos_token=self._token("bos_token"),
                eos_token=self._token("eos_token"),
            )
        except Exception as error:  # a template is a program and may fail on any value
            message = f"template '{self.name}' rejects a conversation: {error}"
            raise RowError(message, _OTHER_TEMPLATE) from error

    def tokenise(self, texts: list[str], spans: list[list[TextSpan]]) -> Iterator[EncodedSample]:
        """Yield ids and labels of each text, tokenised in one batched call.

        A text is tokenised as a whole, not in pieces, so ids equal those of `apply_chat_template`;
        a token is learned if it starts inside a span of characters.
        """
        # measured on 6,000 rows: one call 7,949 rows/s, a call for each string 4,693
        encodings = self.tokenizer.encode_batch(texts, add_special_tokens=False)
        for encoding, supervised in zip(encodings, spans, strict=True):
            ids = np.array(encoding.ids, np.int32)
            labels = np.full_like(ids, IGNORE)
            plain = all(span.weight in (0, 1) for span in supervised)
            weights = None if plain else np.zeros(len(ids), np.float32)
            for begin, end, weight in supervised:
                part = slice(_first_token(encoding, begin), _first_token(encoding, end))
                labels[part] = ids[part] if weight else IGNORE
                if weights is not None:
                    weights[part] = weight
            yield EncodedSample(ids, labels, weights)

    def end_token_ids(self) -> list[int]:
        """The ids that end an answer: the template's mark after it, and the EOS token."""
        question = [{"role": "user", "content": "?"}]
        prompt = self.render(question, add_generation_prompt=True)
        full = self.render([*question, {"role": "assistant", "content": "!"}])
        suffix = full[len(prompt) + 1 :]
        first = min(filter(suffix.count, self._special), key=suffix.index, default=None)
        names = [name for name in (first, self._token("eos_token")) if name]
        ids = [self.tokenizer.token_to_id(name) for name in names]
        return sorted({token for token in ids if token is not None})

    def record(self, system: str = "") -> "TemplateRecord":
        """Describe the template for the models that are trained with it.

        Args:
            system: The system message that all rows have, if there is one.
        """
        from snaketune.data.data_record import TemplateRecord  # pydantic, which workers never need

        return TemplateRecord(
            name=self.name,
            text=self.text,
            sha256=hashlib.sha256(self.text.encode()).hexdigest(),
            end_token_ids=self.end_token_ids(),
            system=system,
        )

    def boundary_tokens(self) -> dict[str, int]:
        """The tokens that begin a text or end an answer, with their ids."""
        names = [self._token("bos_token"), *map(self.tokenizer.id_to_token, self.end_token_ids())]
        ids = {name: self.tokenizer.token_to_id(name) for name in names if name}
        return {name: token for name, token in ids.items() if token is not None}

    def _require_end_token(self) -> None:
        """Refuse a template whose end mark is not one token: answers would never end."""
        end = (self._named and self._named.end_token) or self._token("eos_token")
        if self._named and (not end or self.tokenizer.token_to_id(end) is None):
            raise UserError(
                f"template: {self.name} ends an answer with {end or 'an EOS token'}, but this "
                "model's tokenizer has no such token, so the model could never end an answer.\n"
                "  Fix: use template: auto, or a base model whose tokenizer has the token."
            )

    def render_with_spans(
        self, conversation: Conversation, loss_on: str = "assistant"
    ) -> tuple[str, list[TextSpan]]:
        """Render a conversation, and find the span of each answer with its end token.

        Most templates are fixed text around the contents, which is found out once for each sequence
        of roles: rendering once per conversation is enough then. Where a text differs, answers are
        found by rendering the conversation up to each of them.

        Args:
            loss_on: `assistant` for every answer, `last_turn` for the last, `all` for everything;
                the weights of answers apply in each case.

        Raises:
            RowError: The template rejects the conversation, or its answers cannot be located.
        """
        messages, tools = self._with_calls_shown(conversation)
        if messages[0]["role"] == "text":
            text = messages[0]["content"] + self._token("eos_token")
            return text, [TextSpan(0, len(text))]
        text = self.render(messages, tools=tools)
        if loss_on == "all":
            weighed = any("weight" in message for message in messages)
            answers = self._answers(text, messages, tools) if weighed else []
            return text, [TextSpan(0, len(text)), *answers]
        answers = self._answers(text, messages, tools)
        return text, answers[-1:] if loss_on == "last_turn" else answers

    def _with_calls_shown(self, conversation: Conversation) -> tuple[list[Message], Any]:
        """Write calls and tools as text for a template that omits them."""
        messages, tools = conversation.messages, conversation.tools
        if not tools and not any("tool_calls" in message for message in messages):
            return messages, None
        if self._shows_calls is None:
            self._shows_calls = self._learn_calls()
        if self._shows_calls:
            return messages, tools
        messages = [_call_as_text(message) for message in messages]
        if tools:
            system = "Functions:\n" + json.dumps(tools, ensure_ascii=False)
            if messages[0]["role"] == "system":
                system = f"{messages.pop(0)['content']}\n\n{system}"
            messages.insert(0, {"role": "system", "content": system})
        return messages, None

    def _learn_calls(self) -> bool:
        """Find out whether the template prints tools and calls; many ignore them."""
        function = {"name": "snaketune_probe", "description": "", "parameters": {}}
        call = {"type": "function", "function": {"name": "snaketune_call", "arguments": {}}}
        messages: list[Message] = [
            {"role": "user", "content": "?"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
        ]
        try:
            text = self.render(messages, tools=[{"type": "function", "function": function}])
        except RowError:
            return False
        return "snaketune_probe" in text and "snaketune_call" in text

    def _answers(self, text: str, messages: list[Message], tools: Any) -> list[TextSpan]:
        plain = not tools and not any("tool_calls" in message for message in messages)
        spans = self._match(text, messages) if plain else None
        return self._spans_by_prefix(text, messages, tools) if spans is None else spans

    def _match(self, text: str, messages: list[Message]) -> list[TextSpan] | None:
        """Find the answers in a text of fixed parts and contents; None if it is not one."""
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
                end = position + (len(self._end) if after.startswith(self._end) else 0)
                spans.append(TextSpan(start - lead, end, message.get("weight", 1.0)))
        whole = text.startswith(literals[-1], position)
        return spans if whole and position + len(literals[-1]) == len(text) else None

    def _literals(self, roles: tuple[str, ...]) -> list[str] | None:
        """The text before, between and after the contents, None unless each appears once."""
        if roles not in self._known_literals:
            messages = [
                {"role": role, "content": _placeholder(number)} for number, role in enumerate(roles)
            ]
            parts = _PLACEHOLDER.split(self.render(messages))
            in_order = parts[1::2] == [str(number) for number in range(len(roles))]
            self._known_literals[roles] = parts[::2] if in_order else None
        return self._known_literals[roles]

    def _learn_turn(self) -> None:
        """Find out what precedes an answer's content after the prompt, and what ends it.

        A template may open an answer with text that the generation prompt lacks (an empty thought,
        say): the model has to write it, so it is learned with the answer.
        """
        self._known_literals: dict[tuple[str, ...], list[str] | None] = {}
        self._lead = self._end = ""
        question = {"role": "user", "content": _placeholder(0)}
        try:
            prompt = self.render([question], add_generation_prompt=True)
            literals = self._literals(("user", "assistant"))
        except RowError:
            return  # rendering a conversation will raise the same error, with its row
        if literals is None:
            return
        before = literals[0] + _placeholder(0) + literals[1]
        if before.startswith(prompt):
            self._lead = before[len(prompt) :]
        marks = "|".join(map(re.escape, sorted(self._special, key=len, reverse=True)))
        mark = re.match(rf"\s*(?:{marks or '(?!)'})+", literals[2])
        self._end = mark[0] if mark else literals[2]

    def _spans_by_prefix(self, text: str, messages: list[Message], tools: Any) -> list[TextSpan]:
        spans = []
        for index, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            before = self.render(messages[:index], add_generation_prompt=True, tools=tools)
            after = self.render(messages[: index + 1], tools=tools)
            mark = self._end.strip()
            end = after.rfind(mark, len(before)) + len(mark) if mark else len(after)
            if end <= len(before) or not text.startswith(after[:end]) or after.find(before):
                raise RowError(
                    f"template '{self.name}' renders earlier turns differently once later ones "
                    "follow, so the answers cannot be located",
                    _OTHER_TEMPLATE,
                )
            spans.append(TextSpan(len(before), end, message.get("weight", 1.0)))
        return spans

    def _token(self, key: str) -> str:
        token = self._config.get(key) or ""
        return token["content"] if isinstance(token, dict) else token


def supervised_tokens(encoded: EncodedSample) -> int:
    """Count the tokens that carry loss; the first of a sample never does, nothing predicts it."""
    return int(np.count_nonzero(encoded.labels[1:] != IGNORE))


def _own_template(folder: Path, config: dict[str, Any]) -> str:
    file = folder / "chat_template.jinja"
    text = file.read_text(encoding="utf-8") if file.exists() else config.get("chat_template")
    if not isinstance(text, str) or not text:
        raise UserError(
            f"the tokenizer in {folder} has no chat template, so `template: auto` cannot be used.\n"
            f"  Fix: name one in the experiment, e.g. template: {next(iter(NAMED_TEMPLATES))}"
        )
    return text


class _Generation(Extension):
    """`{% generation %}`, which some templates put around an answer: renders its content.

    transformers adds this tag to Jinja, to mark what is learned; here the spans mark that.
    """

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
    """Set jinja2 up as transformers does for chat templates: sandboxed, with their helpers.

    `strftime_now` is missing on purpose: with today's date in the text, the same rows would give
    different data tomorrow.
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


_OTHER_TEMPLATE = "correct the rows, or name another template, e.g. template: chatml"

_PLACEHOLDER = re.compile("\ue000(\\d+)\ue001")
"""Private-use characters: no template tests for them or trims them."""


def _placeholder(number: int) -> str:
    return f"\ue000{number}\ue001"


def _length_in(text: str, position: int, content: str) -> int | None:
    """The length of a content in a text, where the template may have stripped it; else None."""
    for variant in (content, content.strip(), content.lstrip(), content.rstrip()):
        if text.startswith(variant, position):
            return len(variant)
    return None


def _call_as_text(message: Message) -> Message:
    """Put an answer's calls as JSON after its content, one on a line."""
    if "tool_calls" not in message:
        return message
    calls = [json.dumps(call["function"], ensure_ascii=False) for call in message["tool_calls"]]
    content = "\n".join(filter(None, [message["content"], *calls]))
    return {key: message[key] for key in message if key != "tool_calls"} | {"content": content}


def _first_token(encoding: Encoding, position: int) -> int:
    """The index of the first token that starts at a character or after it."""
    token = encoding.char_to_token(position)
    if token is None:  # the end of the text, or a character outside all tokens
        return sum(start < position for start, _ in encoding.offsets)
    start, _ = encoding.token_to_chars(token) or (position, position)
    return token + (start < position)
