"""The private parts of `transformers serve` that serving/transformers_adapter.py relies on.

A failure here means that this version of transformers has changed one of them. Bridge the
difference in the adapter, in a way that works at both ends of the pin in pyproject.toml.
"""

import inspect
from dataclasses import dataclass

import pytest
import transformers
from starlette.testclient import TestClient
from transformers.cli.serving import utils
from transformers.cli.serving.chat_completion import ChatCompletionHandler
from transformers.cli.serving.completion import CompletionHandler
from transformers.cli.serving.model_manager import ModelManager
from transformers.cli.serving.server import build_server

from snaketune.serving import transformers_adapter as adapter

ADVICE = f"transformers {transformers.__version__} has changed: adapt serving/transformers_adapter"

PARAMETERS = {
    build_server: ["model_manager", *["_handler"] * 5, "generation_state", "enable_cors"],
    ModelManager.load_model_and_processor: ["self", "model_id_and_revision"],
    ModelManager.process_model_name: ["model_id"],
    ModelManager.get_model_modality: ["model", "processor"],
    utils.BaseHandler._build_generation_config: ["self", "body", "_generation_config", "use_cb"],
    utils.GenerationState.use_continuous_batching: ["self", "model", "modality"],
    utils.GenerationState.get_manager: ["self", "model_id", "use_cb"],
    utils.GenerateManager.generate_streaming: [
        *["self", "model", "processor", "inputs", "gen_config", "request_id", "response_parser"],
    ],
    utils.GenerateManager.generate_non_streaming: [
        *["self", "model", "processor", "inputs", "gen_config", "request_id"],
    ],
    ChatCompletionHandler.handle_request: ["self", "body", "request_id"],
    CompletionHandler.handle_request: ["self", "body", "request_id"],
}
"""Parameters in the order in which they are passed, each by the end of its name."""

OVERRIDES = {
    adapter.SharedModelManager: ModelManager,
    adapter.OneQueue: utils.GenerationState,
    adapter.BoundedGeneration: utils.GenerateManager,
    adapter.ChatHandler: ChatCompletionHandler,
    adapter.TextHandler: CompletionHandler,
}

ONE_OF = {"list_models", "get_gen_models"}
"""Names of one method: of transformers 5.24 and of 5.23."""


@dataclass
class StubModel:
    context_length: int = 10


class StubModels:
    def __init__(self):
        self.served = {"x": StubModel()}

    def entries(self):
        return [{"id": "x"}]


@pytest.mark.parametrize("function", PARAMETERS, ids=lambda function: function.__qualname__)
def test_parameters_are_those_we_pass(function):
    names = list(inspect.signature(function).parameters)
    expected = PARAMETERS[function]
    pairs = zip(names, expected, strict=False)
    fits = len(names) >= len(expected) and all(name.endswith(end) for name, end in pairs)
    assert fits, f"{ADVICE}: {function.__qualname__}({', '.join(names)}), expected {expected}"


@pytest.mark.parametrize("ours", OVERRIDES, ids=lambda ours: ours.__name__)
def test_every_override_has_something_to_override(ours):
    theirs = OVERRIDES[ours]
    methods = {
        name
        for kind in ours.__mro__
        if kind.__module__ == adapter.__name__
        for name, value in vars(kind).items()
        if inspect.isfunction(value) or isinstance(value, staticmethod)
    }
    gone = {name for name in methods if not hasattr(theirs, name)}
    assert len(gone & ONE_OF) < 2, f"{ADVICE}: {theirs.__name__} has none of {ONE_OF}"
    assert gone <= ONE_OF, f"{ADVICE}: {theirs.__name__} has no {gone - ONE_OF}"


def test_the_endpoint_lists_our_models():
    client = TestClient(adapter.build_app(StubModels()))
    listed = client.get("/v1/models").json()
    assert listed == {"object": "list", "data": [{"id": "x"}]}, f"{ADVICE}: GET /v1/models"


def test_all_our_routes_exist():
    paths = {route.path for route in adapter.build_app(StubModels()).router.routes}
    assert paths == adapter.PATHS, f"{ADVICE}: build_server has the routes {paths}"


def test_errors_in_a_stream_carry_their_message():
    assert utils._StreamError("text").msg == "text", f"{ADVICE}: _StreamError.msg"
    assert issubclass(utils.ReasoningText, str), f"{ADVICE}: ReasoningText"
    assert hasattr(utils.DirectStreamer, "cancel"), f"{ADVICE}: DirectStreamer.cancel"


def test_seeds_are_left_to_the_loaded_model():
    handler = adapter.ChatHandler(adapter.SharedModelManager(StubModels()), adapter.OneQueue())
    defaults = transformers.GenerationConfig(eos_token_id=[2], pad_token_id=0)
    body = {"model": "x", "seed": 5, "stop": "end", "temperature": 0, "max_tokens": 3}
    config = handler._build_generation_config(body, defaults)
    values = config.seed, config.stop_strings, config.do_sample, config.max_new_tokens
    assert values == (5, ["end"], False, 3), f"{ADVICE}: _build_generation_config"
