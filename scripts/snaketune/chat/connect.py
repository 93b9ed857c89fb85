"""Connect to a model: one of ours, for which a server is started, or one of a running server."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

import openai

from snaketune.client.answer import GenerationSettings
from snaketune.client.chat_client import ChatClient
from snaketune.client.context import Context
from snaketune.core import cli
from snaketune.core.errors import UserError, nearest
from snaketune.core.text import printable
from snaketune.serving.server_process import model_server

API_KEY = "OPENAI_API_KEY"
"""The environment variable with the key of another server, if that requires one."""


@dataclass(frozen=True)
class ModelPair:
    """A model and its base, where that is known; None for a base itself."""

    model: ChatClient
    base: ChatClient | None


@contextmanager
def our_model(
    name: str,
    settings: GenerationSettings,
    log: Path,
    bits: int | None = None,
    precision: str = "auto",
) -> Iterator[ModelPair]:
    """Serve an experiment's model while the block runs.

    Args:
        name: An experiment, `X/iter_N`, or a base model's id.
        log: Receives the server's output.
        bits: 4 or 8 to quantise the base.
        precision: `bf16`, `fp32`, or `auto` for what suits this machine.

    Raises:
        UserError: The model is not built, or the server does not start.
    """
    with ExitStack() as stack:  # the server outlives the block of the spinner
        with cli.console.status(f"starting the server of {name} ..."):
            server = stack.enter_context(model_server([name], log, bits, precision))
        own = server.model(name)
        served = [own] if own.is_base else [own, server.model(own.base)]
        model, *base = [
            ChatClient(server.client, it.name, settings, Context(it), log) for it in served
        ]
        yield ModelPair(model, base[0] if base else None)


def other_model(
    url: str, name: str | None, base: str | None, settings: GenerationSettings
) -> ModelPair:
    """Connect to a model of a running server, such as vLLM, LMDeploy or llama.cpp.

    Args:
        url: The server's address, e.g. http://127.0.0.1:8000, or its base URL with a path.
        name: The model's id there; None for the only one.
        base: The id of the model it is compared with.

    Raises:
        UserError: There is no such server or model.
    """
    parts = _parse(url)
    base_url = url if parts.path.strip("/") else f"{url.rstrip('/')}/v1"
    # the client wants a key even for a server that wants none
    key = os.environ.get(API_KEY, "").strip() or "none"
    client = openai.OpenAI(base_url=base_url, api_key=key, max_retries=0)
    known = _models(client, base_url)
    choices = " or ".join(f"'{name}'" for name in known)
    if name is None and len(known) != 1:
        raise UserError(f"{base_url} serves {len(known)} models.\n  Fix: --model {choices}")
    for wanted in filter(None, (name, base)):
        if wanted not in known:
            hint = nearest(wanted, known)
            raise UserError(
                f"{base_url} does not serve '{wanted}'.{hint}\n  Fix: --model {choices}"
            )
    model = ChatClient(client, name or known[0], settings)
    return ModelPair(model, ChatClient(client, base, settings) if base else None)


def _parse(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return parts
    except ValueError:  # unbalanced brackets, or a port that is not a number
        pass
    raise UserError(f"--url {url} is not a URL.\n  Fix: e.g. --url http://127.0.0.1:8000/v1")


def _models(client: openai.OpenAI, url: str) -> list[str]:
    try:
        return [printable(model.id) for model in client.models.list().data]
    except openai.APIConnectionError as error:
        raise UserError(
            f"no server answers at {url}: {error.__cause__}.\n  Fix: start it, or correct --url."
        ) from error
    except openai.AuthenticationError as error:
        raise UserError(f"{url} requires a key.\n  Fix: export {API_KEY}=...") from error
    # AttributeError, TypeError: a web page instead of a list of models
    except (openai.OpenAIError, AttributeError, TypeError, ValueError) as error:
        raise UserError(
            f"{url} is not an OpenAI-compatible endpoint: {printable(str(error))[:300]}.\n"
            "  Fix: the base URL that its clients use, which often ends in /v1"
        ) from error
