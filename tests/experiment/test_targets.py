import pytest

from snaketune.experiment.studies import agent_mistakes
from snaketune.experiment.targets import STUDY_TARGETS, TARGETS, explain_unknown

MINIMAL = "model: tiny\ndata: [{dataset: rows}]\n"


@pytest.fixture
def studies(load, tmp_path):
    (tmp_path / "tiny").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "rows.jsonl").touch()
    (tmp_path / "data" / "q.yaml").write_text("- {question: Hello!, tool: null}")
    gone = "model: tiny\ndata: [{dataset: rows}, {path: data/row.jsonl, format: alpaca}]"
    return load(
        {
            "a.yaml": MINIMAL + "agent: {questions: data/q.yaml}\nvariants: {none: {}, zero2: {}}",
            "d.yaml": MINIMAL,
            "b.yaml": MINIMAL + "foo: 1",
            "c.yaml": gone,
        }
    )


@pytest.mark.parametrize("target", [*TARGETS, "iter_300/adapter", "iter_1/merged", "iter_2/gguf"])
@pytest.mark.parametrize("start", ["experiments/", "./experiments/"])
def test_what_can_be_built_needs_no_explanation(studies, start, target):
    assert explain_unknown(f"{start}a_none/{target}", studies) is None


def test_mistakes_in_an_agents_questions_are_told_with_their_line(studies, tmp_path):
    (tmp_path / "data" / "q.yaml").write_text("- {question: Hello!, tool: null}\n- {tool: null}")
    told = explain_unknown("experiments/a_none/agent/report.html", studies)
    assert "q.yaml:2: questions[1].question" in told
    assert explain_unknown("experiments/a_none/merged", studies) is None


def test_mistakes_in_an_agents_canned_tools_are_told_before_anything_is_trained(load, tmp_path):
    agent = "agent: {questions: data/q.yaml, canned: data/t.yaml}"
    (tmp_path / "tiny").mkdir()
    for name in ("rows.jsonl", "q.yaml", "t.yaml"):
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / name).write_text("- {question: Hello!, tool: null}\n")
    studies = load({"c.yaml": MINIMAL + agent})
    told = explain_unknown("experiments/c/agent/report.html", studies)
    assert "t.yaml:1: tools[0].question: unknown key" in told
    assert "q.yaml" not in told
    twice = agent_mistakes([*studies.experiments.values()] * 2)
    assert len(set(map(str, twice))) == len(twice) >= 2


@pytest.mark.parametrize("target", STUDY_TARGETS)
def test_a_study_has_targets_of_its_own(studies, target):
    assert explain_unknown(f"experiments/a/{target}", studies) is None


@pytest.mark.parametrize(
    "target",
    [".", "check", "store/data/x/report.txt", "experiments/schema.json/", "experiments/data/x"],
)
def test_what_is_no_experiment_is_left_to_snakemake(studies, target):
    told = explain_unknown(target, studies)
    assert told is None or "schema.json" in target


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("experiments/a_nun/merged", ["no experiment 'a_nun'", "Did you mean 'a_none'?"]),
        ("experiments/a_none/mergd", ["no target 'mergd'", "Did you mean 'merged'?"]),
        ("experiments/a_none/iter_0/merged", ["no target 'iter_0/merged'"]),
        (
            "experiments/d/agent/report.html",
            ["d has no questions for an agent", "agent: {questions: ...}"],
        ),
        ("experiments/a_none", ["name a target", "e.g. experiments/a_none/merged"]),
        ("experiments/a_none/", ["e.g. experiments/a_none/merged"]),
        (
            "experiments/a/compare/report.htm",
            ["a study has no", "Did you mean 'compare/report.html'?"],
        ),
        ("experiments/a/compare", ["a study has no target 'compare'"]),
        ("experiments/a", ["name a target", "e.g. experiments/a/compare/report.html"]),
        ("experiments/a/merged", ["a is a study of a_none, a_zero2", "experiments/a_none/merged"]),
        (
            "experiments/a_none/compare/table.csv",
            ["one variant", "experiments/a/compare/table.csv"],
        ),
        ("experiments/aa/compare/table.csv", ["no study 'aa'", "Did you mean 'a'? Known: a, c"]),
        ("experiments/b/compare/report.html", ["until these mistakes", "b.yaml:3: foo"]),
        (
            "experiments/c/compare/report.html",
            ["data/row.jsonl does not exist", "snakemake compare --config study=c"],
        ),
        ("experiments/b/merged", ["until these mistakes", "b.yaml:3: foo: unknown key"]),
        (
            "experiments/c/merged",
            ["c.yaml:2: data[1]:", "data/row.jsonl does not exist;", "Did you mean 'rows.jsonl'?"],
        ),
    ],
)
def test_what_cannot_be_built_is_explained(studies, target, words):
    told = explain_unknown(target, studies)
    assert all(word in told for word in words), told


def test_an_experiment_whose_files_are_absent_is_known_all_the_same(studies):
    assert "c" in studies.experiments
    assert [problem.place.line for problem in studies.missing] == [2]


def test_a_converted_experiment_without_data_has_no_report_of_it(load):
    text = "model: {source: .}\nconvert_from: iter_5.pth"
    studies = load({"a.yaml": text, "iter_5.pth": "x"})
    assert "Give it data:" in explain_unknown("experiments/a/data/report.html", studies)
    assert explain_unknown("experiments/a/eval/report.html", studies) is None


def test_a_full_fine_tune_has_no_adapter(load):
    text = "model: {source: .}\nmethod: {name: full}\ndata: [{path: x.jsonl, format: text}]"
    studies = load({"a.yaml": text, "x.jsonl": "{}"})
    for target in ("experiments/a/adapter", "experiments/a/iter_3/adapter"):
        assert "Build experiments/a/merged" in explain_unknown(target, studies)
    assert explain_unknown("experiments/a/iter_3/merged", studies) is None


def test_a_broken_probe_stops_its_reports_alone(load, tmp_path):
    text = "model: {source: .}\ndata: [{path: x.jsonl, format: text}]\nevaluate: {probes: [mine]}"
    files = {"a.yaml": text, "x.jsonl": "{}", "probes/mine.yaml": "kind: numeric\nquestions: []"}
    studies = load(files | {"b.yaml": text.replace("[mine]", "[]")})
    told = explain_unknown("experiments/a/eval/report.json", studies)
    assert "a/eval/report.json cannot be built until its probes are corrected" in told
    assert f"{tmp_path}/probes/mine.yaml:2: questions: found" in told
    assert explain_unknown("experiments/a/merged", studies) is None
    assert explain_unknown("experiments/b/eval/report.html", studies) is None


def test_a_broken_probe_is_told_before_all_variants_are_trained(load, tmp_path):
    text = "model: {source: .}\ndata: [{path: x.jsonl, format: text}]\nevaluate: {probes: [mine]}"
    text += "\nvariants: {one: {}, two: {train: {seed: 1}}}"
    files = {"a.yaml": text, "x.jsonl": "{}", "probes/mine.yaml": "kind: numeric\nquestions: []"}
    told = explain_unknown("experiments/a/compare/report.html", load(files))
    assert told.count(f"{tmp_path}/probes/mine.yaml:2: questions: found") == 1
    assert "The page of what is there: snakemake compare --config study=a" in told
