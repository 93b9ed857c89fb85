import pytest

from snaketune.experiment import train_id

PIN, OTHER_PIN = "a" * 40, "b" * 40
MINIMAL = "model: tiny\ndata: [{dataset: rows}]\n"
CONVERTED = "model: tiny\nconvert_from: iter_5.pth\n"


def config_of(studies, name="a"):
    assert studies.problems == []
    return studies.experiments[name].config


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("train: {lr: 1e-4}", 1e-4),
        ("train: {lr: 2E-05}", 2e-5),
        ("train: {lr: 5.0e-6}", 5e-6),
        ("train: {lr: 1}", 1.0),
    ],
)
def test_a_learning_rate_is_a_number_however_it_is_written(load, written, read):
    assert config_of(load(MINIMAL + written)).train.lr == read


@pytest.mark.parametrize("word", ["no", "none", "yes", "on", "off", "n", "y", "No"])
def test_a_yaml_1_1_boolean_is_a_word(load, word):
    studies = load(MINIMAL + f"description: {word}\nsample: {{prompts: [{word}]}}\n")
    assert config_of(studies).description == word
    assert config_of(studies).sample.prompts == [word]


def test_none_is_a_deepspeed_stage_and_a_variant_name(load):
    studies = load(MINIMAL + "variants: {none: {train: {deepspeed: none}}}")
    assert config_of(studies, "a_none").train.deepspeed == "none"


def test_a_byte_order_mark_and_windows_line_ends_are_read(load):
    studies = load({"a.yaml": ("\ufeff" + MINIMAL + "max_length: 64\n").replace("\n", "\r\n")})
    assert config_of(studies).max_length == 64


def test_the_childs_keys_win_over_three_levels(load):
    studies = load(
        {
            "defaults/grand.yaml": "train: {lr: 1e-3, seed: 1, epochs: 1}\nmax_length: 64",
            "defaults/parent.yaml": "extends: defaults/grand\ntrain: {lr: 2e-3, seed: 2}",
            "a.yaml": MINIMAL + "extends: defaults/parent\ntrain: {lr: 3e-3}",
        }
    )
    config = config_of(studies)
    assert (config.train.lr, config.train.seed, config.train.epochs) == (3e-3, 2, 1)
    assert config.max_length == 64


def test_a_list_is_replaced_not_joined(load):
    studies = load(
        {
            "defaults/p.yaml": MINIMAL + "sample: {prompts: [one, two]}",
            "a.yaml": "extends: defaults/p\nsample: {prompts: [three]}\ndata: [{dataset: rows}]",
        }
    )
    assert config_of(studies).sample.prompts == ["three"]
    assert len(config_of(studies).data) == 1


def test_a_word_replaces_a_mapping_and_a_mapping_a_word(load):
    inline = f"model: {{source: 'hf:o/n', revision: {PIN}}}\n"
    parent = "data: [{dataset: rows}]\n"
    studies = load(
        {
            "defaults/inline.yaml": parent + inline,
            "defaults/named.yaml": parent + "model: tiny\n",
            "a.yaml": "extends: defaults/inline\nmodel: tiny\n",
            "b.yaml": "extends: defaults/named\n" + inline,
        }
    )
    assert config_of(studies, "a").model == "tiny"
    assert config_of(studies, "b").model.source == "hf:o/n"


def test_a_study_may_extend_another_study_and_its_variants(load):
    variants = "variants: {x: {train: {seed: 7}}}\n"
    studies = load({"b.yaml": MINIMAL + variants, "a.yaml": "extends: b\nmax_length: 64"})
    assert sorted(studies.experiments) == ["a_x", "b_x"]
    assert studies.experiments["a_x"].config.train.seed == 7
    assert studies.experiments["b_x"].config.max_length != 64


def test_a_variant_changes_only_what_it_names(load):
    text = "train: {lr: 1e-3, seed: 5}\nvariants:\n  plain: {}\n  bare:\n  hot: {train: {lr: 1}}\n"
    studies = load(MINIMAL + text)
    settings = {
        name: (experiment.config.train.lr, experiment.config.train.seed)
        for name, experiment in studies.experiments.items()
    }
    assert settings == {"a_plain": (1e-3, 5), "a_bare": (1e-3, 5), "a_hot": (1, 5)}


def test_an_experiment_knows_its_study_and_variant(load):
    experiment = load(MINIMAL + "variants: {x: {}}").experiments["a_x"]
    assert (experiment.study, experiment.variant, experiment.file.name) == ("a", "x", "a.yaml")


def test_a_study_without_variants_is_itself_an_experiment(load):
    experiment = load(MINIMAL).experiments["a"]
    assert (experiment.name, experiment.study, experiment.variant) == ("a", "a", None)


def test_a_matrix_gives_each_combination_under_the_last_part_of_its_keys(load):
    matrix = "train: {seed: 9}\nmatrix: {train.lr: [1e-4, 2e-4], method.r: [8, 16]}"
    studies = load(MINIMAL + matrix)
    settings = {
        name: (experiment.config.train.lr, experiment.config.method.r)
        for name, experiment in studies.experiments.items()
    }
    assert settings == {
        "a_lr-0.0001_r-8": (1e-4, 8),
        "a_lr-0.0001_r-16": (1e-4, 16),
        "a_lr-0.0002_r-8": (2e-4, 8),
        "a_lr-0.0002_r-16": (2e-4, 16),
    }
    assert {one.config.train.seed for one in studies.experiments.values()} == {9}


def test_two_matrix_keys_of_one_section_are_both_set(load):
    studies = load(MINIMAL + "matrix: {train.deepspeed: [zero2], train.seed: [3], pack: [false]}")
    config = config_of(studies, "a_deepspeed-zero2_seed-3_pack-False")
    assert (config.train.deepspeed, config.train.seed, config.pack) == ("zero2", 3, False)


def test_a_data_set_of_the_catalog_is_filled_in(load, tmp_path):
    catalog = "mine: {path: d/x.jsonl, format: assistant, vars: {name: Ada, author: Grace}}"
    text = "model: tiny\ndata: [{dataset: mine, vars: {name: Bob}, weight: 0.5, max_rows: 7}]"
    studies = load({"catalog/datasets.yaml": catalog, "a.yaml": text})
    [source] = studies.experiments["a"].sources
    assert source.path == f"{tmp_path}/d/x.jsonl"
    assert source.vars == {"name": "Bob", "author": "Grace"}
    assert (source.label, source.format, source.weight) == ("mine", "assistant", 0.5)
    assert source.max_rows == 7


def test_a_source_on_a_hub_is_given_a_folder_of_its_own(load):
    hub = "source: 'hf:o/n', revision: {}, file: sub/x.jsonl, format: openai"
    items = ", ".join(f"{{{hub.format(revision)}}}" for revision in (PIN, OTHER_PIN))
    sources = load(f"model: tiny\ndata: [{items}]").experiments["a"].sources
    assert [source.hub.revision for source in sources] == [PIN, OTHER_PIN]
    assert sources[0].path == f"{sources[0].hub.folder}/sub/x.jsonl"
    assert sources[0].path != sources[1].path
    assert sources[0].label == "x"


def test_a_base_model_may_be_named_or_written_out(load, tmp_path):
    data = "data: [{dataset: rows}]\n"
    inline = f"model: {{source: 'hf:org/Big-Model', revision: {PIN}}}\n"
    experiments = load({"a.yaml": "model: tiny\n" + data, "b.yaml": inline + data}).experiments
    assert experiments["a"].base_name == "tiny"
    assert experiments["a"].base.source == f"{tmp_path}/tiny"
    assert experiments["b"].base_name == "Big-Model"
    assert experiments["b"].base.source == "hf:org/Big-Model"


def test_evaluation_prompts_default_to_the_sample_prompts(load):
    prompts = "sample: {prompts: [hello]}\n"
    studies = load(
        {
            "a.yaml": MINIMAL + prompts,
            "b.yaml": MINIMAL + prompts + "evaluate: {prompts: [bye]}",
            "c.yaml": MINIMAL + prompts + "evaluate: {prompts: []}",
        }
    )
    found = {name: experiment.prompts for name, experiment in studies.experiments.items()}
    assert found == {"a": ["hello"], "b": ["bye"], "c": []}


def test_an_empty_folder_has_no_experiments_and_no_problems(tmp_path):
    from snaketune.experiment import load_studies

    studies = load_studies(tmp_path)
    assert (studies.experiments, studies.problems) == ({}, [])


def test_results_and_defaults_are_not_studies(load):
    studies = load({"a.yaml": MINIMAL, "a/resolved.yaml": "x: 1", "defaults/d.yaml": "nothing: 1"})
    assert list(studies.experiments) == ["a"]
    assert studies.problems == []


@pytest.mark.parametrize("path", ["r{x}.jsonl", "*.jsonl", "."])
def test_a_data_file_that_snakemake_would_take_for_a_pattern_is_refused(load, tmp_path, path):
    (tmp_path / "r{x}.jsonl").write_text("{}")
    text = f"model: tiny\ndata:\n  - {{dataset: rows}}\n  - {{path: '{path}', format: auto}}"
    [problem] = load(text).problems
    assert (problem.place.line, problem.key) == (4, "data[1]")
    assert "r{x}.jsonl: Snakemake reads {x} as a wildcard" in problem.message


def test_a_folder_with_a_state_json_of_another_kind_is_loaded(load, tmp_path):
    (tmp_path / "state.json").write_text('{"x": 1}')
    (tmp_path / "tiny").mkdir()
    assert load("model: tiny\ndata: [{path: ., format: auto}]").missing == []


def test_a_folder_without_data_files_is_told(load, tmp_path):
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "README.md").write_text("nothing yet")
    [problem] = load("model: tiny\ndata: [{path: tiny, format: auto}]").missing
    assert "tiny has no data files" in problem.message


STARTS = "model: {source: .}\nmethod: {name: lora, r: 8}\ndata: [{path: x.jsonl, format: alpaca}]\n"


def test_an_experiment_goes_on_from_another_and_follows_its_changes(load):
    second = "\nvariants: {a: {}, b: {method: {start_from: study_a, dropout: 0}}}"
    found, changed = (
        load({"study.yaml": f"{STARTS}train: {{lr: {lr}}}{second}"}).experiments
        for lr in ("1e-4", "2e-4")
    )
    assert found["study_b"].start == found["study_a"]
    assert found["study_a"].start is None
    fixed = {"study.yaml": f"{STARTS}train: {{lr: 1e-4}}{second}"}
    assert train_id(load(fixed).experiments["study_b"]) == train_id(found["study_b"])
    assert train_id(changed["study_b"]) != train_id(found["study_b"])
    assert train_id(found["study_b"]) != train_id(found["study_a"])


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("{start_from: study_c}", "no experiment 'study_c' to start from. Did you mean"),
        ("{start_from: study_b}", "a cycle: study_b starts from study_b"),
        ("{start_from: study_a, r: 4}", "'study_a' has another method"),
    ],
)
def test_a_start_that_cannot_be_is_told(load, method, words):
    studies = load({"study.yaml": f"{STARTS}variants: {{a: {{}}, b: {{method: {method}}}}}"})
    [problem] = studies.problems
    assert words in problem.message
    assert list(studies.experiments) == ["study_a"]


def test_a_converted_experiment_names_a_file_and_needs_no_data(load, tmp_path):
    studies = load({"tiny/config.json": "{}", "iter_5.pth": b"x", "a.yaml": CONVERTED})
    assert config_of(studies).data == []
    assert studies.experiments["a"].convert_from == f"{tmp_path}/iter_5.pth"
    assert studies.missing == []


def test_a_checkpoint_that_is_not_there_is_told_with_the_nearest(load):
    text = CONVERTED.replace("iter_5", "iter_50")
    studies = load({"tiny/config.json": "{}", "iter_5.pth": b"x", "a.yaml": text})
    [problem] = studies.missing
    assert "iter_50.pth does not exist" in problem.message
    assert "Did you mean 'iter_5.pth'?" in problem.message
    assert (problem.key, problem.place.line) == ("convert_from", 2)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "is not JSON"),
        ("[]", "expected a JSON object, found list"),
        ("{}", "expected `zero_optimization` with `stage` 1, 2 or 3"),
        ('{"zero_optimization": {"stage": 0}}', "with `stage` 1, 2 or 3"),
        ('{"zero_optimization": {"stage": 2}, "bf16": {}}', "remove bf16: `train:` decides them"),
    ],
)
def test_a_file_for_deepspeed_that_cannot_be_used_is_told(load, content, words):
    text = f"{STARTS}train: {{deepspeed: own.json}}"
    [problem] = load({"own.json": content, "study.yaml": text}).problems
    assert words in problem.message
    assert (problem.key, problem.place.line) == ("train.deepspeed", 4)


PROBED = "model: tiny\ndata: [{dataset: rows, vars: {name: Ada}}, {dataset: rows}]\n"


def test_probes_have_the_datas_one_name_and_their_files(load, tmp_path):
    files = {f"probes/{name}.yaml": "" for name in ("leak", "mine", "retention")}
    text = PROBED + "evaluate: {probes: [leak, retention]}"
    experiment = load(files | {"a.yaml": text}).experiments["a"]
    assert experiment.persona == "Ada"
    assert experiment.probe_files == [
        f"{tmp_path}/probes/{name}.yaml" for name in ("leak", "retention")
    ]


def test_a_probe_without_a_file_is_a_mistake_and_so_is_a_reserved_name(load):
    names = ("leak", "heldout_answers", "a.b")
    files = {f"probes/{name}.yaml": "" for name in names}
    text = PROBED + "evaluate:\n  probes:\n  - leak\n  - heldout_answers\n  - a.b\n  - leek"
    found = load(files | {"a.yaml": text}).problems
    assert [(each.key, each.place.line) for each in found] == [
        ("evaluate.probes[1]", 6),
        ("evaluate.probes[2]", 7),
        ("evaluate.probes[3]", 8),
    ]
    assert "there is no probes/leek.yaml. Did you mean 'leak'? Known: leak" in found[2].message


def test_tasks_of_the_harness_are_names_or_files_of_the_folder(load, tmp_path):
    text = MINIMAL + "evaluate: {lm_eval: [arc_easy, tasks/mine.yaml]}"
    [told] = [
        each for each in load({"a.yaml": text}).experiments["a"].missing if each.key[:4] == "eval"
    ]
    assert (told.key, told.place.line) == ("evaluate.lm_eval[1]", 3)
    assert "tasks/mine.yaml does not exist" in told.message
    experiment = load({"tasks/mine.yaml": "", "a.yaml": text}).experiments["a"]
    assert experiment.lm_eval == ["arc_easy", f"{tmp_path}/tasks/mine.yaml"]
    assert "evaluate" not in {each.key.split(".")[0] for each in experiment.missing}


def test_without_probes_any_number_of_names_will_do(load):
    two = PROBED.replace("{dataset: rows}]", "{dataset: rows, vars: {name: Bob}}]")
    one = MINIMAL + "evaluate: {probes: [retention]}"
    studies = load({"probes/retention.yaml": "", "a.yaml": two, "b.yaml": one})
    assert studies.problems == []
    assert {name: each.persona for name, each in studies.experiments.items()} == {
        "a": None,
        "b": None,
    }
