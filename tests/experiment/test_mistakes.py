import pytest

from snaketune.experiment.schema import XTUNER_NAMES, Configuration

MINIMAL = "model: tiny\ndata: [{dataset: rows}]\n"
ON_HUB = "data: [{{source: 'hf:o/n', format: openai{}}}]\nmodel: tiny"

MISTAKES = {
    "unknown key": (MINIMAL + "trian: {}", 3, "trian", "Did you mean 'train'?"),
    "unknown inner key": (MINIMAL + "train:\n  lrr: 1", 4, "train.lrr", "Did you mean 'lr'?"),
    "unknown key of a data item": (
        "model: tiny\ndata:\n  - {dataset: rows}\n  - dataset: rows\n    wieght: 2",
        5,
        "data[1].wieght",
        "Did you mean 'weight'?",
    ),
    "unknown key of an inline model": (
        "data: [{dataset: rows}]\nmodel:\n  source: ./x\n  revison: a",
        4,
        "model.revison",
        "Did you mean 'revision'?",
    ),
    "key of another section": (MINIMAL + "epochs: 3", 3, "epochs", "Use train.epochs."),
    "word for a number": (
        MINIMAL + "train:\n  seed: 1\n  epochs: three",
        5,
        "train.epochs",
        "found 'three' (str), expected a valid integer",
    ),
    "number for a text": (MINIMAL + "description: 3", 3, "description", "put it in quotes"),
    "value for a mapping": (MINIMAL + "train: 3", 3, "train", "expected a mapping"),
    "nothing for a mapping": (MINIMAL + "train:", 3, "train", "found nothing, expected a mapping"),
    "text for a list": (
        MINIMAL + "sample:\n  prompts: Hi?",
        4,
        "sample.prompts",
        "found 'Hi?' (str), expected a list",
    ),
    "neither text nor list": (
        MINIMAL + "method: {target_modules: 3}",
        3,
        "method.target_modules",
        "found 3 (int), expected 'all-linear' or a list",
    ),
    "unknown choice": (
        MINIMAL + "train: {schedule: cosin}",
        3,
        "train.schedule",
        "expected 'cosine', 'linear' or 'constant'. Did you mean 'cosine'?",
    ),
    "unknown DeepSpeed stage": (
        MINIMAL + "train: {deepspeed: zero4}",
        3,
        "train.deepspeed",
        "or a path to a .json. Did you mean 'zero",
    ),
    "no DeepSpeed file": (
        MINIMAL + "train: {deepspeed: ds.json}",
        3,
        "train.deepspeed",
        "ds.json does not exist",
    ),
    "unknown probe": (
        MINIMAL + "evaluate: {probes: [identity, leek]}",
        3,
        "evaluate.probes[1]",
        "there is no probes/leek.yaml. Did you mean 'leak'? Known: identity, leak, retention",
    ),
    "probes for a name that is not taught": (
        MINIMAL + "evaluate:\n  probes: [leak, retention]",
        4,
        "evaluate.probes",
        "leak look for the one name that the data teaches, and there is none. Give the data",
    ),
    "probes for two names": (
        "model: tiny\ndata:\n  - {dataset: rows, vars: {name: Ada}}\n"
        "  - {dataset: rows, vars: {name: Bob}}\nevaluate: {probes: [identity, leak]}",
        5,
        "evaluate.probes",
        "identity and leak look for the one name that the data teaches, and there are 2: Ada, Bob",
    ),
    "DoRA on split weights": (
        MINIMAL + "method: {name: lora, dora: true}\ntrain: {deepspeed: zero3}",
        1,
        "",
        "method.dora needs whole weights",
    ),
    "compiled segments": (
        MINIMAL + "train: {compile: true, attention: segments}",
        3,
        "train",
        "compile needs attention: auto, sdpa or flash_attention_2",
    ),
    "size": (
        MINIMAL + "export: {max_shard_size: 0GB}",
        3,
        "export.max_shard_size",
        "found '0GB' (str), expected a number with KB, MB or GB, such as 2GB",
    ),
    "missing key": ("\ndata: [{dataset: rows}]", 1, "model", "required key is missing"),
    "no data": ("model: tiny\ndata: []", 2, "data", "expected at least one item"),
    "no data, no conversion": (
        "model: tiny\nconvert_from:\n",
        1,
        "data",
        "required key is missing",
    ),
    "conversion and another's end": (
        "model: tiny\nconvert_from: a.pth\nmethod: {start_from: b}",
        1,
        "",
        "convert_from takes the place of training: drop method.start_from",
    ),
    "conversion of a name with braces": (
        "model: tiny\nconvert_from: '{a}.pth'",
        2,
        "convert_from",
        "Snakemake reads {a} as a wildcard",
    ),
    "unknown model": (
        "data: [{dataset: rows}]\nmodel: tinny",
        2,
        "model",
        "no model 'tinny' in catalog/models.yaml. Did you mean 'tiny'?",
    ),
    "unknown data set": (
        "model: tiny\ndata:\n  - {dataset: rows}\n  - {dataset: rowz}",
        4,
        "data[1].dataset",
        "no data set 'rowz' in catalog/datasets.yaml. Did you mean 'rows'?",
    ),
    "data item with no place": (
        "model: tiny\ndata:\n  - weight: 1",
        3,
        "data[0]",
        "exactly one of dataset, path, source; found none of them",
    ),
    "data item with two places": (
        "model: tiny\ndata:\n  - {dataset: rows}\n  - {dataset: rows, path: x}",
        4,
        "data[1]",
        "exactly one of dataset, path, source; found dataset and path",
    ),
    "no format": ("model: tiny\ndata: [{path: x}]", 2, "data[0]", "expected either a `format:`"),
    "hub model without revision": (
        "data: [{dataset: rows}]\nmodel: {source: 'hf:o/n'}",
        2,
        "model",
        "'hf:o/n' needs `revision:` with the 40 digits of a commit",
    ),
    "package without version": (
        "data: [{dataset: rows}]\nmodel: {source: 'pypi:p'}",
        2,
        "model",
        "'pypi:p' needs a version: pypi:NAME==VERSION",
    ),
    "hub data without revision": (
        ON_HUB.format(", file: x"),
        1,
        "data[0]",
        "also needs revision",
    ),
    "hub data without file": (ON_HUB.format(", revision: x"), 1, "data[0]", "also needs file"),
    "too small": (MINIMAL + "max_length: 4", 3, "max_length", "found 4 (int), expected greater"),
    "negative": (MINIMAL + "train: {lr: -1e-4}", 3, "train.lr", "expected greater than 0"),
    "infinite": (MINIMAL + "train: {lr: .inf}", 3, "train.lr", "expected a finite number"),
    "share of one": (
        MINIMAL + "evaluate: {heldout: 1.0}",
        3,
        "evaluate.heldout",
        "expected less than 1",
    ),
    "zero weight": (
        "model: tiny\ndata:\n  - dataset: rows\n    weight: 0",
        4,
        "data[0].weight",
        "expected greater than 0",
    ),
    "short sha256": (
        "model: {source: ./x, sha256: abc}\ndata: [{dataset: rows}]",
        1,
        "model.sha256",
        "expected 64 digits and letters from a to f",
    ),
    "missing extends": (
        MINIMAL + "extends: defaults/qlorra",
        3,
        "extends",
        "defaults/qlorra.yaml does not exist. Did you mean 'defaults/qlora'?",
    ),
    "extends with its ending": (
        MINIMAL + "extends: defaults/qlora.yaml",
        3,
        "extends",
        "Did you mean 'defaults/qlora'?",
    ),
    "extends itself": ("extends: a\n" + MINIMAL, 1, "extends", "a cycle: a -> a"),
    "variants and matrix": (
        MINIMAL + "variants: {x: {}}\nmatrix: {train.lr: [1]}",
        4,
        "matrix",
        "use either `variants` or `matrix`",
    ),
    "matrix value that is no list": (
        MINIMAL + "matrix:\n  train.lr: 1",
        4,
        "matrix.train.lr",
        "expected a list",
    ),
    "matrix with an unknown key": (
        MINIMAL + "matrix:\n  train.lrr: [1]",
        4,
        "train.lrr",
        "Did you mean 'lr'?",
    ),
    "matrix keys that overlap": (
        MINIMAL + "matrix: {train: [3], train.lr: [1]}",
        3,
        "matrix",
        "'train' overlaps 'train.lr'. Remove one of them",
    ),
    "matrix value that makes no name": (
        MINIMAL + "matrix:\n  method.target_modules: [[q_proj]]",
        3,
        "matrix",
        "write the combinations as `variants`",
    ),
    "variant that is no mapping": (
        MINIMAL + "variants:\n  x: 3",
        4,
        "variants.x",
        "expected a mapping",
    ),
    "variant with a bad name": (
        MINIMAL + "variants:\n  x: {}\n  'y z': {}",
        5,
        "variants",
        "'a_y z' cannot name an experiment: use letters",
    ),
    "mistake inside a variant": (
        MINIMAL + "variants:\n  x:\n    train:\n      lr: no",
        6,
        "train.lr",
        "found 'no' (str), expected a valid number",
    ),
    "duplicate key": (
        MINIMAL + "train:\n  lr: 1\n  seed: 2\n  lr: 3",
        6,
        "",
        'duplicate key "lr" with value "3" (original value: "1"). Remove one of them',
    ),
    "empty file": ("", 1, "", "expected keys such as `model:` and `data:`, found nothing"),
    "comments alone": ("# later\n", 1, "", "found nothing"),
    "a list": ("- model: tiny", 1, "", "found a list"),
    "a word": ("model", 1, "", "found the value 'model'"),
    "a tab": (MINIMAL + "train:\n\tlr: 1", 4, "", "found character '\\t'"),
    "an open bracket": (MINIMAL + "train: {lr: 1\nseed: 2", 4, "", "while parsing a flow mapping"),
    "two documents": (MINIMAL + "---\nx: 1", 3, "", "expected a single document"),
    "not UTF-8": (
        MINIMAL.encode() + "description: café".encode("latin-1"),
        3,
        "",
        "byte 0xe9 is not UTF-8 text. Save it as UTF-8",
    ),
}


@pytest.mark.parametrize(("text", "line", "key", "words"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_told_with_its_line_its_key_and_the_way_out(load, text, line, key, words):
    probes = {f"probes/{name}.yaml": "" for name in ("identity", "leak", "retention")}
    [problem] = load({"defaults/qlora.yaml": "pack: true", "a.yaml": text} | probes).problems
    assert (problem.place.file.name, problem.place.line, problem.key) == ("a.yaml", line, key)
    assert words in problem.message


def test_a_mistake_inside_one_shape_of_a_value_says_nothing_of_the_other_shapes(load):
    [problem] = load("model: {source: 'hf:o/n'}\ndata: [{dataset: rows}]").problems
    assert problem.message.startswith("'hf:o/n' needs `revision:`")


def test_a_problem_reads_file_line_key_and_message(load, tmp_path):
    [problem] = load(MINIMAL + "max_length: 4").problems
    expected = (
        f"{tmp_path}/a.yaml:3: max_length: found 4 (int), expected greater than or equal to 8"
    )
    assert str(problem) == expected


@pytest.mark.parametrize(
    ("name", "here"),
    [
        ("accumulative_counts", "train.accumulate"),
        ("max_epochs", "train.epochs"),
        ("max_norm", "train.max_grad_norm"),
        ("lr", "train.lr"),
        ("batch_size", "train.batch_size"),
        ("save_steps", "train.save_every"),
        ("save_total_limit", "train.keep"),
        ("pretrained_model_name_or_path", "model"),
        ("pack_to_max_length", "pack"),
        ("prompt_template", "template"),
        ("max_seq_length", "max_length"),
        ("evaluation_freq", "sample.every"),
        ("evaluation_inputs", "sample.prompts"),
        ("lora_alpha", "method.alpha"),
        ("gradient_accumulation_steps", "train.accumulate"),
        ("num_train_epochs", "train.epochs"),
    ],
)
def test_a_name_from_xtuner_is_answered_with_ours(load, name, here):
    [problem] = load(MINIMAL + f"{name}: 1").problems
    assert f"Use {here}." in problem.message


def test_every_name_we_answer_with_exists():
    def exists(path):
        model = Configuration
        for part in path.split("."):
            if part not in model.model_fields:
                return False
            model = model.model_fields[part].annotation
        return True

    answers = [here for here in XTUNER_NAMES.values() if not here.startswith("nothing")]
    assert [here for here in answers if not exists(here)] == []


def test_several_mistakes_of_one_file_are_all_told(load):
    text = "model: tinny\ndata:\n  - {dataset: rowz}\n  - {}\ntrain: {lr: -1, seeed: 2}\nfoo: 1\n"
    found = {(problem.place.line, problem.key) for problem in load(text).problems}
    assert found == {
        (1, "model"),
        (3, "data[0].dataset"),
        (4, "data[1]"),
        (5, "train.lr"),
        (5, "train.seeed"),
        (6, "foo"),
    }


def test_a_mistake_shared_by_variants_is_told_once(load):
    problems = load(MINIMAL + "foo: 1\nvariants: {x: {}, y: {}}").problems
    assert [problem.key for problem in problems] == ["foo"]


def test_a_wrong_variant_leaves_the_others(load):
    studies = load(MINIMAL + "variants: {x: {foo: 1}, y: {}}")
    assert list(studies.experiments) == ["a_y"]


@pytest.mark.parametrize("broken", ["", "model: [", MINIMAL + "foo: 1", b"\xff", "extends: nope"])
def test_a_broken_file_does_not_stop_the_others(load, broken):
    studies = load({"a.yaml": broken, "b.yaml": MINIMAL})
    assert list(studies.experiments) == ["b"]
    assert [problem.place.file.name for problem in studies.problems] == ["a.yaml"]


def test_a_mistake_in_a_parent_is_told_once_and_where_it_stands(load):
    child = "extends: defaults/p\n" + MINIMAL
    studies = load({"defaults/p.yaml": "pack: true\nfoo: 1", "a.yaml": child, "b.yaml": child})
    [problem] = studies.problems
    assert (problem.place.file.name, problem.place.line, problem.key) == ("p.yaml", 2, "foo")


def test_a_cycle_is_told_by_its_whole_way(load):
    files = {name: f"extends: {parent}\n" + MINIMAL for name, parent in ("ab", "bc", "ca")}
    problems = load({f"{name}.yaml": text for name, text in files.items()}).problems
    assert any("a cycle: a -> b -> c -> a" in problem.message for problem in problems)
    assert {problem.key for problem in problems} == {"extends"}


def test_two_studies_that_give_one_name_are_both_named_and_neither_runs(load, tmp_path):
    studies = load(
        {
            "a.yaml": MINIMAL + "variants: {b_c: {}, d: {}}",
            "a_b.yaml": MINIMAL + "variants: {c: {}}",
        }
    )
    assert list(studies.experiments) == ["a_d"]
    for name, problem in zip(("a", "a_b"), studies.problems, strict=True):
        assert problem.place.file == tmp_path / f"{name}.yaml"
        assert f"{tmp_path}/a.yaml and {tmp_path}/a_b.yaml. " in problem.message
        assert "'a_b_c'" in problem.message


def test_a_matrix_that_gives_one_name_twice_is_told(load):
    [problem] = load(MINIMAL + "matrix: {train.lr: [1e-4, 0.0001]}").problems
    assert "duplicate experiment name 'a_lr-0.0001'" in problem.message


@pytest.mark.parametrize("name", ["data", "catalog", "defaults", "my study", "-x", "é"])
def test_a_file_whose_name_cannot_be_a_study_is_told(load, name):
    [problem] = load({f"{name}.yaml": MINIMAL}).problems
    assert f"'{name}' cannot name a study" in problem.message


@pytest.mark.parametrize(
    ("catalog", "line", "key", "words"),
    [
        ("x:\n  format: alpaca", 1, "x", "exactly one of path, source; found none of them"),
        ("x:\n  path: p\n  format: alpca", 3, "x.format", "Did you mean 'alpaca'?"),
        ("x:\n  path: p\n  fromat: alpaca", 3, "x.fromat", "Did you mean 'format'?"),
        ("w: {path: p}\nx: 3", 2, "x", "expected a mapping"),
        ("x: {path: 1, source: [", 1, "", "not valid YAML"),
    ],
)
def test_a_mistake_in_a_catalog_is_told_at_its_line(load, catalog, line, key, words):
    [problem] = load({"catalog/datasets.yaml": catalog}).problems
    assert problem.place.file.name == "datasets.yaml"
    assert (problem.place.line, problem.key) == (line, key)
    assert words in problem.message


def test_a_broken_catalog_entry_leaves_the_others(load):
    catalog = "bad: {path: p, format: alpca}\nrows: {path: p, format: alpaca}"
    assert list(load({"catalog/datasets.yaml": catalog, "a.yaml": MINIMAL}).experiments) == ["a"]


def test_the_problems_of_an_experiment_are_those_that_keep_it_from_being_known(load):
    files = {
        "defaults/p.yaml": "foo: 1",
        "a.yaml": "extends: defaults/p\n" + MINIMAL + "variants: {x: {}}",
        "b.yaml": MINIMAL + "bar: 1",
    }
    studies = load(files)
    assert [problem.key for problem in studies.problems_of("a_x")] == ["foo"]
    assert [problem.key for problem in studies.problems_of("b")] == ["bar"]
    assert studies.problems_of("c") == []


def test_a_catalog_that_cannot_be_read_is_a_problem_of_every_experiment(load):
    studies = load({"catalog/models.yaml": "x: [", "a.yaml": MINIMAL})
    assert [problem.place.file.name for problem in studies.problems_of("a")] == ["models.yaml"]
