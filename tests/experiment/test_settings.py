"""Which settings differ: exactly those that were changed, in words that tell them apart."""

import pytest

from snaketune.experiment import load_studies
from snaketune.experiment.settings import differing, settings, shown, single_change
from study_results import STUDY, write_study


@pytest.fixture
def variants(tmp_path):
    """Return a function that writes a study's variants and returns the settings of each."""

    def variants(text: str | None = None) -> dict:
        write_study(tmp_path, STUDY.partition("variants:")[0] + text if text else STUDY)
        studies = load_studies(tmp_path / "experiments")
        return {each.variant: settings(each) for each in studies.experiments.values()}

    return variants


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
def test_one_changed_field_is_one_line(variants, change, key, values):
    found = differing(variants(f"variants: {{a: {{}}, b: {change}}}"))
    assert found == {key: dict(zip("ab", values, strict=True))}


@pytest.mark.parametrize("change", ["{description: other words}", "{train: {lr: 3e-4}}", "{}"])
def test_what_is_no_change_is_no_line(variants, change):
    assert differing(variants(f"variants: {{a: {{}}, b: {change}}}")) == {}


def test_sources_that_short_words_cannot_tell_are_told_in_full(variants):
    other = "{data: [{dataset: persona, vars: {name: Ada}, weight: 20, system: Be brief}]}"
    found = differing(variants(f"variants: {{a: {{}}, b: {other}}}"))["data"]
    assert found["a"] != found["b"]
    assert "Be brief" in found["b"][0]


def test_the_variants_of_the_shipped_kind_differ_in_two_settings(variants):
    found = differing(variants())
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
def test_a_single_change_is_one_that_can_change_the_weights(variants, change, key):
    a, b = variants(f"variants: {{a: {{}}, b: {change}}}").values()
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
