"""The README's commands, targets and YAML, tried against the code."""

import re
import shutil
import tomllib

import pytest

from snaketune.data.formats import FORMATS
from snaketune.experiment import load_studies
from snaketune.experiment.targets import STUDY_TARGETS, TARGETS, explain_unknown


@pytest.fixture(scope="module")
def readme(repository):
    return (repository / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module", params=["README.md", "docs/course.md"])
def page(repository, request):
    return (repository / request.param).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def studies(repository):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(repository)
        return load_studies(repository / "experiments")


def test_the_annotated_experiment_is_valid(readme, repository, tmp_path):
    for name in ("catalog", "defaults"):
        shutil.copytree(repository / "experiments" / name, tmp_path / name)
    (tmp_path / "mine.yaml").write_text(re.search(r"```yaml\n(.*?)```", readme, re.DOTALL)[1])
    found = load_studies(tmp_path)
    assert not found.problems
    assert set(found.experiments) == {"mine_alone", "mine_mixed"}


def test_inline_yaml_names_keys_that_exist(page, repository, tmp_path):
    for name in ("catalog", "probes"):
        shutil.copytree(repository / "experiments" / name, tmp_path / name)
    keys = "data|model|method|train|sample|evaluate|export|pack|max_length"
    lines = re.findall(rf"`((?:{keys}): .+?)`", page.replace("\n", " "))
    whole = [line for line in lines if "..." not in line]
    given = {"model": "{source: ./x}", "data": "[{dataset: assistant, vars: {name: Ada}}]"}
    for index, line in enumerate(whole):
        others = "".join(f"{key}: {of}\n" for key, of in given.items() if not line.startswith(key))
        text = line.replace("start_from: other_variant", "start_from: first")
        (tmp_path / f"inline{index}.yaml").write_text(f"{others}{text}\n")
    (tmp_path / "first.yaml").write_text("".join(f"{key}: {of}\n" for key, of in given.items()))
    found = load_studies(tmp_path)
    assert not found.problems
    assert len(found.experiments) == len(whole) + 1 > 1


def test_every_target_of_the_table_can_be_made_and_none_is_missing(readme, studies):
    table = re.search(r"## Targets\n(.*?)\n## ", readme, re.DOTALL)[1]
    for target in re.findall(r"`experiments/(X/[\w./]+)`", table):
        name = target.replace("X/", "experiments/agent_tuned/").replace("iter_N", "iter_20")
        assert explain_unknown(name, studies) is None
    for target in re.findall(r"`experiments/STUDY/([\w./]+)`", table):
        assert explain_unknown(f"experiments/oasst1/{target}", studies) is None
    known = [*TARGETS, *STUDY_TARGETS]
    assert all(target.rsplit("/", 1)[-1] in table for target in known)


def test_every_experiment_and_study_named_exists(page, studies):
    names = re.findall(r"experiments/((?![XY]/|STUDY/|probes/|catalog/|data/)\w+)/", page)
    known = {*studies.experiments, *(each.study for each in studies.experiments.values())}
    assert {name for name in names if not name.startswith("mine")} <= known


def test_the_table_of_studies_is_complete(readme, studies):
    listed = {
        f"{study}_{variant}"
        for study, variants in re.findall(r"^\| `(\w+)` \| ((?:`\w+`(?:, )?)+) \|", readme, re.M)
        for variant in re.findall(r"`(\w+)`", variants)
    }
    single = {name for name, each in studies.experiments.items() if each.variant is None}
    assert listed | single == set(studies.experiments)
    assert all(f"`{name}`" in readme for name in single)


def test_snakemake_commands_are_rules(readme, repository):
    files = [repository / "Snakefile", *(repository / "rules").glob("*.smk")]
    rules = {name for file in files for name in re.findall(r"^rule (\w+):", file.read_text(), re.M)}
    assert set(re.findall(r"`snakemake ([a-z]+)`", readme)) <= rules


def test_the_table_of_formats_is_complete(readme):
    table = readme.split("| format | a row |")[1].split("\n\n")[0]
    named = [line.split(" | ")[0] for line in table.splitlines()]
    assert set(re.findall(r"`(\w+)`", " ".join(named))) == set(FORMATS)


def test_ci_runs_the_test_command(readme, repository):
    install, run = ".venv/bin/pip install -e '.[test]'", ".venv/bin/pytest"
    assert f"{install} && {run}" in readme
    ci = (repository / ".ci" / "run").read_text()
    assert "-e '.[test]'" in ci
    assert re.search(r"^pytest$", ci, re.M)
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    assert {"test", "agent", "cuda"} <= set(project["optional-dependencies"])


def test_every_link_leads_somewhere(readme, repository):
    links = re.findall(r"\]\(([^)#]+)\)", readme)
    assert {"docs/reference.md", "docs/course.md"} <= set(links)
    assert all((repository / link).exists() for link in links)
