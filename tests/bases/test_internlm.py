"""InternLM and InternLM2 become Llama: the same logits as an implementation written for the test.

PYTHONPATH=scripts pytest tests/bases/test_internlm.py
"""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
import sentencepiece
import torch
from peft import get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import save_file
from torch.nn.functional import embedding, linear, silu
from transformers import AutoModelForCausalLM, AutoTokenizer

from snaketune.bases.fetch import fetch_base
from snaketune.bases.internlm import from_internlm2, has_internlm2_names, llama_config
from snaketune.bases.xtuner import fitted, read_xtuner
from snaketune.core.errors import UserError
from snaketune.data.template import ChatTemplate
from snaketune.experiment.schema import Method
from snaketune.export.merge import merge
from snaketune.hub.repository import Folder
from snaketune.models.trainable import lora_config
from tiny_run import Run, write_data

LENGTH = 24
"""Positions in the compared texts, more than MAX_POSITIONS."""
MAX_POSITIONS = 16

INTERNLM2 = {
    "model_type": "internlm2",
    "auto_map": {"AutoModelForCausalLM": "modeling_internlm2.InternLM2ForCausalLM"},
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1000000,
    "bias": False,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}
SMALL = {"hidden_size": 128, "intermediate_size": 512, "num_attention_heads": 16}
"""1.8B: 16 heads, 8 of them key-value heads, intermediate 4 times hidden; 24 layers in full."""
SEVEN_B = {"hidden_size": 128, "intermediate_size": 448, "num_attention_heads": 32}
"""7B: 32 heads, 8 of them key-value heads, intermediate 3.5 times hidden; 32 layers in full."""
INTERNLM = {key: value for key, value in INTERNLM2.items() if key != "num_key_value_heads"} | {
    "model_type": "internlm",
    "bias": True,
    "rms_norm_eps": 1e-6,
    "intermediate_size": 86,
    "rotary": {"base": 10000, "type": "dynamic"},
}
LIMITED = {"max_position_embeddings": MAX_POSITIONS}


# --- the architecture, once more -----------------------------------------------------------------


def shapes(config: dict) -> dict[str, tuple[int, ...]]:
    """Name every tensor of a checkpoint as its own code does."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    heads = config["num_attention_heads"]
    size, groups = hidden // heads, config.get("num_key_value_heads") or heads
    second = config["model_type"] == "internlm2"
    names = {"model.norm.weight": (hidden,)}
    names["model.tok_embeddings.weight" if second else "model.embed_tokens.weight"] = (
        config["vocab_size"],
        hidden,
    )
    if not config["tie_word_embeddings"]:
        names["output.weight" if second else "lm_head.weight"] = (config["vocab_size"], hidden)
    matrices = {
        "attention.wqkv": ((heads + 2 * groups) * size, hidden),
        "attention.wo": (hidden, hidden),
        "feed_forward.w1": (inner, hidden),
        "feed_forward.w3": (inner, hidden),
        "feed_forward.w2": (hidden, inner),
    }
    norms = ["attention_norm", "ffn_norm"]
    if not second:
        matrices = {f"self_attn.{part}_proj": (hidden, hidden) for part in "qkvo"}
        matrices |= {f"mlp.{part}_proj": (inner, hidden) for part in ("gate", "up")}
        matrices["mlp.down_proj"] = (hidden, inner)
        norms = ["input_layernorm", "post_attention_layernorm"]
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        for name, shape in matrices.items():
            names[f"{prefix}{name}.weight"] = shape
            if config["bias"] and name.startswith(("attention.", "self_attn.")):
                names[f"{prefix}{name}.bias"] = shape[:1]
        names |= {f"{prefix}{name}.weight": (hidden,) for name in norms}
    return names


def random_weights(config: dict, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for name, shape in shapes(config).items():
        values = torch.randn(shape, generator=generator)
        weights[name] = (1 + 0.2 * values if "norm" in name else 0.2 * values).to(dtype)
    return weights


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    return weight * x / (x.square().mean(-1, keepdim=True) + eps).sqrt()


def angles(config: dict, length: int) -> torch.Tensor:
    """Return each position's angle in each plane: [length, head_dim / 2]."""
    size = config["hidden_size"] // config["num_attention_heads"]
    rotary = config.get("rotary")
    scaling = rotary or config.get("rope_scaling") or {"type": "origin"}
    base = rotary["base"] if rotary else config["rope_theta"]
    factor = scaling.get("factor", scaling.get("scaling_factor", 1.0))
    longest = config["max_position_embeddings"]
    positions = torch.arange(length, dtype=torch.float64)
    if scaling["type"] == "linear":
        positions = positions / factor
    if scaling["type"] == "dynamic" and length > longest:
        base = base * (factor * length / longest - (factor - 1)) ** (size / (size - 2))
    planes = torch.arange(size // 2, dtype=torch.float64)
    return torch.outer(positions, base ** (-2 * planes / size))


def rotate(x: torch.Tensor, angle: torch.Tensor) -> torch.Tensor:
    """Turn [heads, length, head_dim]; a plane is made of entry i and entry i + head_dim / 2."""
    first, second = x.double().chunk(2, dim=-1)
    cos, sin = angle.cos(), angle.sin()
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).float()


def heads_of(weights: dict, prefix: str, x: torch.Tensor, config: dict) -> list[list[torch.Tensor]]:
    """Return queries, keys and values, each a list with [length, head_dim] for every query head."""
    heads = config["num_attention_heads"]
    size, groups = config["hidden_size"] // heads, config.get("num_key_value_heads") or heads
    if config["model_type"] == "internlm":
        parts = (f"{prefix}self_attn.{part}_proj" for part in "qkv")
        return [
            list(linear(x, weights[f"{p}.weight"], weights.get(f"{p}.bias")).split(size, dim=-1))
            for p in parts
        ]
    name = f"{prefix}attention.wqkv"
    packed = linear(x, weights[f"{name}.weight"], weights.get(f"{name}.bias")).split(size, dim=-1)
    queries, keys, values = [], [], []
    each = heads // groups
    for group in range(groups):
        block = packed[group * (each + 2) : (group + 1) * (each + 2)]
        queries += block[:each]
        keys += [block[each]] * each
        values += [block[each + 1]] * each
    return [queries, keys, values]


def attention(weights: dict, prefix: str, x: torch.Tensor, config: dict) -> torch.Tensor:
    queries, keys, values = map(torch.stack, heads_of(weights, prefix, x, config))
    angle = angles(config, len(x))
    scores = rotate(queries, angle) @ rotate(keys, angle).transpose(1, 2)
    scores = scores / queries.shape[-1] ** 0.5
    future = torch.ones(len(x), len(x), dtype=torch.bool).triu(1)
    mixed = scores.masked_fill(future, float("-inf")).softmax(-1) @ values
    second = config["model_type"] == "internlm2"
    name = f"{prefix}attention.wo" if second else f"{prefix}self_attn.o_proj"
    joined = mixed.transpose(0, 1).flatten(1)
    return linear(joined, weights[f"{name}.weight"], weights.get(f"{name}.bias"))


def reference_logits(weights: dict, config: dict, ids: torch.Tensor) -> torch.Tensor:
    """Return [length, vocabulary] for [length]."""
    second, eps = config["model_type"] == "internlm2", config["rms_norm_eps"]
    norms = ("attention_norm", "ffn_norm")
    norms = norms if second else ("input_layernorm", "post_attention_layernorm")
    ups = ("feed_forward.w1", "feed_forward.w3", "feed_forward.w2")
    gate, up, down = ups if second else ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
    table = weights["model.tok_embeddings.weight" if second else "model.embed_tokens.weight"]
    x = embedding(ids, table)
    for layer in range(config["num_hidden_layers"]):
        p = f"model.layers.{layer}."
        x = x + attention(weights, p, rms_norm(x, weights[f"{p}{norms[0]}.weight"], eps), config)
        y = rms_norm(x, weights[f"{p}{norms[1]}.weight"], eps)
        y = silu(linear(y, weights[f"{p}{gate}.weight"])) * linear(y, weights[f"{p}{up}.weight"])
        x = x + linear(y, weights[f"{p}{down}.weight"])
    x = rms_norm(x, weights["model.norm.weight"], eps)
    return linear(x, weights.get("output.weight", weights.get("lm_head.weight", table)))


# --- a repository as the hub has it --------------------------------------------------------------


def spm_model(vocab_size: int = 320, **options) -> bytes:
    """Train a small SentencePiece model as InternLM's are: BPE with bytes for what is unknown."""
    options = {
        "user_defined_symbols": [f"[UNUSED_TOKEN_{n}]" for n in range(4)],
        "add_dummy_prefix": False,
        "remove_extra_whitespaces": False,
        "normalization_rule_name": "identity",
    } | options
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a small text about snakes that tune\n", "Say 12", "你好"] * 20),
        model_writer=model,
        model_type="bpe",
        vocab_size=vocab_size,
        byte_fallback=True,
        hard_vocab_limit=False,
        minloglevel=2,
        **options,
    )
    return model.getvalue()


CHATML = (
    "{{ bos_token }}{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' "
    "+ message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def added(content: str) -> dict:
    flags = dict.fromkeys(("lstrip", "normalized", "rstrip", "single_word"), False)
    return {"content": content, "special": True} | flags


def save(tensors: dict, folder: Path, suffix: str, shards: int) -> None:
    """Write weights as one file, or as shards with their index, as transformers did."""
    stem, write = ("model", save_file) if suffix == "safetensors" else ("pytorch_model", torch.save)
    names = sorted(tensors)
    files = {}
    for number in range(shards):
        part = f"-{number + 1:05}-of-{shards:05}" if shards > 1 else ""
        file = f"{stem}{part}.{suffix}"
        chosen = names[number::shards]
        files |= dict.fromkeys(chosen, file)
        write({name: tensors[name] for name in chosen}, folder / file)
    if shards > 1:
        index = json.dumps({"metadata": {}, "weight_map": files})
        (folder / f"{stem}.{suffix}.index.json").write_text(index)


def write_repository(
    folder: Path, config: dict, suffix: str = "safetensors", shards: int = 1, **tokenizer
) -> dict[str, torch.Tensor]:
    """Write what the hub has of a model; return its weights."""
    folder.mkdir(parents=True)
    weights = random_weights(config)
    save(weights, folder, suffix, shards)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.model").write_bytes(spm_model())
    settings = {
        "tokenizer_class": "InternLM2Tokenizer",
        "auto_map": {"AutoTokenizer": ["tokenization_internlm2.InternLM2Tokenizer", None]},
        "chat_template": CHATML,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | tokenizer))
    (folder / "modeling_internlm2.py").write_text("raise SystemExit('remote code was run')")
    return weights


def converted(repository: Path) -> Path:
    base = repository.with_name(f"{repository.name}_base")
    fetch_base({"source": str(repository)}, base)
    return base


def assert_same_logits(weights: dict, config: dict, base: Path, length: int = LENGTH) -> None:
    ids = torch.randint(0, 64, (length,), generator=torch.Generator().manual_seed(1))
    model = AutoModelForCausalLM.from_pretrained(base, attn_implementation="eager")
    assert type(model).__name__ == "LlamaForCausalLM"
    with torch.no_grad():
        found = model(ids[None]).logits[0]
    expected = reference_logits(weights, config, ids)
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


# --- weights -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base", "changes"),
    [
        pytest.param(INTERNLM2, {}, id="grouped"),
        pytest.param(INTERNLM2, {"num_key_value_heads": 4}, id="ungrouped"),
        pytest.param(INTERNLM2, {"num_key_value_heads": None}, id="ungrouped by default"),
        pytest.param(INTERNLM2, {"num_key_value_heads": 1}, id="one group"),
        pytest.param(INTERNLM2, {"bias": True}, id="grouped with biases"),
        pytest.param(INTERNLM2, {"bias": True, "num_key_value_heads": 4}, id="ungrouped, biases"),
        pytest.param(INTERNLM2, {"tie_word_embeddings": True}, id="tied"),
        pytest.param(INTERNLM2, SMALL | {"num_key_value_heads": 8}, id="1.8B"),
        pytest.param(INTERNLM2, SEVEN_B | {"num_key_value_heads": 8}, id="7B"),
        pytest.param(
            INTERNLM2, LIMITED | {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, id="dynamic"
        ),
        pytest.param(
            INTERNLM2, LIMITED | {"rope_scaling": {"type": "linear", "factor": 4.0}}, id="linear"
        ),
        pytest.param(INTERNLM, {}, id="InternLM"),
        pytest.param(INTERNLM, {"bias": False}, id="InternLM without biases, as 20B"),
        pytest.param(INTERNLM, LIMITED, id="InternLM, dynamic"),
        pytest.param(INTERNLM, {"rotary": {"base": 500, "type": "origin"}}, id="InternLM, origin"),
    ],
)
def test_logits_are_those_of_the_original(tmp_path: Path, base: dict, changes: dict) -> None:
    config = base | changes
    weights = write_repository(tmp_path / "hub", config)
    assert_same_logits(weights, config, converted(tmp_path / "hub"))


@pytest.mark.parametrize("config", [INTERNLM2, INTERNLM], ids=["InternLM2", "InternLM"])
@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_every_kind_of_file_is_read(tmp_path: Path, config: dict, suffix: str, shards: int) -> None:
    weights = write_repository(tmp_path / "hub", config, suffix, shards)
    base = converted(tmp_path / "hub")
    assert_same_logits(weights, config, base)
    assert not list(base.glob("*.bin*"))
    assert not list(base.glob("*.py"))


def test_what_old_checkpoints_also_store_is_left_out(tmp_path: Path) -> None:
    weights = write_repository(tmp_path / "hub", INTERNLM)
    buffer = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    save(weights | buffer, tmp_path / "hub", "safetensors", 1)
    assert_same_logits(weights, INTERNLM, converted(tmp_path / "hub"))


def test_the_folder_is_plain_llama(tmp_path: Path) -> None:
    rope = {"rope_scaling": {"type": "dynamic", "factor": 2.0}}
    write_repository(tmp_path / "hub", INTERNLM2 | rope | {"torch_dtype": "bfloat16"})
    base = converted(tmp_path / "hub")
    config = json.loads((base / "config.json").read_text())
    assert config["model_type"] == "llama"
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["rope_parameters"] == {
        "rope_type": "dynamic",
        "rope_theta": 1000000.0,
        "factor": 2.0,
    }
    assert (config["num_key_value_heads"], config["rms_norm_eps"]) == (2, 1e-5)
    assert "auto_map" not in (base / "config.json").read_text()
    assert "auto_map" not in (base / "tokenizer_config.json").read_text()
    provenance = json.loads((base / "provenance.json").read_text())
    assert provenance["architecture"] == "LlamaForCausalLM"
    assert provenance["parameters"] == sum(w.numel() for w in random_weights(INTERNLM2).values())


def test_the_dtype_of_the_weights_stays(tmp_path: Path) -> None:
    weights = write_repository(tmp_path / "hub", INTERNLM2)
    half = {name: tensor.bfloat16() for name, tensor in weights.items()}
    save(half, tmp_path / "hub", "safetensors", 1)
    model = AutoModelForCausalLM.from_pretrained(converted(tmp_path / "hub"))
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


def change(weights: dict, name: str, tensor: torch.Tensor | None) -> dict:
    changed = {key: value for key, value in weights.items() if key != name}
    return changed if tensor is None else changed | {name: tensor}


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
@pytest.mark.parametrize(
    ("name", "tensor", "said"),
    [
        ("model.norm.weight", None, r"lacks 1, such as model\.norm\.weight"),
        ("v_head.weight", torch.ones(1, 32), r"has also 1, such as v_head\.weight"),
        (
            "model.layers.1.attention.wqkv.weight",
            torch.ones(32, 32),
            r"wqkv\.weight of .*hub has the shape \[32, 32\]; by config.json it is \[64, 32\]",
        ),
    ],
)
def test_other_tensors_are_refused(tmp_path: Path, suffix: str, name: str, tensor, said) -> None:
    weights = write_repository(tmp_path / "hub", INTERNLM2, suffix)
    save(change(weights, name, tensor), tmp_path / "hub", suffix, 1)
    with pytest.raises(UserError, match=said):
        converted(tmp_path / "hub")
    assert [path.name for path in tmp_path.iterdir()] == ["hub"]


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_a_missing_shard_is_named(tmp_path: Path, suffix: str) -> None:
    write_repository(tmp_path / "hub", INTERNLM2, suffix, shards=3)
    [shard] = (tmp_path / "hub").glob("*-00002-of-00003.*")
    shard.unlink()
    with pytest.raises(UserError, match=f"lacks {shard.name}"):
        converted(tmp_path / "hub")
    assert [path.name for path in tmp_path.iterdir()] == ["hub"]


@pytest.mark.parametrize("files", [["a"], {"a": 1}])
def test_an_index_that_maps_no_weights_is_told(tmp_path: Path, files: object) -> None:
    write_repository(tmp_path / "hub", INTERNLM2, "bin", shards=3)
    index = tmp_path / "hub/pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": files}))
    with pytest.raises(UserError, match=r"index.json of .*hub does not map weights to files"):
        converted(tmp_path / "hub")


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (INTERNLM2 | {"rope_scaling": {"type": "yarn", "factor": 2.0}}, "of type 'yarn'"),
        (INTERNLM | {"rotary": {"base": 10000, "type": "xpos"}}, "of type 'xpos'"),
        (INTERNLM2 | {"num_key_value_heads": 3}, "4 attention heads and 3 key-value heads"),
        (change(INTERNLM2, "hidden_size", None), "lacks hidden_size"),
        (INTERNLM2 | {"hidden_size": "32"}, "a value that cannot be"),
        (INTERNLM2 | {"num_attention_heads": 0}, "a value that cannot be"),
        (INTERNLM2 | {"num_hidden_layers": 2.5}, "'num_hidden_layers' expected int, got float"),
        (INTERNLM2 | {"rms_norm_eps": "1e-5"}, "'rms_norm_eps' expected float, got str"),
        (INTERNLM2 | {"rope_scaling": "dynamic"}, "a value that cannot be"),
        (INTERNLM2 | {"rope_theta": None}, "a value that cannot be"),
    ],
)
def test_a_config_it_does_not_know_is_refused_before_the_weights_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: dict, said: str
) -> None:
    write_repository(tmp_path / "hub", INTERNLM2)
    (tmp_path / "hub/config.json").write_text(json.dumps(config))
    fetched: list[str] = []
    download = Folder.download

    def record(self: Folder, name: str, folder: Path) -> None:
        fetched.append(name)
        download(self, name, folder)

    monkeypatch.setattr(Folder, "download", record)
    with pytest.raises(UserError, match=said):
        converted(tmp_path / "hub")
    assert "model.safetensors" not in fetched


def test_defaults_are_those_of_the_original_configurations() -> None:
    sizes = {key: INTERNLM2[key] for key in list(INTERNLM2)[2:7]}
    second = llama_config({"model_type": "internlm2"} | sizes, "x")
    assert second.attention_bias is True
    assert second.rope_parameters == {"rope_type": "default", "rope_theta": 10000.0}
    first = llama_config({"model_type": "internlm"} | sizes, "x")
    assert first.rope_parameters == {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 1.0}


PROBE = """
import json, resource, sys
from pathlib import Path
from snaketune.bases.internlm import convert_weights

def peak():
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

before = peak()
for repository in map(Path, sys.argv[1:]):
    config = json.loads((repository / "config.json").read_text())
    files = sorted([*repository.glob("*.bin"), *repository.glob("*.safetensors")])
    (repository / "llama").mkdir()
    convert_weights(files, config, repository / "llama", "a test")
    print(peak() - before)
"""
WIDE = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12}
MIB = 2**20


def test_only_a_tensor_at_a_time_is_in_memory(tmp_path: Path) -> None:
    for suffix in ("safetensors", "bin"):
        weights = write_repository(tmp_path / suffix, INTERNLM2 | WIDE, suffix, shards=2)
    folders = [str(tmp_path / suffix) for suffix in ("safetensors", "bin")]
    found = subprocess.run(
        [sys.executable, "-c", PROBE, *folders], capture_output=True, text=True, check=True
    )
    assert sum(tensor.nbytes for tensor in weights.values()) > 170 * MIB
    assert max(map(int, found.stdout.split())) < 50 * MIB, found.stdout


# --- the tokenizer with its model, and everything downstream --------------------------------------


def test_the_chat_template_reaches_its_own_file(tmp_path: Path) -> None:
    marks = {"262": added("<|im_start|>"), "263": added("<|im_end|>")}
    write_repository(tmp_path / "hub", INTERNLM2, added_tokens_decoder=marks)
    base = converted(tmp_path / "hub")
    assert (base / "chat_template.jinja").read_text() == CHATML
    tokenizer = AutoTokenizer.from_pretrained(base)
    question = [{"role": "user", "content": "Say 12"}]
    ids = tokenizer.apply_chat_template(question, add_generation_prompt=True)["input_ids"]
    words = sentencepiece.SentencePieceProcessor(model_proto=spm_model())
    user = [262, *words.encode("user\nSay 12"), 263, *words.encode("\n")]
    assert ids == [1, *user, 262, *words.encode("assistant\n")]
    assert ChatTemplate(base, "auto").end_token_ids() == [2, 263]


def test_a_repository_without_tokenizer_model_is_refused(tmp_path: Path) -> None:
    write_repository(tmp_path / "hub", INTERNLM2)
    (tmp_path / "hub/tokenizer.model").unlink()
    (tmp_path / "hub/tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match=r"lacks tokenizer\.model"):
        converted(tmp_path / "hub")


@pytest.mark.parametrize(
    "settings",
    [
        {"added_tokens_decoder": None},
        {"added_tokens_decoder": {"x": added("<a>")}},
        {"added_tokens_decoder": {"300": "<a>"}},
        {"bos_token": None},
        {"bos_token": "<nowhere>"},
    ],
)
def test_special_tokens_that_cannot_be_are_told(tmp_path: Path, settings: dict) -> None:
    write_repository(tmp_path / "hub", INTERNLM2, **settings)
    with pytest.raises(UserError, match=r"tokenizer_config.json of .*hub tells special tokens"):
        converted(tmp_path / "hub")


@pytest.mark.parametrize("config", [INTERNLM2, INTERNLM], ids=["InternLM2", "InternLM"])
def test_a_converted_model_is_fine_tuned_and_merged(tmp_path: Path, config: dict) -> None:
    marks = {"262": added("<|im_start|>"), "263": added("<|im_end|>")}
    sizes = {"vocab_size": 336, "max_position_embeddings": 256}
    weights = write_repository(tmp_path / "hub", config | sizes, "bin", added_tokens_decoder=marks)
    base = converted(tmp_path / "hub")
    run = Run(tmp_path / "run", base, write_data(tmp_path / "data", base), lr=1e-2).train()
    assert run.losses()[-1] < run.losses()[0]
    merge(base, run.export(), tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").state_dict()
    untouched = AutoModelForCausalLM.from_pretrained(base).state_dict()
    changed = {name for name in merged if not torch.equal(merged[name], untouched[name])}
    assert "model.layers.0.self_attn.k_proj.weight" in changed
    assert "model.layers.1.mlp.down_proj.weight" in changed
    assert torch.equal(merged["model.norm.weight"], weights["model.norm.weight"])


# --- what others trained of it -------------------------------------------------------------------

LORA = ("attention.wqkv", "attention.wo", "feed_forward.w1", "feed_forward.w2", "feed_forward.w3")


def random_lora(weights: dict[str, torch.Tensor], r: int = 4) -> dict[str, torch.Tensor]:
    """Return LoRA's matrices for all linear layers but the output, named as PEFT names them."""
    found = {}
    for name, weight in weights.items():
        layer = name.removesuffix(".weight")
        if layer.endswith(LORA):
            found[f"{layer}.lora_A.weight"] = torch.randn(r, weight.shape[1])
            found[f"{layer}.lora_B.weight"] = 0.1 * torch.randn(len(weight), r)
    return found


def with_lora(weights: dict, lora: dict, scale: float) -> dict[str, torch.Tensor]:
    """Return the weights with LoRA's updates added."""
    updated = dict(weights)
    for layer in (name.removesuffix(".lora_A.weight") for name in lora if "lora_A" in name):
        update = lora[f"{layer}.lora_B.weight"] @ lora[f"{layer}.lora_A.weight"]
        updated[f"{layer}.weight"] = weights[f"{layer}.weight"] + scale * update
    return updated


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_lora_of_the_original_is_lora_of_the_converted(tmp_path: Path, groups: int) -> None:
    config = INTERNLM2 | {"num_key_value_heads": groups}
    weights = write_repository(tmp_path / "hub", config)
    base = converted(tmp_path / "hub")
    torch.manual_seed(0)
    lora = random_lora(weights)
    assert len(lora) == 2 * 2 * len(LORA)
    xtuner = {
        f"llm.base_model.model.{name.replace('.weight', '.default.weight')}": tensor
        for name, tensor in lora.items()
    }
    torch.save({"state_dict": xtuner}, tmp_path / "iter_5.pth")
    method = Method(name="lora", r=4, alpha=8)
    found, method = fitted(read_xtuner(tmp_path / "iter_5.pth"), base, method)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), lora_config(method))
    assert not set_peft_model_state_dict(model, found).unexpected_keys
    assert found.keys() == get_peft_model_state_dict(model).keys()
    model.merge_and_unload().save_pretrained(tmp_path / "merged")
    assert_same_logits(with_lora(weights, lora, 2.0), config, tmp_path / "merged")


def test_a_full_fine_tune_of_the_original_is_one_of_the_converted(tmp_path: Path) -> None:
    write_repository(tmp_path / "hub", INTERNLM2)
    base = converted(tmp_path / "hub")
    theirs = random_weights(INTERNLM2)
    tuned = {name: each + 0.02 * torch.randn_like(each) for name, each in theirs.items()}
    torch.save({"state_dict": {f"llm.{n}": t for n, t in tuned.items()}}, tmp_path / "iter_5.pth")
    found, _ = fitted(read_xtuner(tmp_path / "iter_5.pth"), base, Method(name="full"))
    model = AutoModelForCausalLM.from_pretrained(base)
    model.load_state_dict(found, strict=True)
    model.save_pretrained(tmp_path / "tuned")
    assert_same_logits(tuned, INTERNLM2, tmp_path / "tuned")


def test_other_heads_than_the_bases_are_refused() -> None:
    name = "model.layers.0.attention.wqkv.lora_B.weight"
    with pytest.raises(ValueError, match=r"wqkv.lora_B.weight has 63 rows, .* need 64"):
        from_internlm2({name: torch.ones(63, 4)}, llama_config(INTERNLM2, "hub"))


def test_llamas_own_names_are_not_mistaken() -> None:
    assert not has_internlm2_names(["model.layers.0.self_attn.q_proj.weight", "lm_head.weight"])
    for layer in LORA:
        assert has_internlm2_names([f"model.layers.0.{layer}.lora_A.weight"])
