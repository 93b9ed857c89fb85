"""A repository's folders with two trained tiny models in them, and a server for them."""

import json
import shutil

import pytest

from snaketune.serving import lifetime
from snaketune.serving.server_process import model_server

BASE = "tiny"


@pytest.fixture(scope="session")
def workspace(trained, base, tmp_path_factory):
    """Two experiments on one base: `run` trained to its end, `other` at iteration 12 of it."""
    folder = tmp_path_factory.mktemp("workspace")
    shutil.copytree(base, folder / "store/models" / BASE)
    config = folder / "store/models" / BASE / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"max_position_embeddings": 300}))
    for name, iteration in (("run", "last"), ("other", "12")):
        shutil.copytree(trained.export(iteration), folder / "experiments" / name / "adapter")
    shutil.copytree(trained.output, folder / "experiments/run/checkpoints")
    about = folder / "experiments/other/adapter/snaketune.json"
    record = json.loads(about.read_text())
    record["template"]["system"] = 'It\'s "quoted" {{ 1 + 1 }}.'
    about.write_text(json.dumps(record))
    return folder


@pytest.fixture(scope="module")
def server(workspace):
    """The endpoint with all of them, in fp32."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(workspace)
        # as in a job on another machine than the Snakemake that has submitted it
        patch.setenv(lifetime.SNAKEMAKE, "4194305")
        names = ["run", "other", "run/iter_4"]
        with model_server(names, workspace / "logs/serve.log", precision="fp32") as running:
            yield running
