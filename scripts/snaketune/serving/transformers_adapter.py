"""The private parts of `transformers serve` that our server is built on. Nothing else imports them.

Checked with transformers 5.23.0 and 5.24.0. The module `transformers.cli.serving` is no public API:
its names and signatures change between minor versions. `test_transformers_adapter.py` checks that
what we override is still there and still called; differences between versions are bridged here.
"""

from typing import Any

from transformers.cli.serving.chat_completion import ChatCompletionHandler
from transformers.cli.serving.completion import CompletionHandler
from transformers.cli.serving.model_manager import ModelManager
from transformers.cli.serving.server import build_server
from transformers.cli.serving.utils import (
    BaseHandler,
    GenerateManager,
    GenerationState,
    Modality,
    _StreamError,
    set_torch_seed,
)

__all__ = [
    "BaseHandler",
    "ChatCompletionHandler",
    "CompletionHandler",
    "GenerateManager",
    "GenerationState",
    "ListingModelManager",
    "Modality",
    "StreamError",
    "build_server",
    "set_torch_seed",
]

StreamError = _StreamError


class ListingModelManager(ModelManager):
    """Lists the models of `GET /v1/models` under one name in every version of transformers."""

    def list_models(self, *_: Any) -> list[dict[str, Any]]:
        """The entries of the list, in OpenAI's format. transformers 5.24 calls it."""
        raise NotImplementedError

    def get_gen_models(self, *_: Any) -> list[dict[str, Any]]:  # type: ignore[override, unused-ignore]
        """The same, as transformers 5.23 calls it."""
        return self.list_models()
