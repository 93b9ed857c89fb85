"""The models behind the endpoint: each base once in memory, its adapters beside it, unmerged."""

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

from snaketune.core.layout import BASES
from snaketune.data.template import ChatTemplate
from snaketune.export.export_adapter import export_adapter
from snaketune.models.generation import contiguous_to_head
from snaketune.models.load_model import choose_precision, device, load_model, load_tokenizer
from snaketune.serving.artifacts import ServedModel

log = logging.getLogger(__name__)

QUANTIZATION = {4: "nf4", 8: "int8"}


class LoadedModel:
    """A model as transformers' handlers use it, on weights that several models share.

    Answers are generated one after the other in one thread, so the adapter can be switched.

    Args:
        weights: A model, or one with adapters around it.
        adapter: The name of this model's adapter among them; None for the base.
        defaults: How to generate where a request doesn't say.
        in_use: Held during generation, so that the weights don't change meanwhile.
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
        """Generate prompt and answer, shape (1, tokens)."""
        with self.in_use:
            return self._generate(**inputs)

    def _generate(self, **inputs: Any) -> torch.Tensor:
        seed = getattr(inputs["generation_config"], "seed", None)
        if seed is not None:
            torch.manual_seed(seed)
        if self.adapter:
            self.weights.set_adapter(self.adapter)
        # PEFT has put the adapters into the base's own modules: without this it would use one
        has_adapters = isinstance(self.weights, PeftModel)
        as_base = has_adapters and not self.adapter
        bare = self.weights.disable_adapter() if as_base else nullcontext()
        with torch.inference_mode(), contiguous_to_head(self.weights), bare:
            return self.weights.generate(**inputs)


class ServedModels:
    """Loads each model at its first request and keeps it.

    Args:
        served: The models that clients can name.
        precision: `bf16`, `fp32`, or `auto` for what this machine is good at.
        bits: 4 or 8 to quantise the bases.
    """

    def __init__(self, served: list[ServedModel], precision: str, bits: int | None) -> None:
        self.precision = precision
        self.served = {model.name: model for model in served}
        self.quantization = QUANTIZATION[bits] if bits else None
        self.ready: dict[str, tuple[LoadedModel, Any]] = {}
        self._weights: dict[str, Any] = {}
        self._loading, self._in_use = threading.Lock(), threading.Lock()

    def load(self, name: str) -> tuple[LoadedModel, Any]:
        """Load a model and its tokenizer, or take them from memory.

        Raises:
            HTTPException: 404 if it isn't served.
        """
        if name not in self.served:
            known = ", ".join(self.served)
            raise HTTPException(404, f"unknown model '{name}'. Served models: {known}")
        with self._loading:
            if name not in self.ready:
                self.ready[name] = self._load(self.served[name])
        return self.ready[name]

    def entries(self) -> list[dict[str, Any]]:
        """The models as GET /v1/models lists them."""
        return [
            {
                "id": model.name,
                "object": "model",
                "created": 0,
                "owned_by": "snaketune",
                "max_model_len": model.context_length,  # vLLM's name for it
            }
            for model in self.served.values()
        ]

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
        """Put a model into memory; returns the weights and the name of its adapter in them."""
        if served.is_merged:
            return self._read(served.folder), None
        base = self._weights.get(served.base)
        if base is None:
            base = self._weights[served.base] = self._read(BASES / served.base)
        if served.is_base:
            return base, None
        adapter = f"adapter_{list(self.served).index(served.name)}"  # PEFT allows no dot or slash
        with tempfile.TemporaryDirectory() as scratch:
            folder = served.folder
            if served.checkpoint:
                folder = Path(scratch) / "adapter"
                export_adapter(served.checkpoint, BASES / served.base, folder)
            self._add(served.base, folder, adapter)
        return self._weights[served.base], adapter

    def _add(self, base: str, folder: Path, adapter: str) -> None:
        """Add an adapter to a base, in the base's precision, as merging would."""
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
            for loaded, _ in self.ready.values():
                if loaded.weights is before:  # PEFT has put the adapter into the base itself, too
                    loaded.weights = model

    def _read(self, folder: Path) -> Any:
        dtype, reason = choose_precision(self.precision)
        log.info("reading %s in %s (%s)", folder, dtype, reason)
        return load_model(folder, dtype, device(), self.quantization)


def _tokenizer(served: ServedModel) -> Any:
    """Load a tokenizer whose chat template adds the system message of the training.

    It is added to conversations without one of their own; a bare prompt stays as it is.
    """
    tokenizer: Any = load_tokenizer(served.folder)
    # the template writes the special tokens; a post-processor would add BOS a second time
    tokenizer.backend_tokenizer.post_processor = None
    if served.system:
        message = f"{{'role': 'system', 'content': {served.system!r}}}"
        tokenizer.chat_template = (
            "{%- if messages[0]['role'] != 'system' -%}"
            "{%- set messages = [" + message + "] + messages -%}{%- endif -%}"
            f"{tokenizer.chat_template}"
        )
    return tokenizer
