"""The base model stage: any source becomes one folder of safetensors, config and tokenizer.

No code that comes with a model is ever run: neither a pickle's nor a repository's Python.
"""

import json
import logging
from collections import ChainMap, Counter
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import torch
from gguf import GGUFReader
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer
from tokenizers.pre_tokenizers import Digits, Sequence
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedTokenizerBase,
    __version__,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from snaketune import hub
from snaketune.bases import internlm, spm
from snaketune.bases.pickles import convert_pickles
from snaketune.core.errors import UserError
from snaketune.core.files import (
    atomic_folder,
    inventory,
    read_json,
    require_free_space,
    write_json,
    write_text,
)
from snaketune.core.layout import PROVENANCE
from snaketune.core.manifest import FileEntry

log = logging.getLogger(__name__)

_DTYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}
_FORMATS = (".safetensors", ".bin")
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
_OTHER_MACHINES = ("auto_map", "_name_or_path", "_model_name_or_path")
"""Keys that point to the author's Python files or folders."""


def fetch_base(spec: dict[str, Any], output: Path) -> None:
    """Write a base model's folder: weights, config, tokenizer, chat template and provenance.json.

    The same spec gives the same bytes again; provenance.json holds no times.

    Args:
        spec: `source`, and perhaps `revision` and `sha256`, as in catalog/models.yaml.
        output: The folder to make; replaced when it is there.

    Raises:
        UserError: The source cannot be reached, is incomplete or damaged, or would need code of
            its own to run; `output` is as it was before.
    """
    source, revision = spec["source"], spec.get("revision")
    with atomic_folder(output) as folder, hub.resumable_download(output, spec) as download:
        fetched = hub.fetch(
            source,
            revision,
            download,
            expected_sha256=spec.get("sha256"),
            check=partial(_check_config, source),
        )
        ggufs = [name for name in fetched.files if name.endswith(".gguf")]
        if ggufs:
            _convert_gguf(download / ggufs[0], folder)
        else:
            _bring(fetched.files, download, folder, source)
            _complete(folder, source)
        architecture, parameters, dtype = _summary(folder, source)
        provenance = hub.Provenance(
            source=source,
            revision=revision,
            sha256=fetched.sha256,
            architecture=architecture,
            parameters=parameters,
            dtype=dtype,
            files=tuple(map(FileEntry.model_validate, inventory(folder))),
        )
        provenance.write(folder / PROVENANCE)
        message = "%s: %s with %.1f million parameters in %s"
        log.info(message, source, architecture, parameters / 1e6, dtype)


def _check_config(source: str, folder: Path) -> None:
    """Refuse a model that this program could not train, before its weights are downloaded."""
    config = _read(folder / "config.json", source)
    kind = config.get("model_type")
    if "quantization_config" in config:
        settings = config["quantization_config"]
        method = settings.get("quant_method", "already") if isinstance(settings, dict) else settings
        raise UserError(
            f"the weights of {source} are quantised ({method}): an adapter trained on them cannot "
            "be merged exactly.\n"
            "  Fix: name the model in bf16 or fp16; method: {name: qlora} makes it 4-bit itself."
        )
    if kind in internlm.KINDS:
        internlm.llama_config(config, source)
        return
    if kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return
    if "auto_map" in config:
        raise UserError(
            f"{source} ('{kind}') only works with Python code from its own repository, and "
            "SnakeTune never runs such code.\n"
            "  Fix: name a model whose architecture transformers knows; many have a copy named -hf."
        )
    raise UserError(
        f"transformers {__version__} knows no language model of type '{kind}' ({source}).\n"
        "  Fix: name a causal language model, or upgrade transformers if it is new."
    )


def _convert_gguf(path: Path, folder: Path) -> None:
    """Dequantise a GGUF file to bf16, which the small models packed this way were trained in."""
    reader = GGUFReader(path)
    parameters = sum(int(tensor.n_elements) for tensor in reader.tensors)
    require_free_space(folder, 2 * parameters, f"{path.name} in bf16")
    log.info("dequantising %s: %.1f million parameters", path.name, parameters / 1e6)
    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name)
    # without these two, save_pretrained refuses a dequantised model
    del model.config.quantization_config
    model.hf_quantizer = None  # type: ignore[assignment]
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model.bfloat16().save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)  # safetensors writes 0600; the store is shared
    _restore_digits(tokenizer, reader, path)
    tokenizer.model_max_length = model.config.max_position_embeddings
    _save_tokenizer(tokenizer, folder)
    _drop_keys(folder / "config.json", _OTHER_MACHINES)


def _restore_digits(tokenizer: PreTrainedTokenizerBase, reader: GGUFReader, path: Path) -> None:
    """Put back SmolLM's split of numbers into digits, which transformers' GGUF loader leaves out.

    Without it `\\n\\n1` becomes other tokens than those the model was trained on. llama.cpp calls
    this pre-tokeniser `smollm`; for other names nobody has compared the two.

    Raises:
        UserError: The file names another pre-tokeniser.
    """
    field = reader.get_field("tokenizer.ggml.pre")
    found = field.contents() if field else None
    if found != "smollm":
        raise UserError(
            f"the tokenizer of {path.name} is of type '{found}'; from a GGUF file only 'smollm' is "
            "known to convert exactly.\n"
            "  Fix: name the model's safetensors version, as hf: or modelscope:."
        )
    backend = tokenizer.backend_tokenizer
    backend.pre_tokenizer = Sequence([Digits(individual_digits=True), backend.pre_tokenizer])


def _bring(names: list[str], download: Path, folder: Path, source: str) -> None:
    """Move a hub's files to the model's folder, with weights that need neither pickles nor code.

    Safetensors of an architecture that transformers knows stay as they are.
    """
    config = _read(download / "config.json", source)
    weights = [download / name for name in names if name.endswith(_FORMATS)]
    for index in download.glob(f"*{weights[0].suffix}.index.json"):
        _require_shards(index, source)
    beside = [name for name in names if not name.endswith((*_FORMATS, ".index.json"))]
    if config.get("model_type") in internlm.KINDS:
        tokenizer = _spm_tokenizer(download, source)
        internlm.convert_weights(weights, config, folder, source)
        hub.move_files(set(beside) - {"config.json", *_TOKENIZER_FILES}, download, folder)
        _save_tokenizer(tokenizer, folder)
    elif weights[0].suffix == ".bin":
        convert_pickles(weights, folder, drop=_tied(download))
        hub.move_files(beside, download, folder)
    else:
        hub.move_files(
            [name for name in names if not name.endswith(".bin.index.json")], download, folder
        )


def _tied(folder: Path) -> list[str]:
    """Return the tensors that are another one by config.json; pickles list them all the same."""
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    return list(model.all_tied_weights_keys)


def _spm_tokenizer(folder: Path, source: str) -> PreTrainedTokenizerBase:
    if not (folder / "tokenizer.model").exists():
        raise UserError(
            f"{source} lacks tokenizer.model, from which InternLM's tokenizer is converted.\n"
            "  Fix: name a repository or revision that has it."
        )
    log.info("converting the tokenizer of %s to tokenizer.json", source)
    names = ("special_tokens_map.json", "tokenizer_config.json")
    configs = [_read(folder / name, source) for name in names if (folder / name).exists()]
    try:
        return spm.read_tokenizer(folder / "tokenizer.model", dict(ChainMap(*reversed(configs))))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"tokenizer_config.json of {source} tells special tokens that cannot be: {error}.\n"
            "  Fix: name a repository with the model's original tokenizer files."
        ) from error


def _complete(folder: Path, source: str) -> None:
    """Add what a hub's folder lacks, and drop what points back to where it came from."""
    _drop_keys(folder / "config.json", _OTHER_MACHINES)
    _drop_keys(folder / "tokenizer_config.json", ("auto_map",))
    if not (folder / "generation_config.json").exists():
        config = _read(folder / "config.json", source)
        keys = ("bos_token_id", "eos_token_id", "pad_token_id")
        GenerationConfig(**{key: config.get(key) for key in keys}).save_pretrained(folder)
    if not all((folder / name).exists() for name in ("tokenizer.json", "tokenizer_config.json")):
        _convert_tokenizer(folder, source)
    _require_tokenizer(folder / "tokenizer.json", source)
    _extract_chat_template(folder, source)


def _require_shards(index: Path, source: str) -> None:
    files = _read(index, source).get("weight_map", {})
    if not isinstance(files, dict) or not all(isinstance(name, str) for name in files.values()):
        raise UserError(
            f"{index.name} of {source} does not map weights to files.\n"
            "  Fix: fetch that file again."
        )
    names = set(files.values())
    missing = sorted(name for name in names if not (index.parent / name).is_file())
    whole = index.with_name(index.name.removesuffix(".index.json"))
    if missing and not whole.is_file():
        raise UserError(
            f"{source} lacks {', '.join(missing)}, which {index.name} names.\n"
            "  Fix: complete that folder or repository, or name another revision."
        )


def _convert_tokenizer(folder: Path, source: str) -> None:
    log.info("converting the tokenizer of %s to tokenizer.json", source)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        _save_tokenizer(tokenizer, folder)
    except (OSError, ValueError, ImportError, AttributeError, KeyError, TypeError) as error:
        raise UserError(
            f"the tokenizer of {source} cannot be converted to tokenizer.json: {error}\n"
            "  Fix: name a revision that has tokenizer.json."
        ) from error


def _save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Save it under the class name that transformers 4 and other readers know too."""
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    _drop_keys(path, ("backend", "is_local", "local_files_only"))
    config = json.loads(path.read_text(encoding="utf-8"))
    write_json(path, config | {"tokenizer_class": "PreTrainedTokenizerFast"})


def _require_tokenizer(path: Path, source: str) -> None:
    try:
        Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises no narrower class
        raise UserError(
            f"tokenizer.json of {source} cannot be read: {error}\n"
            "  Fix: fetch that file again, or name another revision."
        ) from error


def _extract_chat_template(folder: Path, source: str) -> None:
    """Write chat_template.jinja from tokenizer_config.json, where older models keep it."""
    path = folder / "chat_template.jinja"
    template = _read(folder / "tokenizer_config.json", source).get("chat_template")
    if isinstance(template, list):
        named = {entry["name"]: entry["template"] for entry in template}
        template = named.get("default")
    if template and not path.exists():
        write_text(path, template)


def _summary(folder: Path, source: str) -> tuple[str, int, str]:
    """Read architecture, parameter count and main dtype from the file headers."""
    counts: Counter[str] = Counter()
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="np") as weights:
                for name in weights.keys():  # noqa: SIM118 (no dict)
                    tensor = weights.get_slice(name)
                    counts[tensor.get_dtype()] += prod(tensor.get_shape())
        except SafetensorError as error:
            raise UserError(
                f"{path.name} of {source} is damaged: {error}.\n  Fix: fetch that file again."
            ) from error
    config = _read(folder / "config.json", source)
    known = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[config["model_type"]]
    dtype = counts.most_common(1)[0][0]
    architecture = (config.get("architectures") or [known])[0]
    return architecture, counts.total(), _DTYPES.get(dtype, dtype)


def _drop_keys(path: Path, keys: tuple[str, ...]) -> None:
    """Rewrite a JSON file without some keys; leave its bytes alone if it has none of them."""
    if not path.exists():
        return
    values = read_json(path)
    if any(key in values for key in keys):
        write_json(path, {key: value for key, value in values.items() if key not in keys})


def _read(path: Path, source: str) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(
            f"{path.name} of {source} is not JSON: {error}.\n  Fix: fetch that file again."
        ) from error
    if not isinstance(values, dict):
        raise UserError(
            f"{path.name} of {source} is {type(values).__name__}, expected an object.\n"
            "  Fix: name a repository that transformers can load."
        )
    return values
