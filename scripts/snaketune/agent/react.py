"""ReAct's text form: which part of a model's turn is a call, and how a tool's result is written.

Lagent's ReActProtocol.parse is not used: it pairs the last Action with the first Action Input,
takes all text after that as the input, and ends the turn wherever `Final Answer:` occurs, be it in
an Action Input or after a call whose result the model did not wait for. On a turn with one
well-formed call or answer both agree, which a test checks.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass

from snaketune.client.answer import ChatMessage

STOP = "\nResponse:"
"""Ends a turn: from here on the model would invent the result of the tool."""

_LABEL = re.compile(r"(?m)^[ \t]*(Thought|Action|Action Input|Response|Final Answer):")
_TOKEN = re.compile(r"<(?=[^\s<>]{1,40}>)|\[(?=/?[a-z]?[A-Z][A-Z_0-9]{2,40}\])")


@dataclass(frozen=True)
class Parsed:
    """A model's turn: either `tool` with its `tool_input`, or a `final` answer, or neither.

    `known`: whether the tool exists.
    """

    thought: str
    tool: str | None = None
    tool_input: str = ""
    final: str | None = None
    known: bool = False


def parse(text: str, names: Collection[str]) -> Parsed:
    """Parse a model's turn in ReAct's form.

    The first complete part counts: an `Action:` line followed by `Action Input:` before any other
    label, or a line with `Final Answer:`. A part ends at the next line with a label; everything
    from `Response:` on is ignored. Without either, a `Final Answer:` within a line counts, as in
    Lagent.

    Args:
        names: The existing tools.
    """
    parts = _parts(text)
    before = [body for label, body in parts if label in ("", "Thought")]
    for (label, body), (follower, tool_input) in zip(parts, [*parts[1:], ("", "")], strict=True):
        if label == "Final Answer":
            return Parsed(_thought(parts), final=body)
        if label == "Action" and follower == "Action Input":
            name = body.partition("\n")[0].strip()
            return Parsed(_thought(parts), name, tool_input.strip('"'), known=name in names)
    thought, label, final = "\n".join(before).partition("Final Answer:")
    return Parsed(thought.strip(), final=final.strip() if label else None)


def response_message(result: str) -> ChatMessage:
    """The message in which the model reads a tool's result: `Response:<result>\\n`.

    A result is data, possibly hostile. It is a user message (Lagent sends a system message, which
    many chat templates refuse after the first), every further line begins with `> `, so that none
    looks like a label of ReAct, and a space breaks what looks like a special token of a chat
    template (`<|im_end|>`, `[INST]`), so that no tokenizer reads it as one.
    """
    safe = _TOKEN.sub(lambda match: f"{match[0]} ", result)
    return {"role": "user", "content": "Response:" + "\n> ".join(safe.splitlines()) + "\n"}


def answer_message(text: str) -> ChatMessage:
    """An answer without form, in the form that the system message demands."""
    return {"role": "assistant", "content": f"Final Answer: {text}"}


def _parts(text: str) -> list[tuple[str, str]]:
    """Labels with the text after each; the text before the first has the label ""."""
    pieces = _LABEL.split(text)
    parts = [("", pieces[0].strip())]
    for label, body in zip(pieces[1::2], pieces[2::2], strict=True):
        if label == "Response":
            break
        parts.append((label, body.strip()))
    return parts


def _thought(parts: list[tuple[str, str]]) -> str:
    """The text before the first call or answer."""
    texts = []
    for label, body in parts:
        if label not in ("", "Thought"):
            break
        texts.append(body)
    return "\n".join(texts).strip()
