"""A GGUF against its merged model: in transformers' own loader, and in llama.cpp where it is."""

import json
import shutil
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
)

from model_records import write_record
from snaketune.core.errors import UserError
from snaketune.core.manifest import require_intact, write_manifest
from snaketune.export.gguf import export_gguf

IDS = torch.arange(5, 105)[None]
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}
DYNAMIC = LINEAR | {"rope_type": "dynamic"}
MODELS = {
    "llama": (LlamaConfig, {"tie_word_embeddings": False}),
    "llama, tied, ungrouped": (
        LlamaConfig,
        {"tie_word_embeddings": True, "num_key_value_heads": 4},
    ),
    "llama, biases": (LlamaConfig, {"attention_bias": True, "mlp_bias": True}),
    "llama, head of another size": (LlamaConfig, {"head_dim": 32}),
    "llama, rope of llama 3": (LlamaConfig, {"rope_parameters": LLAMA3}),
    "llama, linear rope": (LlamaConfig, {"rope_parameters": LINEAR}),
    "llama, dynamic rope": (LlamaConfig, {"rope_parameters": DYNAMIC}),
    "mistral": (MistralConfig, {"sliding_window": None}),
    "qwen2": (Qwen2Config, {"tie_word_embeddings": True}),
    "qwen3": (Qwen3Config, {"head_dim": 128}),
}
SIZES = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "pad_token_id": 2,
}
LEFT_OUT_BY_TRANSFORMERS = ("biases", "rope", "head of another size")
"""What its GGUF loader (5.23) does not read; llama.cpp alone is the judge of these."""


@pytest.fixture(scope="session")
def make_merged(bases, tmp_path_factory):
    """Return a function that writes a random model as `merge` would."""

    def make(config, changes, dtype=torch.float32) -> Path:
        folder = tmp_path_factory.mktemp("merged") / "merged"
        shutil.copytree(bases["chatml"], folder)
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config(**SIZES | changes))
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, 1.0 if parameter.ndim == 1 else 0.0, 0.2)
        model.generation_config.eos_token_id = [0, 2]
        model.to(dtype).save_pretrained(folder)
        write_record(folder, "tiny")
        write_manifest(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def merged(make_merged):
    return make_merged(*MODELS["llama"])


@pytest.fixture
def output(tmp_path):
    return tmp_path / "out" / "gguf"


def read(folder: Path) -> gguf.GGUFReader:
    (file,) = folder.glob("*.gguf")
    return gguf.GGUFReader(file)


def tensors(folder: Path) -> dict[str, gguf.ReaderTensor]:
    return {tensor.name: tensor for tensor in read(folder).tensors}


def logits(folder: Path, **options) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **options)
    with torch.no_grad():
        return model.eval()(IDS).logits[0]


def llama_cpp(file: Path, **options):
    """Load a GGUF in llama.cpp: `pip install -e '.[gguf]'`."""
    module = pytest.importorskip("llama_cpp")
    return module.Llama(str(file), n_ctx=256, n_threads=1, verbose=False, **options)


@pytest.mark.parametrize(
    "name", [n for n in MODELS if not any(word in n for word in LEFT_OUT_BY_TRANSFORMERS)]
)
def test_transformers_own_loader_gives_the_logits_of_the_merged_model(make_merged, output, name):
    merged = make_merged(*MODELS[name])
    export_gguf(merged, output, "f32")
    found = logits(output, gguf_file="tiny-f32.gguf")
    torch.testing.assert_close(found, logits(merged), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_llama_cpp_gives_the_logits_of_the_merged_model(make_merged, output, name):
    merged = make_merged(*MODELS[name])
    export_gguf(merged, output, "f32")
    llm = llama_cpp(output / "tiny-f32.gguf", logits_all=True)
    llm.eval(IDS[0].tolist())
    found, expected = torch.from_numpy(llm.scores[: IDS.shape[1]]), logits(merged)
    # its key and value cache is f16
    assert (found - expected).pow(2).mean().sqrt() < 2e-3 * expected.std()


@pytest.mark.parametrize("dtype", ["f16", "bf16", "f32"])
def test_matrices_are_of_the_dtype_and_vectors_fp32(make_merged, output, dtype):
    merged = make_merged(*MODELS["llama, biases"])
    export_gguf(merged, output, dtype)
    expected = {"f16": torch.float16, "bf16": torch.bfloat16, "f32": torch.float32}[dtype]
    stored, found = load_file(merged / "model.safetensors"), tensors(output)
    assert len(found) == len(stored)
    for name, source in [("token_embd", "embed_tokens"), ("blk.1.ffn_up", "layers.1.mlp.up_proj")]:
        tensor = found[f"{name}.weight"]
        assert tensor.tensor_type.name == dtype.upper()
        values = torch.from_numpy(np.array(tensor.data).view(np.uint8)).view(expected)
        rounded = stored[f"model.{source}.weight"].to(expected)
        assert torch.equal(values.view(rounded.shape), rounded)
        assert tensor.shape.tolist() == list(reversed(rounded.shape))
    vectors = [tensor for tensor in found.values() if len(tensor.shape) == 1]
    assert len(vectors) == 2 * 9 + 1
    assert {tensor.tensor_type.name for tensor in vectors} == {"F32"}


def test_what_f16_cannot_hold_stays_fp32(make_merged, output):
    merged = make_merged(*MODELS["llama"], dtype=torch.bfloat16)
    weights = load_file(merged / "model.safetensors")
    weights["model.layers.0.mlp.down_proj.weight"][3, 4] = -1e5
    save_file(weights, merged / "model.safetensors", {"format": "pt"})
    write_manifest(merged)
    export_gguf(merged, output)
    types = {name: t.tensor_type.name for name, t in tensors(output).items() if len(t.shape) > 1}
    assert types.pop("blk.0.ffn_down.weight") == "F32"
    assert set(types.values()) == {"F16"}
    assert tensors(output)["blk.0.ffn_down.weight"].data.min() == torch.tensor(-1e5).bfloat16()


def test_the_file_says_what_it_is(merged, output):
    export_gguf(merged, output)
    found = {name: field.contents() for name, field in read(output).fields.items()}
    expected = {
        "general.architecture": "llama",
        "general.name": "tiny",
        "general.file_type": gguf.LlamaFileType.MOSTLY_F16,
        "llama.context_length": 256,
        "llama.embedding_length": 64,
        "llama.block_count": 2,
        "llama.feed_forward_length": 128,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2,
        "llama.rope.dimension_count": 16,
        "llama.rope.freq_base": 10000.0,
        "llama.vocab_size": 512,
        "tokenizer.chat_template": (merged / "chat_template.jinja").read_text(),
    }
    assert {name: found[name] for name in expected} == expected
    assert found["llama.attention.layer_norm_rms_epsilon"] == pytest.approx(1e-6)


def test_a_sliding_window_bounds_the_context(make_merged, output):
    export_gguf(make_merged(MistralConfig, {"sliding_window": 100}), output)
    assert read(output).fields["llama.context_length"].contents() == 100


def test_a_tied_head_that_is_stored_all_the_same_is_left_out(make_merged, output):
    merged = make_merged(*MODELS["llama, tied, ungrouped"])
    weights = load_file(merged / "model.safetensors")
    weights["lm_head.weight"] = torch.zeros_like(weights["model.embed_tokens.weight"])
    save_file(weights, merged / "model.safetensors", {"format": "pt"})
    write_manifest(merged)
    export_gguf(merged, output)
    assert "output.weight" not in tensors(output)


def test_the_folder_is_whole_and_the_same_again(merged, output, tmp_path):
    for folder in (output, tmp_path / "again"):
        export_gguf(merged, folder, "f32")
        require_intact(folder)
    assert sorted(file.name for file in output.iterdir()) == ["manifest.json", "tiny-f32.gguf"]
    once, again = (f / "tiny-f32.gguf" for f in (output, tmp_path / "again"))
    assert once.read_bytes() == again.read_bytes()


def change(merged: Path, file: str, **values) -> None:
    path = merged / file
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    write_manifest(merged)


YARN = LINEAR | {"rope_type": "yarn"}


@pytest.mark.parametrize(
    ("config", "changes", "message"),
    [
        (LlamaConfig, {"rope_parameters": YARN}, "rope scaling of type yarn"),
        (LlamaConfig, {"hidden_act": "gelu"}, "LlamaForCausalLM with gelu activation"),
        (Qwen3Config, {"attention_bias": True}, r"no place for the weight .*\w_proj.bias"),
    ],
)
def test_what_llama_cpp_would_run_otherwise_is_refused(
    make_merged, output, config, changes, message
):
    with pytest.raises(UserError, match=message):
        export_gguf(make_merged(config, changes), output)
    assert not output.exists()


def test_another_architecture_is_refused_with_those_that_work(merged, output, tmp_path):
    other = shutil.copytree(merged, tmp_path / "other")
    config = GPT2Config(architectures=["GPT2LMHeadModel"])
    (other / "config.json").write_text(config.to_json_string())
    write_manifest(other)
    with pytest.raises(UserError, match=r"a GPT2LMHeadModel .* LlamaForCausalLM, Mistral"):
        export_gguf(other, output)


def test_a_damaged_model_is_refused(merged, output, tmp_path):
    damaged = shutil.copytree(merged, tmp_path / "damaged")
    content = bytearray((damaged / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (damaged / "model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=r"model.safetensors has changed"):
        export_gguf(damaged, output)
    assert not output.exists()


def test_a_failure_leaves_what_was_there(merged, output, monkeypatch):
    export_gguf(merged, output)
    before = {file.name: file.read_bytes() for file in output.iterdir()}
    monkeypatch.setattr(gguf.GGUFWriter, "write_tensor_data", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export_gguf(merged, output)
    assert {file.name: file.read_bytes() for file in output.iterdir()} == before
    assert [file.name for file in output.parent.iterdir()] == ["gguf"]


PROMPTS = ("Who are you?", "What is the capital of France?", "Please count from one to five.")


@pytest.mark.pipeline
def test_the_embedded_model_answers_in_llama_cpp_as_in_transformers(embedded, tmp_path, output):
    pytest.importorskip("llama_cpp")
    merged = shutil.copytree(embedded, tmp_path / "merged")
    write_record(merged, "smollm2")
    write_manifest(merged)
    export_gguf(merged, output)
    llm = llama_cpp(output / "smollm2-f16.gguf")
    tokenizer = AutoTokenizer.from_pretrained(merged)
    model = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32)
    assert AutoConfig.from_pretrained(merged).tie_word_embeddings
    for prompt in PROMPTS:
        messages = [{"role": "user", "content": prompt}]
        ids = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )["input_ids"]
        expected = model.generate(ids, max_new_tokens=32, do_sample=False)[0, ids.shape[1] :]
        answer = llm.create_chat_completion(messages, temperature=0.0, max_tokens=32)
        assert answer["usage"]["prompt_tokens"] == ids.shape[1]
        assert llm.input_ids[: ids.shape[1]].tolist() == ids[0].tolist()
        found = llm.input_ids[ids.shape[1] : llm.n_tokens].tolist()
        assert found == expected[: len(found)].tolist()
        # the last token is not read back: it is the end, or the 32nd
        assert len(found) == len(expected) - 1
        ended = expected[-1].item() == tokenizer.eos_token_id
        assert answer["choices"][0]["finish_reason"] == ("stop" if ended else "length")
