"""Checkpoints as XTuner 0.1 writes them, made with PEFT and torch; XTuner itself is not needed."""

import sys
import types
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

CONFIG = """\
model = dict(
    llm=dict(
        quantization_config=dict(
            bnb_4bit_compute_dtype='torch.float16', load_in_4bit=True),
        type='transformers.AutoModelForCausalLM.from_pretrained'),
    lora=dict(
        bias='none',
        lora_alpha=8,
        lora_dropout=0.1,
        r=4,
        task_type='CAUSAL_LM',
        type='peft.LoraConfig'),
    type='xtuner.model.SupervisedFinetune')
prompt_template = 'xtuner.utils.PROMPT_TEMPLATE.default'
"""
"""What mmengine writes of a configuration file: names of classes and templates as strings."""


class SupervisedFinetune(torch.nn.Module):
    """XTuner's model around the language model; of LoRA it saves what PEFT trains."""

    def __init__(self, llm: torch.nn.Module) -> None:
        super().__init__()
        self.llm = llm

    def state_dict(self, *arguments: Any, **options: Any) -> dict[str, torch.Tensor]:
        weights = super().state_dict(*arguments, **options)
        if not hasattr(self.llm, "peft_config"):
            return weights
        trained = ("lora_", "modules_to_save.default")
        return {name: t for name, t in weights.items() if any(part in name for part in trained)}


def peft_model(base: Path, **changes: Any) -> SupervisedFinetune:
    """Return a base with LoRA whose matrices are all random, as after a training."""
    settings = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base), LoraConfig(**settings | changes)
    )
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data + 0.05 * torch.randn_like(parameter)
    return SupervisedFinetune(model.eval())


def write_pth(path: Path, weights: dict[str, torch.Tensor], config: str = CONFIG) -> Path:
    """Write what mmengine's runner saves: weights, and beside them objects of its own classes."""
    module = types.ModuleType("mmengine.logging.history_buffer")

    class HistoryBuffer:
        def __init__(self) -> None:
            self.max_length = 1000000
            self._log_history = np.array([2.5, 1.25])
            self._count_history = np.array([1, 1])
            self.method = HistoryBuffer.mean

        def mean(self) -> float:
            raise AssertionError("nothing of a checkpoint is called")

    HistoryBuffer.__module__, HistoryBuffer.__qualname__ = module.__name__, "HistoryBuffer"
    HistoryBuffer.mean.__module__ = module.__name__
    HistoryBuffer.mean.__qualname__ = "HistoryBuffer.mean"
    module.HistoryBuffer = HistoryBuffer
    names = ("mmengine", "mmengine.logging")
    packages = {name: types.ModuleType(name) for name in names} | {module.__name__: module}
    state = {
        "state_dict": {name: tensor.clone() for name, tensor in weights.items()},
        "meta": {"epoch": 0, "iter": 500, "cfg": config, "seed": np.int64(7)},
        "message_hub": {
            "log_scalars": {"train/loss": HistoryBuffer()},
            "runtime_info": {"loop_stage": "train", "time": np.float64(0.5)},
        },
        "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 1e-4}]},
        "param_schedulers": [{"last_step": 500, "_last_lr": [np.float64(1e-4)]}],
    }
    with mock.patch.dict(sys.modules, packages):
        torch.save(state, path)
    return path
