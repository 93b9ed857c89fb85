import importlib.util
import json
from pathlib import Path

import jsonschema
import pytest
from ruamel.yaml import YAML


@pytest.fixture(scope="module")
def generated(repository):
    spec = importlib.util.spec_from_file_location("ref", repository / "scripts" / "reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(repository)
        return module.generated()


def test_generated_files_are_up_to_date(repository, generated):
    stale = [path for path, text in generated.items() if (repository / path).read_text() != text]
    assert not stale, "run: python scripts/reference.py"


@pytest.mark.parametrize("name", ["cpu", "cuda", "agent"])
def test_environments_are_valid_yaml_with_the_pinned_packages(generated, name):
    environment = YAML(typ="safe").load(generated[f"envs/{name}.yaml"])
    packages = environment["dependencies"][-1]["pip"]
    assert "torch==2.13.*" in packages
    assert ("lagent==0.2.4" in packages) == (name == "agent")


def test_shipped_studies_follow_the_schema(repository, generated):
    schema = json.loads(generated["experiments/schema.json"])
    for study in (repository / "experiments").glob("*.yaml"):
        jsonschema.validate(YAML(typ="safe").load(study.read_text()), schema)


def test_the_schema_refuses_a_typo(generated):
    schema = json.loads(generated["experiments/schema.json"])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"train": {"epoks": 3}}, schema)


def test_the_reference_names_every_key_of_the_shipped_studies(repository, generated):
    page = generated["docs/reference.md"]
    for study in Path(repository / "experiments").glob("*.yaml"):
        assert all(f"`{key}`" in page for key in YAML(typ="safe").load(study.read_text()))
