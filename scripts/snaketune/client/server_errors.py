"""What an error of a model server means, and what to do about it."""

from pathlib import Path

import openai

from snaketune.core.layout import ExperimentPaths

_BUSY = (409, 429, 503)
"""Another answer is being generated, or a model is being loaded."""


def explain_error(error: Exception, model: str, url: str, log: Path | None = None) -> str:
    """Explain an error of OpenAI's client in words, with the fix where there is one.

    Args:
        url: The server's base URL.
        log: Of a server that this program started; None for somebody else's server.
    """
    url = url.rstrip("/")
    if isinstance(error, openai.APITimeoutError):  # a subclass of APIConnectionError
        return f"{model} at {url} did not answer in time.\n  Fix: try again, or ask for less."
    if isinstance(error, openai.APIConnectionError):
        restart = f"read {log}, then restart this program" if log else "restart it; see its log"
        return f"the model server at {url} is unreachable: {error.__cause__}.\n  Fix: {restart}."
    if not isinstance(error, openai.APIStatusError):
        return f"the model server at {url} failed: {server_reason(error)}"
    reason = server_reason(error)
    if isinstance(error, openai.NotFoundError):
        return f"the model server at {url} has no model {model} ({reason}).{_build(model, log)}"
    if error.status_code in _BUSY:
        return f"{model} is busy ({reason}).\n  Fix: try again when it is free."
    return f"{model} refused the request ({error.status_code}): {reason}"


def server_reason(error: Exception) -> str:
    """Find the reason in a server's answer, wherever it puts it; default: the error's own text.

    OpenAI nests it as `error.message`, FastAPI calls it `detail`; OpenAI's client has already
    removed the outer `error` where there was one.
    """
    body = getattr(error, "body", None)
    while isinstance(body, dict):
        body = next((body[key] for key in ("message", "detail", "error") if key in body), None)
    return str(body or error)


def _build(model: str, log: Path | None) -> str:
    """Say how to build a model of ours, which only our own server can have."""
    if log is None:
        return ""
    target = ExperimentPaths(model.partition("/")[0]).adapter()
    return f"\n  Fix: snakemake {target}, then restart this program."
