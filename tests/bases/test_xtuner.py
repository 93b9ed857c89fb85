"""A checkpoint of XTuner becomes the weights that PEFT trained, or is refused with the reason."""

import re

import pytest
import torch
from peft import get_peft_model_state_dict
from transformers import AutoModelForCausalLM

from snaketune.bases.xtuner import fitted, read_xtuner
from snaketune.core.errors import UserError
from snaketune.experiment.schema import Method
from tiny_model import write_base
from xtuner_run import CONFIG, SupervisedFinetune, peft_model, write_pth

METHOD = Method(name="lora", r=4, alpha=8)
ALL = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
PREFIX = "llm.base_model.model.model.layers."
QUERY = PREFIX + "0.self_attn.q_proj.lora_A.default.weight"


@pytest.fixture(scope="module")
def model(base):
    return peft_model(base)


@pytest.fixture
def convert(base, tmp_path):
    """Return a function that writes weights as XTuner does, and reads them for a method."""

    def convert(weights, method=METHOD, base=base, config=CONFIG):
        found = read_xtuner(write_pth(tmp_path / "iter_500.pth", weights, config))
        return fitted(found, base, method)

    return convert


def require_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor.float())
        assert found[name].dtype == torch.float32


@pytest.mark.parametrize(
    ("made", "told"),
    [
        ({}, {}),
        ({"target_modules": ["q_proj", "v_proj"]}, {}),
        ({"target_modules": ["q_proj", "v_proj"]}, {"target_modules": ["v_proj", "q_proj"]}),
        ({"modules_to_save": ["lm_head"]}, {"modules_to_save": ["lm_head"]}),
        ({"use_dora": True}, {"dora": True}),
        ({"use_rslora": True}, {"rslora": True}),
    ],
    ids=["all", "two", "two told", "saved", "dora", "rslora"],
)
def test_lora_comes_back_as_peft_saves_it(tmp_path, convert, made, told):
    base = write_base(tmp_path / "base", tied="modules_to_save" not in made)
    model = peft_model(base, **made)
    config = CONFIG.replace("r=4", "use_rslora=True") if "use_rslora" in made else CONFIG
    weights, method = convert(model.state_dict(), METHOD.model_copy(update=told), base, config)
    require_equal(weights, get_peft_model_state_dict(model.llm))
    assert method.target_modules == sorted(made.get("target_modules", ALL))
    assert method.modules_to_save == made.get("modules_to_save", [])


@pytest.mark.parametrize("tied", [True, False])
def test_a_full_fine_tune_comes_back_with_tied_weights_once(tmp_path, convert, tied):
    base = write_base(tmp_path / "base", tied=tied)
    model = AutoModelForCausalLM.from_pretrained(base).bfloat16()
    weights = SupervisedFinetune(model).state_dict()
    weights["llm.model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(8)
    found, method = convert(weights, Method(name="full"), base)
    require_equal(found, dict(model.named_parameters()))
    assert method == Method(name="full")


def test_what_the_configuration_tells_is_read(tmp_path):
    found = read_xtuner(write_pth(tmp_path / "a.pth", {QUERY: torch.ones(1)}))
    assert (found.iteration, found.alpha, found.rslora) == (500, 8, False)
    assert (found.templates, found.precision) == ({"default"}, "float16")
    other = CONFIG.replace("float16", "bfloat16")
    assert read_xtuner(write_pth(tmp_path / "a.pth", {QUERY: torch.ones(1)}, other)).precision == (
        "bfloat16"
    )


@pytest.mark.parametrize(("name", "iteration"), [("iter_12.pth", 12), ("best.pth", 0)])
def test_weights_alone_take_the_iteration_from_their_name(tmp_path, name, iteration):
    torch.save({"state_dict": {QUERY: torch.ones(1)}}, tmp_path / name)
    found = read_xtuner(tmp_path / name)
    assert (found.iteration, found.config, found.alpha) == (iteration, "", None)


def without(*names):
    return lambda weights: {n: t for n, t in weights.items() if not any(x in n for x in names)}


def also(name, *shape):
    return lambda weights: weights | {name: torch.ones(shape)}


def changed(name, *shape):
    return lambda weights: {n: torch.ones(shape) if n == name else t for n, t in weights.items()}


MISTAKES = {
    "rank": (dict, {"r": 8}, "its rank is 4, the method says r: 8", "method.r: 4"),
    "ranks": (changed(QUERY, 2, 64), {}, "its rank is 2 and 4", "with one rank"),
    "alpha": (dict, {"alpha": 16}, "lora_alpha=8, the method says 16", "method.alpha: 8"),
    "rslora": (dict, {"rslora": True}, "use_rslora=False, the method says True", "rslora: false"),
    "dora": (
        dict,
        {"dora": True},
        "has {'lora_A' ... expected ... 'lora_magnitude_vector': (64,)",
        "dora: false",
    ),
    "full": (dict, {"name": "full"}, "it holds LoRA, the method is full", "qlora"),
    "targets": (
        dict,
        {"target_modules": ["q_proj"]},
        "its target_modules are ['down_proj', ... says ['q_proj']",
        "method.target_modules: [down_proj, gate_proj",
    ),
    "saved": (
        dict,
        {"modules_to_save": ["lm_head"]},
        "its modules_to_save are none, the method says ['lm_head']",
        "method.modules_to_save: []",
    ),
    "one matrix": (without("0.self_attn.q_proj.lora_B"), {}, "q_proj has {'lora_A'", "trained on"),
    "one layer": (
        without("1.mlp.up_proj"),
        {},
        "it lacks 1 of the 14 layers it adapts: model.layers.1.mlp.up_proj.weight",
        "complete",
    ),
    "more layers": (
        also(QUERY.replace("layers.0", "layers.2"), 4, 64),
        {},
        "the base has no linear layer model.layers.2.self_attn.q_proj",
        "trained on",
    ),
    "width": (
        changed(QUERY, 4, 32),
        {},
        "q_proj has {'lora_A': (4, 32), ... for a layer from 64 to 64",
        "trained on",
    ),
    "not a number": (
        lambda weights: weights | {QUERY: weights[QUERY] * float("nan")},
        {},
        "1 of its tensors hold infinite values or NaN: ... model.layers.0.self_attn.q_proj.lora_A",
        "an earlier checkpoint",
    ),
    "embeddings": (
        also("llm.base_model.model.model.embed_tokens.lora_embedding_A.default", 4, 9),
        {},
        "the base has no weight model.embed_tokens.lora_embedding_A",
        "LoRA of embeddings and biases",
    ),
    "bias": (
        also("llm.base_model.model.model.layers.0.self_attn.q_proj.base_layer.bias", 64),
        {},
        "the base has no weight model.layers.0.self_attn.q_proj.base_layer.bias",
        "trained on",
    ),
    "llava": (
        lambda weights: also("projector.model.0.weight", 4, 4)(
            also("visual_encoder.a.weight", 4)(weights)
        ),
        {},
        "`llm.`): 1 of visual_encoder, 1 of projector. Models that see images",
        "of text alone",
    ),
}


@pytest.mark.parametrize("kind", MISTAKES)
def test_a_checkpoint_that_does_not_fit_is_refused_with_the_reason(model, convert, kind):
    change, told, wrong, fix = MISTAKES[kind]
    with pytest.raises(UserError) as caught:
        convert(change(model.state_dict()), METHOD.model_copy(update=told))
    first, last = str(caught.value).split("Fix:")
    assert all(part in first for part in wrong.split(" ... "))
    assert fix in last
    assert "iter_500.pth" in first


FULL_MISTAKES = {
    "method": (dict, METHOD, "it holds all weights of a model, the method is lora"),
    "missing": (without("1.mlp.up_proj"), Method(name="full"), "lacks 1 weights: model.layers.1."),
    "vocabulary": (
        changed("llm.model.embed_tokens.weight", 300, 64),
        Method(name="full"),
        "model.embed_tokens.weight is [300, 64], the base's [259, 64]",
    ),
    "other": (also("llm.v_head.weight", 1, 64), Method(name="full"), "no weight v_head.weight"),
}


@pytest.mark.parametrize("kind", FULL_MISTAKES)
def test_all_weights_that_do_not_fit_are_refused_with_the_reason(base, convert, kind):
    change, method, wrong = FULL_MISTAKES[kind]
    weights = SupervisedFinetune(AutoModelForCausalLM.from_pretrained(base)).state_dict()
    with pytest.raises(UserError, match=re.escape(wrong)):
        convert(change(weights), method)


@pytest.mark.parametrize("weights", [{1: torch.ones(2)}, {QUERY: torch.tensor(1.0)}, [QUERY]])
def test_what_is_no_weights_by_name_is_refused(tmp_path, weights):
    torch.save({"state_dict": weights}, tmp_path / "a.pth")
    with pytest.raises(UserError, match=r"holds no weights of XTuner 0.1 but state_dict"):
        read_xtuner(tmp_path / "a.pth")


def test_a_checkpoint_without_weights_is_refused(tmp_path):
    torch.save({"weights": {"a": torch.ones(1)}, "about": {}}, tmp_path / "a.pth")
    with pytest.raises(UserError, match=r"holds no weights of XTuner 0.1 but weights, about"):
        read_xtuner(tmp_path / "a.pth")
    torch.save({"state_dict": {"llm.a": 1}}, tmp_path / "a.pth")
    with pytest.raises(UserError, match=r"holds no weights of XTuner 0.1 but state_dict"):
        read_xtuner(tmp_path / "a.pth")


def test_a_checkpoint_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"a.pth does not exist"):
        read_xtuner(tmp_path / "a.pth")


def test_other_heads_than_the_bases_are_told(convert):
    name = PREFIX + "0.attention.wqkv.lora_{}.default.weight"
    packed = {name.format("A"): torch.ones(4, 64), name.format("B"): torch.ones(100, 4)}
    with pytest.raises(UserError, match="has 100 rows, the base's heads need 128"):
        convert(packed)
