"""Which settings differ: exactly those that were changed, in words that tell them apart."""

import pytest

from snaketune.experiment.settings import differing, settings, shown, single_change
from study_results import STUDY


def lines(study, text: str) -> dict:
    study.write(STUDY.partition("variants:")[0] + text)
    return differing({name: settings(each) for name, each in study.experiments().items()})


@pytest.mark.parametrize(
    ("change", "key", "values"),
    [
        ("{train: {lr: 1e-4}}", "train.lr", (0.0003, 0.0001)),
        ("{train: {max_steps: 4}}", "train.max_steps", (None, 4)),
        ("{train: {betas: [0.9, 0.95]}}", "train.betas", ([0.9, 0.999], [0.9, 0.95])),
        (
            "{method: {target_modules: [q_proj]}}",
            "method.target_modules",
            ("all-linear", ["q_proj"]),
        ),
        ("{evaluate: {heldout: 0.2}}", "evaluate.heldout", (0.1, 0.2)),
        ("{model: {source: ./tiny}}", "model", ("tiny", "./tiny")),
        (
            "{data: [{dataset: persona, vars: {name: Ada}, weight: 10}]}",
            "data",
            (["persona (× 20, name: Ada)"], ["persona (× 10, name: Ada)"]),
        ),
        ("{pack: false}", "pack", (True, False)),
    ],
)
def test_one_changed_field_is_one_line(study, change, key, values):
    found = lines(study, f"variants: {{a: {{}}, b: {change}}}")
    assert found == {key: dict(zip("ab", values, strict=True))}


@pytest.mark.parametrize("change", ["{description: other words}", "{train: {lr: 3e-4}}", "{}"])
def test_what_is_no_change_is_no_line(study, change):
    assert lines(study, f"variants: {{a: {{}}, b: {change}}}") == {}


def test_sources_that_short_words_cannot_tell_are_told_in_full(study):
    other = "{data: [{dataset: persona, vars: {name: Ada}, weight: 20, system: Be brief}]}"
    found = lines(study, f"variants: {{a: {{}}, b: {other}}}")["data"]
    assert found["a"] != found["b"]
    assert "Be brief" in found["b"][0]


def test_the_variants_of_the_shipped_kind_differ_in_two_settings(study):
    found = differing({name: settings(each) for name, each in study.experiments().items()})
    assert set(found) == {"data", "train.deepspeed"}
    assert found["train.deepspeed"]["mixed_zero2"] == "zero2"


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ("{train: {lr: 1e-4}}", "train.lr"),
        ("{train: {lr: 1e-4, seed: 7}}", "train.lr"),
        ("{train: {lr: 1e-4, save_every: 7}}", "train.lr"),
        ("{train: {save_every: 7}}", "train.save_every"),
        ("{train: {lr: 1e-4, epochs: 7}}", None),
        ("{train: {seed: 7}}", None),
        ("{}", None),
    ],
)
def test_a_single_change_is_one_that_can_change_the_weights(study, change, key):
    study.write(STUDY.partition("variants:")[0] + f"variants: {{a: {{}}, b: {change}}}")
    a, b = (settings(each) for each in study.experiments().values())
    assert single_change(a, b) == single_change(b, a) == key


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "not set"),
        ("none", "none"),
        (True, "true"),
        (2e-4, "0.0002"),
        (["a", "b"], "a + b"),
        ([1, 2], "[1, 2]"),
    ],
)
def test_values_are_shown_as_a_file_writes_them(value, text):
    assert shown(value) == text
