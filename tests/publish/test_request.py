import pytest

from snaketune.core.errors import UserError
from snaketune.experiment.studies import load_studies
from snaketune.publish.request import Request, explain, read_request, require_token

STUDY = """\
model: {source: .}
data: [{path: x.jsonl, format: text}]
variants: {lora: {}, full: {method: {name: full}}}
"""


@pytest.fixture
def studies(tmp_path):
    (tmp_path / "a.yaml").write_text(STUDY)
    (tmp_path / "x.jsonl").write_text("{}")
    return load_studies(tmp_path)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"to": "hf:me/tiny-1.0"}, Request("hf", "me/tiny-1.0", "merged", True)),
        ({"to": "hf:me/x", "private": "false"}, Request("hf", "me/x", "merged", False)),
        (
            {"to": "modelscope:me/x", "private": False},
            Request("modelscope", "me/x", "merged", False),
        ),
        (
            {"to": "openxlab:out/x", "what": "adapter"},
            Request("openxlab", "out/x", "adapter", True),
        ),
    ],
)
def test_what_is_asked_for(config, expected) -> None:
    assert read_request(config) == expected
    assert expected.to == config["to"]


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({}, r"nothing says where(.|\n)*--config to=hf:ORG/NAME"),
        ({"to": ""}, "nothing says where"),
        ({"to": "me/x"}, "names no place"),
        ({"to": "hf:x"}, "names no place"),
        ({"to": "hf:me/x/y"}, "names no place"),
        ({"to": "hf:me/.."}, "names no place"),
        ({"to": "hf:me/a--b"}, "names no place"),
        ({"to": "hf:me/" + "x" * 94}, "names no place"),
        ({"to": "hub:me/x"}, "names no place"),
        ({"to": "openxlab:"}, "names no place"),
        ({"to": 3}, "names no place"),
        ({"to": "hf:me/x", "what": "split"}, "what=split cannot be published"),
        ({"to": "hf:me/x", "private": "no way"}, "neither true nor false"),
        ({"to": "hf:me/x", "private": None}, "neither true nor false"),
        ({"to": "hf:me/x", "private": 0}, "neither true nor false"),
        ({"to": "hf:me/x", "privat": False}, r"no setting 'privat'. Did you mean 'private'\?"),
    ],
)
def test_what_cannot_be_is_explained(config, said) -> None:
    with pytest.raises(UserError, match=said):
        read_request(config)


@pytest.mark.parametrize("at", ["", "iter_3/"])
@pytest.mark.parametrize("file", ["published", "to_publish.txt"])
def test_only_targets_that_publish_need_a_destination(studies, at, file) -> None:
    target = f"experiments/a_lora/{at}{file}"
    assert "nothing says where" in explain(target, studies, {})
    assert explain(target, studies, {"to": "hf:me/x"}) is None
    assert explain("experiments/a_lora/merged", studies, {}) is None
    assert explain("experiments/a_lora/eval/published", studies, {}) is None


def test_a_full_fine_tune_has_no_adapter_to_publish(studies) -> None:
    config = {"to": "hf:me/x", "what": "adapter"}
    assert "no adapter" in explain("./experiments/a_full/published", studies, config)
    assert explain("./experiments/a_lora/published", studies, config) is None


def test_the_token_comes_from_the_environment() -> None:
    assert require_token("hf", {"HF_TOKEN": " x\n"}) == "x"
    assert require_token("openxlab", {}) == ""
    with pytest.raises(UserError, match="export MODELSCOPE_API_TOKEN="):
        require_token("modelscope", {"HF_TOKEN": "x", "MODELSCOPE_API_TOKEN": " "})
