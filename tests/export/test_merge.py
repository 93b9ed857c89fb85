"""Merging against PEFT's own merge, and what must stop it."""

import json
import shutil
import subprocess

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from snaketune.core.errors import UserError
from snaketune.core.files import read_json
from snaketune.core.manifest import write_manifest
from snaketune.experiment.schema import Export
from snaketune.export import merge as stage
from snaketune.export.merge import BOUNDS, merge
from snaketune.export.weight_delta import LowRank
from tiny_model import CHATML, write_base

OWN_TEMPLATE = CHATML.replace("<|im_end|>' + '\n'", "<|im_end|>\n\n'")
FAR = {"lr": 1e-2, "sample": {"prompts": []}}


@pytest.fixture(scope="module")
def bf16_base(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("models") / "bf16", dtype=torch.bfloat16)


@pytest.fixture(scope="module")
def adapter(trained):
    return trained.export()


@pytest.fixture
def output(tmp_path):
    return tmp_path / "out" / "merged"


def plainly_merged(base, adapter):
    """Return PEFT's own merge in fp32, without any of our code."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    return PeftModel.from_pretrained(model, adapter).merge_and_unload()


def equal(found, expected) -> bool:
    return found.keys() == expected.keys() and all(
        map(torch.equal, found.values(), expected.values())
    )


def test_equals_pefts_own_merge_bit_for_bit(base, adapter, output):
    merge(base, adapter, output)
    found = AutoModelForCausalLM.from_pretrained(output, dtype="auto")
    untouched = AutoModelForCausalLM.from_pretrained(base, dtype="auto").state_dict()
    assert found.dtype == torch.float32
    assert equal(found.state_dict(), plainly_merged(base, adapter).state_dict())
    assert not equal(found.state_dict(), untouched)


METHODS = {
    "rslora": {"rslora": True},
    "dora": {"dora": True},
    "some layers": {"target_modules": ["q_proj", "down_proj"], "alpha": 7},
    "embeddings": {"target_modules": ["embed_tokens", "v_proj"]},
    "output layer": {"target_modules": ["lm_head"]},
    "a whole output layer": {"modules_to_save": ["lm_head"]},
    "whole embeddings": {"modules_to_save": ["embed_tokens"]},
    "norms": {"modules_to_save": ["norm"]},
}


@pytest.fixture(scope="module")
def untied(base, tmp_path_factory):
    """The tiny model with an output layer of its own."""
    folder = tmp_path_factory.mktemp("models") / "untied"
    shutil.copytree(base, folder)
    model = AutoModelForCausalLM.from_pretrained(base)
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    model.config.tie_word_embeddings = False
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_every_method_equals_pefts_own_merge(untied, run, data, output, method):
    adapter = run(data=data, base=untied, method=method, **FAR).train().export()
    merge(untied, adapter, output)
    found = AutoModelForCausalLM.from_pretrained(output, dtype="auto")
    assert equal(found.state_dict(), plainly_merged(untied, adapter).state_dict())


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_tied_weight_that_was_trained_apart_is_stored_apart(base, run, data, output, method):
    adapter = run(data=data, base=base, method=method, **FAR).train().export()
    merge(base, adapter, output)
    ids = torch.arange(3, 100)[None]
    both = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    expected = PeftModel.from_pretrained(both, adapter).eval()(ids).logits
    found = AutoModelForCausalLM.from_pretrained(output)
    torch.testing.assert_close(found(ids).logits, expected, atol=1e-4, rtol=1e-4)
    trained_apart = any("embed" in each or "lm_head" in each for each in map(str, method.values()))
    assert found.config.tie_word_embeddings is not trained_apart


@pytest.mark.parametrize("shape", [(1000, 4096), (4096, 1000), (300, 11008), (70, 60000)])
@pytest.mark.parametrize("r", [1, 8, 64])
def test_blocks_are_bit_equal_to_the_product_of_the_whole(shape, r):
    torch.manual_seed(0)
    weight, a, b = torch.randn(shape), torch.randn(r, shape[1]), torch.randn(shape[0], r)
    update = LowRank({"a": a, "b": b}, {"a": "a", "b": "b"}, 0.3, transposed=False)
    blocks = list(update.added_to(weight))
    assert len(blocks) > 1
    assert torch.equal(torch.cat(blocks), weight + (b @ a) * 0.3)


@pytest.fixture
def gpt2(base, tmp_path):
    """A GPT-2 stored as the hub's is: tied, and without the prefix of its module's names."""
    folder = shutil.copytree(base, tmp_path / "gpt2")
    (folder / "model.safetensors").unlink()
    torch.manual_seed(0)
    sizes = {"n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": 259}
    model = GPT2LMHeadModel(GPT2Config(**sizes, initializer_range=0.2, bos_token_id=1))
    model.save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    short = {name.removeprefix("transformer."): tensor for name, tensor in weights.items()}
    assert "h.0.attn.c_attn.weight" in short
    save_file(short, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.mark.parametrize("memory", [True, False], ids=["in memory", "from disk"])
def test_weights_stored_without_a_prefix(gpt2, run, output, monkeypatch, memory, make_data):
    if not memory:
        monkeypatch.setattr("snaketune.export.model_assembly.available_memory", lambda _: 0)
    adapter = run(data=make_data(base=gpt2), base=gpt2, **FAR).train().export()
    merge(gpt2, adapter, output)
    found = AutoModelForCausalLM.from_pretrained(output, dtype="auto").state_dict()
    expected = plainly_merged(gpt2, adapter).state_dict()
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)
    changed = "transformer.h.0.attn.c_attn.weight"
    assert not torch.equal(found[changed], load_file(gpt2 / "model.safetensors")[changed[12:]])


def store_output_layer(base, folder, instead: bool = False):
    """Copy a tied base whose files hold the output layer too, or in place of the embeddings."""
    shutil.copytree(base, folder)
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    if instead:
        del weights["model.embed_tokens.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.mark.parametrize("memory", [True, False], ids=["in memory", "from disk"])
@pytest.mark.parametrize("instead", [False, True], ids=["both stored", "output layer stored"])
@pytest.mark.parametrize("method", [{"name": "full"}, {"modules_to_save": ["embed_tokens"]}, {}])
def test_a_tied_weight_stored_otherwise(
    base, run, data, output, tmp_path, monkeypatch, method, instead, memory
):
    other = store_output_layer(base, tmp_path / "other", instead)
    if not memory:
        monkeypatch.setattr("snaketune.export.model_assembly.available_memory", lambda _: 0)
    trained = run(data=data, base=other, method=method, **FAR).train()
    source = trained.output / "last.pth" if method.get("name") == "full" else trained.export()
    merge(other, source, output)
    found = AutoModelForCausalLM.from_pretrained(output)
    if method.get("name") == "full":
        assert equal(dict(found.named_parameters()), trained.adapter())
    else:
        expected = plainly_merged(other, source)
        ids = torch.arange(3, 100)[None]
        torch.testing.assert_close(found(ids).logits, expected(ids).logits, atol=1e-4, rtol=1e-4)
    untied = bool(method.get("modules_to_save"))
    assert found.config.tie_word_embeddings is not untied
    assert ("lm_head.weight" in load_file(output / "model.safetensors")) is untied


def test_a_damaged_adapter_is_not_merged(base, adapter, output, tmp_path):
    damaged = shutil.copytree(adapter, tmp_path / "damaged")
    content = bytearray((damaged / "adapter_model.safetensors").read_bytes())
    content[-5] ^= 1
    (damaged / "adapter_model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=r"adapter_model.safetensors has changed"):
        merge(base, damaged, output)


def test_the_bound_is_that_of_the_trained_weights(base, run, data, output, tmp_path):
    """A base of which one large tensor is in fp32, and what is trained in bf16."""
    mixed = shutil.copytree(base, tmp_path / "mixed")
    weights = load_file(mixed / "model.safetensors")
    weights = {n: w if "embed" in n else w.to(torch.bfloat16) for n, w in weights.items()}
    save_file(weights, mixed / "model.safetensors", {"format": "pt"})
    merge(mixed, run(data=data, base=mixed, **FAR).train().export(), output)
    found = load_file(output / "model.safetensors")
    assert {name: tensor.dtype for name, tensor in found.items()} == {
        name: tensor.dtype for name, tensor in weights.items()
    }
    assert read_json(output / "snaketune.json")["merge"]["bound"] == BOUNDS[torch.bfloat16][0]


def test_a_full_fine_tune_is_its_trained_weights(base, run, data, output):
    trained = run(data=data, base=base, method={"name": "full"}, **FAR).train()
    merge(base, trained.output / "last.pth", output)
    found = AutoModelForCausalLM.from_pretrained(output, dtype="auto")
    assert equal(dict(found.named_parameters()), trained.adapter())
    assert found.config.tie_word_embeddings


@pytest.mark.parametrize(("name", "dtype"), [("fp16", torch.float16), ("bf16", torch.bfloat16)])
def test_another_dtype_can_be_chosen(base, adapter, output, name, dtype):
    merge(base, adapter, output, export=Export(dtype=name))
    found, expected = load_file(output / "model.safetensors"), plainly_merged(base, adapter)
    expected = expected.to(dtype).state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in found)
    assert AutoModelForCausalLM.from_pretrained(output, dtype="auto").dtype == dtype


def test_a_weight_too_large_for_fp16_is_refused(base, adapter, output, tmp_path):
    large = shutil.copytree(adapter, tmp_path / "large")
    weights = load_file(large / "adapter_model.safetensors")
    weights[next(key for key in weights if "lora_B" in key)] += 1e6
    save_file(weights, large / "adapter_model.safetensors")
    write_manifest(large)
    with pytest.raises(UserError, match=r"too large for float16\.\n .*export\.dtype: bf16"):
        merge(base, large, output, export=Export(dtype="fp16"))
    assert list(output.parent.iterdir()) == []


def test_shards_hold_the_same_weights(base, adapter, output):
    merge(base, adapter, output, export=Export(max_shard_size="50KB"))
    index = read_json(output / "model.safetensors.index.json")
    files = sorted(output.glob("model-*.safetensors"))
    assert len(files) > 3
    assert {file.name for file in files} == set(index["weight_map"].values())
    found = AutoModelForCausalLM.from_pretrained(output).state_dict()
    assert equal(found, plainly_merged(base, adapter).state_dict())


def test_a_model_larger_than_memory_is_checked_too(bf16_base, run, data, output, monkeypatch):
    adapter = run(data=data, base=bf16_base, method={"modules_to_save": ["lm_head"]}, **FAR)
    adapter = adapter.train().export()
    merge(bf16_base, adapter, output)
    expected = read_json(output / "snaketune.json")["merge"]
    monkeypatch.setattr("snaketune.export.model_assembly.available_memory", lambda _: 0)
    monkeypatch.setattr("snaketune.export.model_assembly.load_model", None)
    merge(bf16_base, adapter, output)
    assert read_json(output / "snaketune.json")["merge"] == expected


def test_a_layer_is_the_base_plus_the_scaled_product(base, adapter, output):
    merge(base, adapter, output)
    name, lora = "model.layers.1.mlp.down_proj", load_file(adapter / "adapter_model.safetensors")
    a, b = (lora[f"base_model.model.{name}.lora_{side}.weight"] for side in "AB")
    before, after = (
        load_file(each / "model.safetensors")[f"{name}.weight"] for each in (base, output)
    )
    torch.testing.assert_close(after - before, 16 / 4 * b @ a, atol=1e-6, rtol=0)


def test_a_bf16_base_stays_bf16_and_is_rounded_once(bf16_base, run, data, output):
    adapter = run(data=data, base=bf16_base, **FAR).train().export()
    merge(bf16_base, adapter, output)
    found = load_file(output / "model.safetensors")
    expected = plainly_merged(bf16_base, adapter).to(torch.bfloat16).state_dict()
    assert {tensor.dtype for tensor in found.values()} == {torch.bfloat16}
    assert read_json(output / "config.json")["dtype"] == "bfloat16"
    assert all(torch.equal(found[name], expected[name]) for name in found)


def test_a_bf16_base_of_an_older_transformers_stays_bf16(bf16_base, run, data, output, tmp_path):
    older = shutil.copytree(bf16_base, tmp_path / "older")
    config = read_json(older / "config.json")
    (older / "config.json").write_text(json.dumps({"torch_dtype": config.pop("dtype")} | config))
    merge(older, run(data=data, base=older, **FAR).train().export(), output)
    found = load_file(output / "model.safetensors")
    assert {tensor.dtype for tensor in found.values()} == {torch.bfloat16}


def test_a_bf16_merge_is_within_the_stated_bound_of_base_plus_adapter(bf16_base, run, data, output):
    adapter = run(data=data, base=bf16_base, **FAR).train().export()
    merge(bf16_base, adapter, output)
    ids = torch.arange(3, 200)[None]
    both = AutoModelForCausalLM.from_pretrained(bf16_base, dtype=torch.float32)
    merged = AutoModelForCausalLM.from_pretrained(output, dtype=torch.float32)
    expected = PeftModel.from_pretrained(both, adapter)(ids).logits
    difference = (merged(ids).logits - expected).std() / expected.std()
    told = read_json(output / "snaketune.json")["merge"]
    assert told["dtype"] == "bfloat16"
    assert 0 < difference <= told["bound"] == BOUNDS[torch.bfloat16][0]
    assert told["difference"] == pytest.approx(difference.item(), rel=0.5)
    assert told["equal_tokens_bound"] <= told["equal_tokens"] <= 1


@pytest.mark.parametrize("name", ["auto", "chatml"])
def test_template_and_end_tokens_travel(name, base, make_data, run, tmp_path, output):
    other = shutil.copytree(base, tmp_path / "other")
    (other / "chat_template.jinja").write_text(OWN_TEMPLATE)
    config = read_json(other / "tokenizer_config.json") | {"chat_template": OWN_TEMPLATE}
    (other / "tokenizer_config.json").write_text(json.dumps(config))
    data = make_data(base=other, template=name)
    merge(other, run(data=data, base=other, **FAR).train().export(), output)
    tokenizer = AutoTokenizer.from_pretrained(output)
    model = AutoModelForCausalLM.from_pretrained(output)
    text = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
    own = "<|im_start|>user\nHi<|im_end|>\n\n"
    assert text == (own if name == "auto" else own[:-1])
    assert model.generation_config.eos_token_id == [tokenizer.convert_tokens_to_ids("<|im_end|>")]
    assert not model.generation_config.do_sample


def test_another_base_is_refused(base, adapter, output, tmp_path):
    other = shutil.copytree(base, tmp_path / "other")
    (other / "provenance.json").write_text('{"source": "./other", "dtype": "float32"}')
    with pytest.raises(UserError, match=r"trained on base model tiny, not on .*other\.\n.*--base"):
        merge(other, adapter, output)
    assert not output.exists()


def test_logits_outside_the_bound_are_refused(bf16_base, run, data, output, monkeypatch):
    adapter = run(data=data, base=bf16_base, **FAR).train().export()
    monkeypatch.setitem(BOUNDS, torch.bfloat16, (1e-5, 0))  # real rounding, an impossible bound
    with pytest.raises(
        UserError, match=r"differ from the trained model's by 0\.\d+ (.|\n)*Nothing"
    ):
        merge(bf16_base, adapter, output)
    assert not output.exists()


def test_a_wrong_sum_is_noticed(base, adapter, output, monkeypatch):
    right = LowRank.added_to
    monkeypatch.setattr(LowRank, "added_to", lambda *each: (b * 1.001 for b in right(*each)))
    with pytest.raises(UserError, match=r"for float32 at most 0\.0001 and at least 99% are rou"):
        merge(base, adapter, output)
    assert not output.exists()


def test_a_diverged_adapter_is_refused(base, adapter, output, tmp_path):
    broken = shutil.copytree(adapter, tmp_path / "broken")
    weights = load_file(broken / "adapter_model.safetensors")
    next(iter(weights.values()))[0, 0] = torch.nan
    save_file(weights, broken / "adapter_model.safetensors")
    write_manifest(broken)
    with pytest.raises(UserError, match=r"weight holds NaN .*training diverged\.\n  Nothing"):
        merge(base, broken, output)
    assert list(output.parent.iterdir()) == []


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize("step", ["write_weights", "_write_config", "logits", "finish_folder"])
def test_an_interrupted_merge_leaves_nothing_behind(base, adapter, output, monkeypatch, step):
    merge(base, adapter, output)
    expected = contents(output)
    shutil.rmtree(output)
    original = getattr(stage, step)

    def interrupted(*arguments):
        original(*arguments)  # its files are written by then
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(stage, step, interrupted)
        merge(base, adapter, output)
    assert list(output.parent.iterdir()) == []
    merge(base, adapter, output)
    assert contents(output) == expected


def test_an_interruption_between_two_shards_leaves_nothing(base, adapter, output, monkeypatch):
    written = []

    def write(path, *_):
        written.append(path.name)
        if len(written) == 3:
            raise KeyboardInterrupt
        return []

    monkeypatch.setattr("snaketune.models.weights._write_file", write)
    with pytest.raises(KeyboardInterrupt):
        merge(base, adapter, output, export=Export(max_shard_size="50KB"))
    assert list(output.parent.iterdir()) == []


def test_a_merged_model_is_not_merged_again(base, adapter, output, tmp_path):
    merge(base, adapter, output)
    with pytest.raises(UserError, match=r"merged is a merged model already"):
        merge(base, output, tmp_path / "again")
    with pytest.raises(UserError, match=r"not on .*merged, which is a merged model\."):
        merge(output, adapter, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_what_a_killed_merge_left_is_not_in_the_next(base, adapter, output):
    killed = subprocess.Popen(["true"])
    killed.wait()
    left = output.with_name(f".merged.{killed.pid}.tmp")
    left.mkdir(parents=True)
    (left / "model-00001-of-00009.safetensors").write_bytes(b"half")
    merge(base, adapter, output)
    assert [path.name for path in output.parent.iterdir()] == ["merged"]
    assert [path.name for path in output.glob("*.safetensors")] == ["model.safetensors"]


def test_too_little_disk_is_said_before_the_model_is_loaded(base, adapter, output, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("snaketune.core.files.shutil.disk_usage", lambda _: usage)
    monkeypatch.setattr(stage, "write_weights", None)
    with pytest.raises(UserError, match=r"too little disk space .*the merged model needs 1\d MiB"):
        merge(base, adapter, output)
