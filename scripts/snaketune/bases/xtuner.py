"""Checkpoints of XTuner 0.1: what they hold, and whether it fits a base model and a method.

A .pth is what mmengine saves, a file, or with DeepSpeed a folder. It holds the weights of LoRA, or
all weights of a full fine-tune, named as in XTuner's model, whose language model is `llm`. Beside
them it has the text of the configuration file, which may tell LoRA's alpha and the template.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, LlamaConfig, PretrainedConfig

from snaketune.bases.internlm import from_internlm2, has_internlm2_names
from snaketune.bases.safe_unpickle import are_weights, load_inert
from snaketune.bases.zero import load_zero
from snaketune.core.errors import UserError
from snaketune.experiment.schema import Method
from snaketune.models.weights import Shapes, Stored

Weights = dict[str, torch.Tensor]

_MODEL = "llm."
_PEFT = "base_model.model."
_LORA = re.compile(r"(.+)\.(lora_A|lora_B|lora_magnitude_vector)\.default(?:\.weight)?")
_OWN_BASE = "set model: to the base it was trained on."
_NO_OTHERS = "LoRA of embeddings and biases is not converted."
_SAVED = re.compile(r"(.+)\.modules_to_save\.default\.(weight|bias)")


@dataclass(frozen=True)
class XTunerCheckpoint:
    """What is used of a checkpoint.

    Attributes:
        weights: Named as in the language model; fp32 where the checkpoint has them in fp32.
        iteration: Micro-batches trained; 0 if it is not told.
        config: The text of the configuration file it was trained by, "" if it is not there.
    """

    path: Path
    weights: Weights
    iteration: int
    config: str

    @property
    def alpha(self) -> float | None:
        """LoRA's alpha, if the configuration tells it."""
        found = re.search(r"\blora_alpha=(\d+(?:\.\d+)?)", self.config)
        return float(found[1]) if found else None

    @property
    def rslora(self) -> bool:
        """Whether the configuration says that LoRA's scale is alpha / sqrt(r)."""
        return "use_rslora=True" in self.config

    @property
    def templates(self) -> set[str]:
        """The names of the templates that the configuration tells."""
        return set(re.findall(r"\bPROMPT_TEMPLATE\.(\w+)", self.config))

    @property
    def precision(self) -> str:
        """The arithmetic of its training; float16 in all of XTuner's own configurations."""
        found = re.search(
            r"bnb_4bit_compute_dtype='torch\.(float16|bfloat16|float32)'", self.config
        )
        return found[1] if found else "float16"


def read_xtuner(path: Path) -> XTunerCheckpoint:
    """Read a .pth, a file or a folder.

    Raises:
        UserError: It is missing, damaged, or holds no weights of a language model.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist.\n  Fix: correct the path, or copy it there.")
    state = load_zero(path) if path.is_dir() else load_inert(path)
    weights = state.get("module" if path.is_dir() else "state_dict")
    if not weights or not are_weights(weights):
        raise UserError(
            f"{path} holds no weights of XTuner 0.1 but {_listed(map(str, state)) or 'nothing'}.\n"
            "  Fix: name an iter_N.pth or epoch_N.pth of work_dirs/."
        )
    meta = state.get("meta")
    meta = meta if isinstance(meta, dict) else {}
    config = meta.get("cfg")
    return XTunerCheckpoint(
        path,
        _language_model(weights, path),
        _iteration(meta, path),
        config if isinstance(config, str) else "",
    )


def fitted(found: XTunerCheckpoint, base: Path, method: Method) -> tuple[Weights, Method]:
    """Return the weights in fp32 as our own training names them, and what they were trained by.

    Args:
        base: The base model's folder.
        method: What the experiment says.

    Returns:
        The weights as PEFT's adapters name them, or all weights; the method with the layers that
        the checkpoint has.

    Raises:
        UserError: The checkpoint, the base and the method do not fit.
    """
    config = AutoConfig.from_pretrained(base, trust_remote_code=False)
    shapes = Stored(base).shapes
    is_lora = any("lora_" in name for name in found.weights)
    if is_lora == (method.name == "full"):
        holds, fix = ("LoRA", "qlora (or lora)") if is_lora else ("all weights of a model", "full")
        raise _unfit(found, f"it holds {holds}, the method is {method.name}", f"method.name: {fix}")
    named = {_plain(name): tensor for name, tensor in found.weights.items()}
    if has_internlm2_names(named):
        named = _in_llamas_layout(found, named, config)
    if is_lora:
        method = _fitted_lora(found, named, shapes, method)
        weights = {_PEFT + name: tensor for name, tensor in named.items()}
    else:
        weights = _fitted_full(found, named, shapes, config)
    copies = {name: t.to(torch.float32, copy=True).contiguous() for name, t in weights.items()}
    if odd := [name for name, tensor in copies.items() if not tensor.isfinite().all()]:
        wrong = f"{len(odd)} of its tensors hold infinite values or NaN: {_listed(odd)}"
        raise _unfit(found, wrong, "name an earlier checkpoint, from before training went wrong.")
    return copies, method


def _language_model(weights: Mapping[str, torch.Tensor], path: Path) -> Weights:
    """Return the weights without the name of the model they are in.

    Raises:
        UserError: There are others, such as LLaVA's image encoder.
    """
    others = Counter(name.split(".")[0] for name in weights if not name.startswith(_MODEL))
    if others:
        listed = ", ".join(f"{count} of {name}" for name, count in others.items())
        raise UserError(
            f"{path} holds other tensors than those of a language model (`llm.`): {listed}. Models "
            "that see images (LLaVA: `projector`, `visual_encoder`) cannot be converted.\n"
            "  Fix: name the checkpoint of a model of text alone."
        )
    return {name.removeprefix(_MODEL): tensor for name, tensor in weights.items()}


def _iteration(meta: Mapping[str, Any], path: Path) -> int:
    if isinstance(meta.get("iter"), int):
        return int(meta["iter"])
    named = re.search(r"iter_(\d+)", path.name)
    return int(named[1]) if named else 0


def _plain(name: str) -> str:
    """Return a name as PEFT saves it: without its prefix and the adapter's name."""
    name = name.removeprefix(_PEFT)
    if match := _LORA.fullmatch(name):
        return f"{match[1]}.{match[2]}" + ".weight" * (match[2] != "lora_magnitude_vector")
    match = _SAVED.fullmatch(name)
    return f"{match[1]}.{match[2]}" if match else name


def _in_llamas_layout(found: XTunerCheckpoint, named: Weights, config: PretrainedConfig) -> Weights:
    if not isinstance(config, LlamaConfig):
        raise _unfit(found, f"it is of InternLM2, the base is {config.model_type}", _OWN_BASE)
    try:
        return from_internlm2(named, config)
    except ValueError as error:
        raise _unfit(found, f"{error}", _OWN_BASE) from error


def _fitted_lora(found: XTunerCheckpoint, named: Weights, shapes: Shapes, method: Method) -> Method:
    """Return the method with the layers that were trained, after checking all of it."""
    layers: dict[str, Weights] = defaultdict(dict)
    saved = {}
    for name, tensor in named.items():
        layer, _, part = name.removesuffix(".weight").rpartition(".")
        if part.startswith("lora_"):
            layers[layer][part] = tensor
        else:
            saved[name] = tensor
    _require_shapes(found, saved, shapes)
    _require_scale(found, layers, method)
    _require_layers(found, layers, shapes, method)
    targets, whole = _kinds(layers), _kinds(name.rpartition(".")[0] for name in saved)
    for key, kinds in (("target_modules", targets), ("modules_to_save", whole)):
        said = getattr(method, key)
        if said != "all-linear" and set(said) != set(kinds):
            fix = f"method.{key}: [{', '.join(kinds)}]"
            raise _unfit(found, f"its {key} are {kinds or 'none'}, the method says {said}", fix)
    return method.model_copy(update={"target_modules": targets, "modules_to_save": whole})


def _require_scale(found: XTunerCheckpoint, layers: Mapping[str, Weights], method: Method) -> None:
    """Refuse another rank, and another scale where the checkpoint tells it."""
    ranks = {len(parts["lora_A"]) for parts in layers.values() if "lora_A" in parts}
    if ranks != {method.r}:
        told = " and ".join(map(str, sorted(ranks))) or "none"
        fix = f"method.r: {told}" if len(ranks) == 1 else "name a checkpoint with one rank"
        raise _unfit(found, f"its rank is {told}, the method says r: {method.r}", fix)
    if found.alpha not in (None, method.alpha):
        wrong = f"it was trained with lora_alpha={found.alpha:g}, the method says {method.alpha:g}"
        raise _unfit(found, wrong, f"method.alpha: {found.alpha:g}")
    if found.config and found.rslora != method.rslora:
        wrong = f"it was trained with use_rslora={found.rslora}, the method says {method.rslora}"
        raise _unfit(found, wrong, f"method.rslora: {str(found.rslora).lower()}")


def _require_layers(
    found: XTunerCheckpoint, layers: Mapping[str, Weights], shapes: Shapes, method: Method
) -> None:
    """Refuse layers that the base has not, of other shapes, or of a kind that is not complete."""
    for layer, parts in layers.items():
        weight = shapes.get(f"{layer}.weight")
        if weight is None or weight.dim() != 2:
            raise _unfit(found, f"the base has no linear layer {layer}", _OWN_BASE)
        expected = {"lora_A": (method.r, weight.shape[1]), "lora_B": (weight.shape[0], method.r)}
        if method.dora:
            expected["lora_magnitude_vector"] = (weight.shape[0],)  # type: ignore[assignment]
        shaped = {part: tuple(tensor.shape) for part, tensor in parts.items()}
        if shaped != expected:
            wrong = f"{layer} has {shaped}, expected {expected} for {_a_layer(weight)}"
            dora = "lora_magnitude_vector" in parts
            fix = f"method.dora: {str(dora).lower()}" if dora != method.dora else _OWN_BASE
            raise _unfit(found, wrong, fix)
    kinds = {f".{kind}.weight" for kind in _kinds(layers)}
    wanted = [name for name in shapes if any(name.endswith(kind) for kind in kinds)]
    if absent := [name for name in wanted if name.removesuffix(".weight") not in layers]:
        wrong = f"it lacks {len(absent)} of the {len(wanted)} layers it adapts: {_listed(absent)}"
        raise _unfit(found, wrong, "name a checkpoint that is complete, of this base")


def _fitted_full(
    found: XTunerCheckpoint, named: Weights, shapes: Shapes, config: PretrainedConfig
) -> Weights:
    """Return all weights, without what the model computes or has twice."""
    computed = {name for name in named if name.endswith(".inv_freq")}
    computed |= {"lm_head.weight"} if config.tie_word_embeddings else set()
    weights = {name: tensor for name, tensor in named.items() if name not in computed}
    if absent := sorted(shapes.keys() - weights.keys() - computed):
        raise _unfit(found, f"it lacks {len(absent)} weights: {_listed(absent)}", _OWN_BASE)
    _require_shapes(found, weights, shapes)
    return weights


def _require_shapes(found: XTunerCheckpoint, weights: Weights, shapes: Shapes) -> None:
    for name, tensor in weights.items():
        if name not in shapes:
            raise _unfit(found, f"the base has no weight {name}", f"{_OWN_BASE} {_NO_OTHERS}")
        if tensor.shape != shapes[name].shape:
            told = f"{name} is {list(tensor.shape)}, the base's {list(shapes[name].shape)}"
            raise _unfit(found, told, _OWN_BASE)


def _kinds(layers: Iterable[str]) -> list[str]:
    return sorted({layer.rpartition(".")[2] for layer in layers})


def _a_layer(weight: torch.Tensor) -> str:
    return f"a layer from {weight.shape[1]} to {weight.shape[0]}"


def _listed(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:3]) + (", ..." if len(listed) > 3 else "")


def _unfit(found: XTunerCheckpoint, wrong: str, fix: str) -> UserError:
    return UserError(f"{found.path} does not fit this experiment: {wrong}.\n  Fix: {fix}")
