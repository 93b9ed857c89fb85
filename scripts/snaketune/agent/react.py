"""ReAct's text form: what of a model's turn is a call, and how a tool's result is written.

Lagent's ReActProtocol.parse is not used, for it pairs the last Action with the first Action Input,
takes all text after that as the input, and ends the turn wherever `Final Answer:` stands, be it in
an Action Input or after a call whose result the model did not wait for. On a turn that holds one
well-formed call or answer both parse the same, which a test checks.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass

from snaketune.client.answer import ChatMessage

STOP = "\nResponse:"
"""Ends a turn: from here on a model invents what the tool returns."""

_LABEL = re.compile(r"(?m)^[ \t]*(Thought|Action|Action Input|Response|Final Answer):")
_TOKEN = re.compile(r"<(?=[^\s<>]{1,40}>)|\[(?=/?[a-z]?[A-Z][A-Z_0-9]{2,40}\])")


@dataclass(frozen=True)
class Parsed:
    """A model's turn: either `tool` with its `tool_input`, or a `final` answer, or neither.

    `known` tells whether the tool is one there is.
    """

    thought: str
    tool: str | None = None
    tool_input: str = ""
    final: str | None = None
    known: bool = False


def parse(text: str, names: Collection[str]) -> Parsed:
    """Read a model's turn in ReAct's form.

    The first that is complete counts: an `Action:` line that is followed by `Action Input:` before
    any other label, or a line with `Final Answer:`. A part ends where the next line with a label
    begins, and what stands at or after `Response:` is not the model's to say. Without either, a
    `Final Answer:` in mid-line counts, as it does in Lagent.

    Args:
        names: The tools there are.
    """
    parts = _parts(text)
    before = [body for label, body in parts if label in ("", "Thought")]
    for (label, body), (follower, given) in zip(parts, [*parts[1:], ("", "")], strict=True):
        if label == "Final Answer":
            return Parsed(_thought(parts), final=body)
        if label == "Action" and follower == "Action Input":
            name = body.partition("\n")[0].strip()
            return Parsed(_thought(parts), name, given.strip('"'), known=name in names)
    thought, found, final = "\n".join(before).partition("Final Answer:")
    return Parsed(thought.strip(), final=final.strip() if found else None)


def response_message(result: str) -> ChatMessage:
    """Return a tool's result as the message the model reads it in: `Response:<result>\\n`.

    A result is data. It comes as a user message (Lagent sends it as a system message, which many
    chat templates refuse after the first), each further line of it begins with `> `, so that none
    looks like a label of ReAct, and what looks like a special token of a chat template
    (`<|im_end|>`, `[INST]`) gets a space, so that no tokenizer takes it for one.
    """
    safe = _TOKEN.sub(lambda found: f"{found[0]} ", result)
    return {"role": "user", "content": "Response:" + "\n> ".join(safe.splitlines()) + "\n"}


def answer_message(text: str) -> ChatMessage:
    """Return an answer that was given in no form in the one that the model is told to keep to."""
    return {"role": "assistant", "content": f"Final Answer: {text}"}


def _parts(text: str) -> list[tuple[str, str]]:
    """Return each label of the turn with the text after it; the first has none."""
    pieces = _LABEL.split(text)
    found = [("", pieces[0].strip())]
    for label, body in zip(pieces[1::2], pieces[2::2], strict=True):
        if label == "Response":
            break
        found.append((label, body.strip()))
    return found


def _thought(parts: list[tuple[str, str]]) -> str:
    """Return what was said before the first call or answer."""
    said = []
    for label, body in parts:
        if label not in ("", "Thought"):
            break
        said.append(body)
    return "\n".join(said).strip()
