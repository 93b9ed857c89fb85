"""A model that uses tools: Lagent's ReAct loop around an OpenAI-compatible endpoint. No torch."""

from snaketune.agent.events import AgentAnswer, Event
from snaketune.agent.react import Parsed, answer_message, parse, response_message
from snaketune.agent.react_loop import Agent, system_prompt

__all__ = [
    "Agent",
    "AgentAnswer",
    "Event",
    "Parsed",
    "answer_message",
    "parse",
    "response_message",
    "system_prompt",
]
