"""The bundled rows of tool use, and what Arithmetic and the canned tools should have said."""

import ast
import json
import operator
import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from ruamel.yaml import YAML

TOOLS = ["Arithmetic", "Weather", "Dictionary", "Inventory", "Trains", "Phonebook"]

_DO = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.USub: operator.neg,
}


def exactly(expression: str) -> Fraction:
    """Return the exact value of a sum, difference, product or quotient of decimals."""

    def value(node: ast.AST) -> Fraction:
        if isinstance(node, ast.BinOp):
            return Fraction(_DO[type(node.op)](value(node.left), value(node.right)))
        if isinstance(node, ast.UnaryOp):
            return -value(node.operand)
        assert isinstance(node, ast.Constant)
        return Fraction(str(node.value))

    return value(ast.parse(expression, mode="eval").body)


def canned(folder: Path) -> dict[tuple[str, str], str]:
    """Return the canned results by tool and arguments, as JSON with sorted keys."""
    file = YAML(typ="safe").load((folder / "agent_tools.yaml").read_text("utf-8"))
    return {
        (tool["name"], key(answer["input"])): answer["result"]
        for tool in file["tools"]
        for answer in tool["answers"]
    }


def key(arguments: dict[str, str]) -> str:
    return json.dumps(arguments, sort_keys=True).casefold()


def read(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


@dataclass
class Asked:
    """A question of a row: its calls as (tool, text of the input, result, learned), the answer."""

    question: str
    calls: list[tuple[str, str, str, bool]]
    answer: str = ""


def asked(row: dict) -> list[Asked]:
    """Return the questions of a row in either form.

    The ReAct form is read here by its lines, not by the parser of the agent.
    """
    found: list[Asked] = []
    messages = row["messages"]
    for message, after in zip(messages, [*messages[1:], {}], strict=True):
        text, learned = message["content"] or "", message.get("weight") != 0
        if message["role"] == "user" and not text.startswith("Response:"):
            found.append(Asked(text, []))
        for call in message.get("tool_calls", []):
            function = call["function"]
            result = (after["content"], learned)
            found[-1].calls.append((function["name"], function["arguments"], *result))
        if message["role"] == "assistant" and "\nAction: " in text:
            thought, action, given = text.split("\n")
            assert thought.startswith("Thought: ")
            told = re.fullmatch(r"Response:(.*)\n", after["content"])
            assert after["role"] == "user" and told
            name, given = action.removeprefix("Action: "), given.removeprefix("Action Input: ")
            found[-1].calls.append((name, given, told[1], learned))
        elif message["role"] == "assistant" and "tool_calls" not in message:
            found[-1].answer = text
    return found


def offered(row: dict) -> list[str]:
    """Return the names of the tools that a row tells of, in their order."""
    if "tools" in row:
        return [tool["function"]["name"] for tool in row["tools"]]
    listed = re.search(r"should be one of \[(\[.*?\])\]", row["messages"][0]["content"])
    assert listed
    return ast.literal_eval(listed[1])
