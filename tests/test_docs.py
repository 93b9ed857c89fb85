"""The documentation's commands, targets and YAML, tried against the code."""

import re
import shlex
import shutil
import tomllib
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from snaketune.experiment import load_studies
from snaketune.experiment.agent_files import read_canned
from snaketune.experiment.targets import STUDY_TARGETS, TARGETS, explain_unknown

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", "CONTRIBUTING.md", *(f"docs/{page.name}" for page in ROOT.glob("docs/*.md"))]
OTHER_KEYS = {"model": "{source: ./x}", "data": "[{dataset: assistant, vars: {name: Ada}}]"}
"""What an experiment needs besides the keys that a page shows."""


@pytest.fixture(scope="module", params=PAGES)
def page(repository, request):
    return (repository / request.param).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def readme(repository):
    return (repository / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def studies(repository):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(repository)
        return load_studies(repository / "experiments")


@pytest.fixture
def experiments(repository, tmp_path):
    """A folder of experiments with the shipped catalog, defaults and probes, and no study."""
    for name in ("catalog", "defaults", "probes"):
        shutil.copytree(repository / "experiments" / name, tmp_path / name)
    return tmp_path


def blocks(page, language):
    """Return the code blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.DOTALL | re.MULTILINE)


def commands(page):
    """Return the commands of a page's shell blocks as lists of words, comments left out."""
    lines = "\n".join(blocks(page, "sh")).replace("\\\n", " ").splitlines()
    parts = (part for line in lines for part in line.split("&&"))
    return [words for part in parts if (words := shlex.split(part, comments=True))]


def test_the_annotated_experiment_is_valid(readme, experiments):
    (experiments / "mine.yaml").write_text(blocks(readme, "yaml")[0])

    found = load_studies(experiments)

    assert not found.problems
    assert set(found.experiments) == {"mine_alone", "mine_mixed"}


def test_yaml_of_the_pages_is_valid(page, experiments):
    keys = "data|model|method|train|sample|evaluate|export|pack|max_length|convert_from"
    inline = re.findall(rf"`((?:{keys}): .+?)`", page.replace("\n", " "))
    shown = [text for text in inline if "..." not in text]
    for block in blocks(page, "yaml"):
        if block.startswith("tools:"):
            (experiments / "tools.yaml.txt").write_text(block)
            assert read_canned(experiments / "tools.yaml.txt")
        elif re.match(keys, block):
            shown.append(block.strip())
    for index, text in enumerate(shown):
        text = text.replace("other_variant", "first").replace("COMMIT", "c" * 40)
        own = YAML(typ="safe").load(text)
        others = "".join(f"{key}: {value}\n" for key, value in OTHER_KEYS.items() if key not in own)
        (experiments / f"shown{index}.yaml").write_text(f"{others}{text}\n")
    first = "".join(f"{key}: {value}\n" for key, value in OTHER_KEYS.items())
    (experiments / "first.yaml").write_text(first)

    found = load_studies(experiments)

    assert not found.problems
    assert len(found.experiments) == len(shown) + 1


def test_targets_of_the_table_exist_and_none_is_missing(readme, studies):
    table = re.search(r"## Targets\n(.*?)\n## ", readme, re.DOTALL)[1]
    for target in re.findall(r"`experiments/(X/[\w./]+)`", table):
        name = target.replace("X/", "experiments/agent_tuned/").replace("iter_N", "iter_20")
        assert explain_unknown(name, studies) is None
    for target in re.findall(r"`experiments/STUDY/([\w./]+)`", table):
        assert explain_unknown(f"experiments/oasst1/{target}", studies) is None
    known = [*TARGETS, *STUDY_TARGETS]
    assert all(target.rsplit("/", 1)[-1] in table for target in known)


def test_experiments_that_pages_name_exist(page, studies):
    names = re.findall(
        r"experiments/((?![XY]/|STUDY/|probes/|catalog/|data/|deepspeed/)\w+)/", page
    )
    known = {*studies.experiments, *(e.study for e in studies.experiments.values())}
    assert {name for name in names if not name.startswith("mine")} <= known


def test_the_table_of_studies_is_complete(readme, studies):
    listed = {
        f"{study}_{variant}"
        for study, variants in re.findall(r"^\| `(\w+)` \| ((?:`\w+`(?:, )?)+) \|", readme, re.M)
        for variant in re.findall(r"`(\w+)`", variants)
    }
    single = {name for name, e in studies.experiments.items() if e.variant is None}
    assert listed | single == set(studies.experiments)
    assert all(f"`{name}`" in readme for name in single)


def test_snakemake_commands_are_rules(page, repository):
    files = [repository / "Snakefile", *(repository / "rules").glob("*.smk")]
    rules = {name for file in files for name in re.findall(r"^rule (\w+):", file.read_text(), re.M)}
    named = set(re.findall(r"`snakemake ([a-z]+)[` ]", page))
    named |= {
        words[1]
        for words in commands(page)
        if words[0].endswith("snakemake") and re.fullmatch("[a-z]+", words[1])
    }
    assert named <= rules


def test_programs_that_pages_run_exist(page, repository):
    programs = re.findall(r"scripts/\w+\.py", page)
    assert all((repository / program).is_file() for program in programs)


def test_flags_that_pages_show_exist(page, repository):
    for words in commands(page):
        if words[:1] != ["python"] or not words[1].startswith("scripts/"):
            continue
        source = (repository / words[1]).read_text()
        flags = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert {flag for flag in flags if f'"{flag}"' not in source} <= {"--log", "--help"}


def test_ci_runs_the_test_command(readme, repository):
    install, run = ".venv/bin/pip install -e '.[test]'", ".venv/bin/pytest"
    assert f"{install} && {run}" in readme
    ci = (repository / ".ci" / "run").read_text()
    assert "-e '.[test]'" in ci
    assert re.search(r"^pytest$", ci, re.M)
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    assert {"test", "agent", "cuda"} <= set(project["optional-dependencies"])


def test_the_changelog_has_the_release(repository):
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    assert f"\n## {project['version']}\n" in (repository / "CHANGELOG.md").read_text()


@pytest.mark.parametrize("name", PAGES)
def test_links_of_pages_lead_somewhere(repository, name):
    page = repository / name
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text(encoding="utf-8")):
        path, _, heading = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        if heading:
            titles = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.M)
            anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
            assert heading in anchors, link


def test_every_page_is_linked_from_the_readme(readme):
    assert {page for page in PAGES if page != "README.md"} <= set(
        re.findall(r"\]\(([^)#]+)", readme)
    )
