"""What the program gives its page: the models, the tools, and how to reach them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import openai

TOOLS = ("arithmetic", "arxiv", "google")
"""Offered always; `python` runs a model's code, so only where the program was told to."""


@dataclass(frozen=True)
class Setup:
    """One start of the demo.

    Attributes:
        client: Talks to the model server.
        models: The ids it serves.
        bases: Of those, which were not trained here.
        picked: One or two of them to begin with.
        prompts: What to ask first, by experiment.
        studies: By experiment, that in MLflow which gets its questions to tools as traces.
        tools: The built-in tools that may be used.
        canned: A file of tools with canned answers.
        experiments: The folder with the experiments' reports.
        log: The model server's.
    """

    client: openai.OpenAI
    models: Sequence[str]
    bases: Sequence[str]
    picked: Sequence[str]
    prompts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    studies: Mapping[str, str] = field(default_factory=dict)
    tools: Sequence[str] = TOOLS
    canned: Path | None = None
    experiments: Path = Path("experiments")
    log: Path = Path("logs/demo_server.log")


_current: list[Setup] = []


def use(setup: Setup) -> None:
    """Make this the setup of every page of this process."""
    _current[:] = [setup]


def current() -> Setup:
    """Return what `use` was given; Streamlit runs the page's file anew for every click."""
    return _current[0]
