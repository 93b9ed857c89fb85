"""Who is talked to: a model of ours, which a server is started for, or one of another server."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

import openai

from snaketune.chat.context import Context
from snaketune.chat.model import ChatModel, Settings
from snaketune.chat.text import printable
from snaketune.core import cli
from snaketune.core.errors import UserError, nearest
from snaketune.serving.server_process import model_server

API_KEY = "OPENAI_API_KEY"
"""The environment variable with the key of another server, if it wants one."""


@dataclass(frozen=True)
class Pair:
    """A model and, where it is known, its base; None for a base itself."""

    model: ChatModel
    base: ChatModel | None


@contextmanager
def our_model(
    name: str, settings: Settings, log: Path, bits: int | None = None, precision: str = "auto"
) -> Iterator[Pair]:
    """Serve an experiment's model while the block runs.

    Args:
        name: An experiment, `X/iter_N`, or a base model's id.
        log: What the server prints.
        bits: 4 or 8 to hold the base quantised.
        precision: `bf16`, `fp32`, or `auto` for what this machine is good at.

    Raises:
        UserError: It is not built, or the server does not start.
    """
    with ExitStack() as stack:
        with cli.console.status(f"starting the server of {name} ..."):
            server = stack.enter_context(model_server([name], log, bits, precision))
        own = server.model(name)
        served = [own] if own.is_base else [own, server.model(own.base)]
        found = [ChatModel(server.client, m.name, settings, Context(m)) for m in served]
        yield Pair(found[0], found[1] if len(found) > 1 else None)


def other_model(url: str, name: str | None, base: str | None, settings: Settings) -> Pair:
    """Return a model of a server that runs already, such as vLLM, LMDeploy or llama.cpp.

    Args:
        url: Where it listens, e.g. http://127.0.0.1:8000 or with a path, as clients want it.
        name: The model's id there; None for the only one.
        base: What it is compared with.

    Raises:
        UserError: There is no such server or model.
    """
    parts = _parts(url)
    whole = url if parts.path.strip("/") else f"{url.rstrip('/')}/v1"
    key = os.environ.get(API_KEY, "").strip() or "none"
    client = openai.OpenAI(base_url=whole, api_key=key, max_retries=0)
    known = _models(client, whole)
    listed = " or ".join(f"'{each}'" for each in known)
    if name is None and len(known) != 1:
        raise UserError(f"{whole} has {len(known)} models.\n  Fix: --model {listed}")
    for wanted in filter(None, (name, base)):
        if wanted not in known:
            hint = nearest(wanted, known)
            raise UserError(f"{whole} has no '{wanted}'.{hint}\n  Fix: --model {listed}")
    own = ChatModel(client, name or known[0], settings, None)
    return Pair(own, ChatModel(client, base, settings, None) if base else None)


def _parts(url: str) -> SplitResult:
    """Return the parts of an address.

    Raises:
        UserError: It is none.
    """
    try:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return parts
    except ValueError:  # brackets that do not close, or a port that is no number
        pass
    raise UserError(f"--url {url} is no address.\n  Fix: e.g. --url http://127.0.0.1:8000/v1")


def _models(client: openai.OpenAI, url: str) -> list[str]:
    try:
        return [printable(model.id) for model in client.models.list().data]
    except openai.APIConnectionError as error:
        raise UserError(
            f"no server answers at {url}: {error.__cause__}.\n  Fix: start it, or correct --url."
        ) from error
    except openai.AuthenticationError as error:
        raise UserError(f"{url} wants a key.\n  Fix: export {API_KEY}=...") from error
    except (openai.OpenAIError, AttributeError, TypeError, ValueError) as error:
        raise UserError(
            f"{url} is no OpenAI-compatible endpoint: {printable(str(error))[:300]}.\n"
            "  Fix: --url as its clients want it, which often ends in /v1"
        ) from error
