"""The models behind the endpoint: a base once in memory, its adapters beside it, not merged."""

import logging
import tempfile
import threading
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from fastapi import HTTPException
from peft import PeftModel
from transformers import GenerationConfig

from snaketune.data.template import ChatTemplate
from snaketune.export.export_adapter import export_adapter
from snaketune.models.generation import contiguous_to_head
from snaketune.models.load_model import choose_precision, device, load_model, load_tokenizer
from snaketune.serving.artifacts import STORE, ServedModel
from snaketune.serving.transformers_adapter import ListingModelManager, Modality, set_torch_seed

log = logging.getLogger(__name__)

QUANTIZATION = {4: "nf4", 8: "int8"}


class LoadedModel:
    """What transformers' handlers need of a model, on weights that several models share.

    Answers are generated one after the other in one thread, so the adapter can be switched.

    Args:
        weights: A model, or one with adapters around it.
        adapter: Which of them; None for the model without any.
        defaults: How to generate where a request says nothing.
        in_use: Held while the weights answer: they are not to change meanwhile.
    """

    def __init__(
        self,
        weights: Any,
        adapter: str | None,
        defaults: GenerationConfig,
        in_use: threading.Lock,
    ) -> None:
        self.in_use = in_use
        self.weights = weights
        self.adapter = adapter
        self.generation_config = defaults
        self.config = weights.config
        self.device = weights.device

    def generate(self, **inputs: Any) -> torch.Tensor:
        """Return prompt and answer, shape (1, tokens)."""
        with self.in_use:
            return self._generate(**inputs)

    def _generate(self, **inputs: Any) -> torch.Tensor:
        seed = getattr(inputs["generation_config"], "seed", None)
        if seed is not None:
            set_torch_seed(seed)
        if self.adapter:
            self.weights.set_adapter(self.adapter)
        adapted = isinstance(self.weights, PeftModel)
        bare = self.weights.disable_adapter() if adapted and not self.adapter else nullcontext()
        with torch.inference_mode(), contiguous_to_head(self.weights), bare:
            return self.weights.generate(**inputs)


class ServedModels(ListingModelManager):
    """Loads each model when it is first asked for, and keeps it.

    Args:
        served: What can be asked for.
        precision: `bf16`, `fp32`, or `auto` for what this machine is good at.
        bits: 4 or 8 to hold the bases quantised.
    """

    def __init__(self, served: list[ServedModel], precision: str, bits: int | None) -> None:
        super().__init__()
        self.precision = precision
        self.served = {each.name: each for each in served}
        self.quantization = QUANTIZATION[bits] if bits else None
        self.ready: dict[str, tuple[LoadedModel, Any]] = {}
        self._weights: dict[str, Any] = {}
        self._loading, self._in_use = threading.Lock(), threading.Lock()

    @staticmethod
    def process_model_name(model_id: str) -> str:
        """Return a model's id as it is: there is no revision in it."""
        return model_id

    def load_model_and_processor(  # type: ignore[override]
        self, model_id_and_revision: str, *_: Any, **__: Any
    ) -> tuple[LoadedModel, Any]:
        """Return a model and its tokenizer.

        Raises:
            HTTPException: 404, it is none of those that are served.
        """
        name = model_id_and_revision
        if name not in self.served:
            known = ", ".join(self.served)
            raise HTTPException(404, f"there is no model '{name}'. Served are: {known}")
        with self._loading:
            if name not in self.ready:
                self.ready[name] = self._load(self.served[name])
        return self.ready[name]

    @staticmethod
    def get_model_modality(model: Any, processor: Any = None) -> Modality:
        """Return text, which is what all our models read."""
        return Modality.LLM

    def list_models(self, *_: Any) -> list[dict[str, Any]]:
        """The models as the endpoint lists them."""
        return [
            {
                "id": each.name,
                "object": "model",
                "created": 0,
                "owned_by": "snaketune",
                "max_model_len": each.context_length,  # as vLLM calls it
            }
            for each in self.served.values()
        ]

    def shutdown(self) -> None:
        """Leave the models to the end of the process."""

    def _load(self, served: ServedModel) -> tuple[LoadedModel, Any]:
        log.info("loading %s", served.name)
        tokenizer = _tokenizer(served)
        weights, adapter = self._place(served)
        ends = ChatTemplate(served.folder, "auto").end_token_ids()
        defaults = GenerationConfig(
            do_sample=True, eos_token_id=ends, pad_token_id=tokenizer.pad_token_id
        )
        log.info("%s answers on %s in %s", served.name, weights.device, weights.dtype)
        return LoadedModel(weights, adapter, defaults, self._in_use), tokenizer

    def _place(self, served: ServedModel) -> tuple[Any, str | None]:
        """Return the weights a model is in, and the name of its adapter among them."""
        if served.is_merged:
            return self._read(served.folder), None
        base = self._weights.get(served.base)
        if base is None:
            base = self._weights[served.base] = self._read(STORE / served.base)
        if served.is_base:
            return base, None
        adapter = f"adapter_{list(self.served).index(served.name)}"  # PEFT takes no dot or slash
        with tempfile.TemporaryDirectory() as scratch:
            folder = served.folder
            if served.checkpoint:
                folder = Path(scratch) / "adapter"
                export_adapter(served.checkpoint, STORE / served.base, folder)
            self._add(served.base, folder, adapter)
        return self._weights[served.base], adapter

    def _add(self, base: str, folder: Path, adapter: str) -> None:
        """Put an adapter onto a base, in the base's precision, as merging would."""
        before = self._weights[base]
        with self._in_use:
            if isinstance(before, PeftModel):
                model = before
                model.load_adapter(str(folder), adapter, autocast_adapter_dtype=False)
            else:
                model = PeftModel.from_pretrained(
                    before, folder, adapter, autocast_adapter_dtype=False
                )
            for name, parameter in model.named_parameters():
                if adapter in name.split("."):
                    parameter.data = parameter.data.to(before.dtype)
            self._weights[base] = model.eval()
            for answering, _ in self.ready.values():
                if answering.weights is before:  # PEFT put the adapter into the base itself, too
                    answering.weights = model

    def _read(self, folder: Path) -> Any:
        dtype, reason = choose_precision(self.precision)
        log.info("reading %s in %s (%s)", folder, dtype, reason)
        return load_model(folder, dtype, device(), self.quantization)


def _tokenizer(served: ServedModel) -> Any:
    """Return a tokenizer whose chat template begins with the system message of the training.

    Only where a conversation brings none. What is sent as a bare prompt is taken as it is.
    """
    tokenizer: Any = load_tokenizer(served.folder)
    tokenizer.backend_tokenizer.post_processor = None
    if served.system:
        message = f"{{'role': 'system', 'content': {served.system!r}}}"
        tokenizer.chat_template = (
            "{%- if messages[0]['role'] != 'system' -%}"
            "{%- set messages = [" + message + "] + messages -%}{%- endif -%}"
            f"{tokenizer.chat_template}"
        )
    return tokenizer
