import pytest

from snaketune.core.errors import UserError
from snaketune.experiment.studies import load_studies
from snaketune.publish.publish_config import (
    PublishConfig,
    explain_publish_target,
    read_publish_config,
    require_token,
)

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
        ({"to": "hf:me/tiny-1.0"}, PublishConfig("hf", "me/tiny-1.0", "merged", True)),
        ({"to": "hf:me/x", "private": "false"}, PublishConfig("hf", "me/x", "merged", False)),
        (
            {"to": "modelscope:me/x", "private": False},
            PublishConfig("modelscope", "me/x", "merged", False),
        ),
        (
            {"to": "openxlab:out/x", "what": "adapter"},
            PublishConfig("openxlab", "out/x", "adapter", True),
        ),
    ],
)
def test_valid_settings_are_read(config, expected) -> None:
    assert read_publish_config(config) == expected
    assert expected.to == config["to"]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, r"no destination specified(.|\n)*--config to=hf:ORG/NAME"),
        ({"to": ""}, "no destination specified"),
        ({"to": "me/x"}, "invalid destination to="),
        ({"to": "hf:x"}, "invalid destination to="),
        ({"to": "hf:me/x/y"}, "invalid destination to="),
        ({"to": "hf:me/.."}, "invalid destination to="),
        ({"to": "hf:me/a--b"}, "invalid destination to="),
        ({"to": "hf:me/" + "x" * 94}, "invalid destination to="),
        ({"to": "hub:me/x"}, "invalid destination to="),
        ({"to": "openxlab:"}, "invalid destination to="),
        ({"to": 3}, "invalid destination to="),
        ({"to": "hf:me/x", "what": "split"}, "what=split cannot be published"),
        ({"to": "hf:me/x", "private": "no way"}, "neither true nor false"),
        ({"to": "hf:me/x", "private": None}, "neither true nor false"),
        ({"to": "hf:me/x", "private": 0}, "neither true nor false"),
        ({"to": "hf:me/x", "privat": False}, r"no setting 'privat'. Did you mean 'private'\?"),
    ],
)
def test_invalid_settings_are_explained(config, message) -> None:
    with pytest.raises(UserError, match=message):
        read_publish_config(config)


@pytest.mark.parametrize("at", ["", "iter_3/"])
@pytest.mark.parametrize("file", ["published", "to_publish.txt"])
def test_only_targets_that_publish_need_a_destination(studies, at, file) -> None:
    target = f"experiments/a_lora/{at}{file}"
    assert "no destination specified" in explain_publish_target(target, studies, {})
    assert explain_publish_target(target, studies, {"to": "hf:me/x"}) is None
    assert explain_publish_target("experiments/a_lora/merged", studies, {}) is None
    assert explain_publish_target("experiments/a_lora/eval/published", studies, {}) is None


def test_a_full_fine_tune_has_no_adapter_to_publish(studies) -> None:
    config = {"to": "hf:me/x", "what": "adapter"}
    assert "no adapter" in explain_publish_target("./experiments/a_full/published", studies, config)
    assert explain_publish_target("./experiments/a_lora/published", studies, config) is None


def test_the_token_comes_from_the_environment() -> None:
    assert require_token("hf", {"HF_TOKEN": " x\n"}) == "x"
    assert require_token("openxlab", {}) == ""
    with pytest.raises(UserError, match="export MODELSCOPE_API_TOKEN="):
        require_token("modelscope", {"HF_TOKEN": "x", "MODELSCOPE_API_TOKEN": " "})
