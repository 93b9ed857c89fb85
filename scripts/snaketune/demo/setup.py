"""What the program hands to its page: the models, the tools, and the client of their server."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import openai

from snaketune.core.layout import EXPERIMENTS, LOGS
from snaketune.toolbox import BUILTIN_TOOLS

TOOLS = tuple(name for name in BUILTIN_TOOLS if name != "python")
"""Always offered; `python` executes a model's code, so it takes --python."""


@dataclass(frozen=True)
class Setup:
    """One start of the demo.

    Attributes:
        client: Of the model server.
        models: The ids that it serves.
        bases: Those of them that are base models.
        picked: The one or two that are chosen at first.
        prompts: Suggestions, by experiment.
        studies: By experiment, the study whose MLflow experiment gets traces of tool use.
        tools: The built-in tools that are offered.
        canned: A file of tools with canned answers.
        experiments: The folder with the experiments' reports.
        log: Of the model server.
    """

    client: openai.OpenAI
    models: Sequence[str]
    bases: Sequence[str]
    picked: Sequence[str]
    prompts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    studies: Mapping[str, str] = field(default_factory=dict)
    tools: Sequence[str] = TOOLS
    canned: Path | None = None
    experiments: Path = EXPERIMENTS
    log: Path = LOGS / "demo_server.log"


# Streamlit executes the page in threads of this process, which share its modules
_current: list[Setup] = []


def use(setup: Setup) -> None:
    _current[:] = [setup]


def current() -> Setup:
    """The setup; Streamlit runs the page's file anew at every click and passes it nothing."""
    return _current[0]
