"""The seven fields, and when a difference in them is called unnoticed."""

import shutil

import pytest

from snaketune.comparison.fairness import field_values, warnings
from study_results import STUDY, write_training

HEAD = STUDY.partition("variants:")[0]


def warned(study, variants: str, **chosen: dict) -> list[str]:
    """Write a study, train those variants that a machine's choices are given for, and warn."""
    study.write(HEAD + variants)
    for name, experiment in study.experiments().items():
        write_training(study.root, experiment, 4, 1.0, **chosen.get(name, {}))
    return warnings(list(study.collect().values()))


def test_the_seven_fields_are_computed(study):
    study.write(
        HEAD + "variants: {a: {}, b: {method: {rslora: true, target_modules: [q_proj, v_proj]}, "
        "train: {batch_size: 3, processes: 2, precision: fp32}, pack: xtuner, truncation: drop}}"
    )
    a, b = (field_values(found) for found in study.collect().values())
    assert a == {
        "effective batch": None,
        "scale of LoRA": 2.0,
        "target modules": "all-linear",
        "max_length": 256,
        "truncation": "right",
        "packing": "true",
        "precision": None,
    }
    assert b["effective batch"] == 3 * 2 * 2
    assert b["scale of LoRA"] == 32 / 4
    assert b["target modules"] == "q_proj, v_proj"
    assert (b["packing"], b["truncation"], b["precision"]) == ("xtuner", "drop", "float32")


def test_the_machines_processes_and_precision_count(study):
    study.write(HEAD + "variants: {a: {}}")
    [experiment] = study.experiments().values()
    write_training(study.root, experiment, 4, 1.0, processes=4, precision="float32")
    [found] = study.collect().values()
    assert field_values(found)["effective batch"] == 2 * 4
    assert field_values(found)["precision"] == "float32"


def test_a_variant_that_is_not_trained_yet_is_not_warned_about(study):
    study.write(HEAD + "variants: {a: {train: {precision: fp32}}, b: {train: {precision: fp32}}}")
    chosen = {"precision": "float32"}
    write_training(study.root, study.experiments()["a"], 4, 1.0, **chosen)
    assert warnings(list(study.collect().values())) == []


@pytest.mark.parametrize(
    "variants",
    [
        "variants: {a: {}, b: {train: {lr: 1e-4}}}",
        "variants: {a: {}, b: {max_length: 128}}",
        "variants: {a: {}, b: {method: {alpha: 64}}}",
        "variants: {a: {}, b: {train: {accumulate: 8}}}",
        "variants: {a: {}, b: {train: {accumulate: 1, batch_size: 2, lr: 1e-4}}}",
        "variants: {a: {}, b: {method: {r: 8, alpha: 16}}}",
        "variants: {a: {}, b: {method: {name: full}}}",
        "matrix: {max_length: [128, 256], train.lr: [1e-4, 2e-4], train.seed: [1, 2]}",
        "variants: {a: {}, b: {train: {lr: 1e-4}}, c: {train: {lr: 1e-4, batch_size: 2}}}",
    ],
)
def test_what_a_variant_is_about_is_not_warned_about(study, variants):
    assert warned(study, variants) == []


@pytest.mark.parametrize(
    ("variants", "field", "reason"),
    [
        ("{max_length: 128, train: {lr: 1e-4}}", "max_length: a 256, b 128", "Other settings"),
        ("{pack: false, train: {lr: 1e-4}}", "packing: a true, b false", "Other settings"),
        ("{train: {accumulate: 8, lr: 1e-4}}", "effective batch: a 2, b 8", "Other settings"),
        ("{method: {r: 64}}", "scale of LoRA: a 2.0, b 0.5", "Only method.r"),
        ("{method: {r: 64}, train: {lr: 1e-4}}", "scale of LoRA: a 2.0, b 0.5", "Other settings"),
    ],
)
def test_what_differs_beside_other_settings_is_warned_about(study, variants, field, reason):
    [told] = warned(study, f"variants: {{a: {{}}, b: {variants}}}")
    assert told.startswith(field)
    assert reason in told


def test_a_full_fine_tune_has_no_scale_of_lora(study):
    told = warned(study, "variants: {a: {}, b: {method: {name: full}, train: {lr: 1e-4}}}")
    assert [each.partition(". ")[0] for each in told] == [
        "scale of LoRA: a 2.0, b no LoRA",
        "target modules: a all-linear, b all weights",
    ]
    assert all("Other settings differ too" in each for each in told)


@pytest.mark.parametrize(
    ("key", "values", "words"),
    [
        (
            "precision",
            ("bfloat16", "float32"),
            "precision: a bfloat16, b float32. The settings are",
        ),
        ("processes", (1, 4), "effective batch: a 2, b 8. The settings are the same"),
        ("gradient_checkpointing", (False, True), "gradient checkpointing: false (a); true (b)"),
        ("device", ("cpu", "H200"), "device: cpu (a); H200 (b). The settings are the same"),
        ("versions", ({"torch": "1"}, {"torch": "2"}), "version of torch: 1 (a); 2 (b)"),
    ],
)
def test_what_the_machine_chose_differently_is_warned_about(study, key, values, words):
    a, b = ({key: value} for value in values)
    [told] = warned(study, "variants: {a: {}, b: {train: {lr: 1e-4}}}", a=a, b=b)
    assert told.startswith(words)


def test_a_choice_that_was_a_setting_is_no_warning(study):
    text = "variants: {a: {}, b: {train: {gradient_checkpointing: true}}}"
    assert warned(study, text, b={"gradient_checkpointing": True}) == []
    shutil.rmtree(study.root / "experiments")
    text = "variants: {a: {}, b: {train: {precision: fp32}}}"
    assert warned(study, text, b={"precision": "float32"}) == []
