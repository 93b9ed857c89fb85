# Functions that the rules share. Nothing here may import torch: a dry run stays near one second.

import functools
import importlib.util
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from snaketune.core.data_paths import data_files
from snaketune.comparison.pair_config import read_pair
from snaketune.core.digests import canonical, digest
from snaketune.core.errors import UserError
from snaketune.experiment import base_id, data_id, load_studies, train_id
from snaketune.experiment.identity import (
    EXPORT_VERSION,
    agent_key,
    base_key,
    data_key,
    evaluate_key,
    export_key,
    report_key,
    result_key,
    train_key,
)
from snaketune.experiment.experiment import is_task_file
from snaketune.experiment.probe_files import rows_file, task_files
from snaketune.experiment.targets import explain_unknown
from snaketune.planning.plan_targets import read_targets
from snaketune.publish import publish_config as publishing
from snaketune.serving import lifetime
from snaketune.serving.model_names import read_model, read_models, weights_of
from snaketune.tracking.mlflow_client import shown_uri

# Rules call `python`; it must be the one that runs Snakemake, activated or not.
os.environ.update(PATH=os.pathsep.join([str(Path(sys.executable).parent), os.getenv("PATH", "")]))
os.environ.setdefault(lifetime.SNAKEMAKE, str(os.getpid()))  # what serves ends with it

STUDIES = load_studies(Path("experiments"))
BASES = {base_id(each): each for each in STUDIES.experiments.values()}
DATA = {data_id(each): each for each in STUDIES.experiments.values()}
DATASETS = {
    Path(source.hub.folder).name: source.hub
    for each in STUDIES.experiments.values()
    for source in each.sources
    if source.hub
}
probe_rows = functools.cache(rows_file)  # many experiments ask the same probes
CONVERTED = {name for name, each in STUDIES.experiments.items() if each.convert_from}


def one_of(names):
    """Return a wildcard's pattern that matches these names and nothing else."""
    return "|".join(map(re.escape, names)) or "(?!)"


def experiment(wildcards):
    return STUDIES.experiments[wildcards.experiment]


def base_provenance(wildcards):
    """Return the file that stands for the base model of an experiment or of processed data."""
    found = DATA[wildcards.data_id] if hasattr(wildcards, "data_id") else experiment(wildcards)
    return f"store/models/{base_id(found)}/provenance.json"


def local_model_files(wildcards):
    """Return the files of a base model given as a local folder, so that a change is noticed."""
    source = Path(BASES[wildcards.base_id].base.source)
    return sorted(map(str, source.glob("*"))) if ":" not in str(source) else []


def source_files(wildcards):
    """Return the files that processed data is read from; provenance stands for hub files."""
    sources = DATA[wildcards.data_id].sources
    local = [file for s in sources if not s.hub for file in data_files(Path(s.path))]
    return [f"{s.hub.folder}/provenance.json" for s in sources if s.hub] + list(map(str, local))


def probe_files(wildcards):
    """Return the files with the questions of an experiment's probes, and their data files."""
    files = experiment(wildcards).probe_files
    return files + [str(rows) for file in files if (rows := probe_rows(Path(file)))]


def lm_eval_files(wildcards):
    """Return the files of an experiment's own tasks of lm-evaluation-harness."""
    own = filter(is_task_file, experiment(wildcards).lm_eval)
    return [str(file) for task in own for file in task_files(Path(task))]


def processed(name):
    """Return an input function for one file of an experiment's processed data."""
    return lambda wildcards: f"store/data/{data_id(experiment(wildcards))}/{name}"


def variants_of(study):
    """Return the experiments of a study, in the order of its file."""
    return [each for each in STUDIES.experiments.values() if each.study == study]


def study_reports(wildcards):
    """Return the evaluation of each variant of a study."""
    return [f"experiments/{each.name}/eval/report.json" for each in variants_of(wildcards.study)]


def study_settings(wildcards):
    """Return what a study's page shows beside its variants' results: all their settings."""
    return digest([[each.name, each.config.model_dump()] for each in variants_of(wildcards.study)])


def compare_what_is_there():
    """Make the page of a study that was asked for although a variant of it has failed."""
    asked = filter(None, (re.match(r"(?:\./)*experiments/([^/]+)/compare/", a) for a in sys.argv))
    for study in dict.fromkeys(found[1] for found in asked):
        log = f"logs/{study}/compare_now.log"  # compare.log may tell the very error
        subprocess.run([sys.executable, "scripts/compare.py", study, "--log", log], check=False)


def start_checkpoint(wildcards):
    """Return the end of the training that an experiment goes on from, if there is one."""
    start = experiment(wildcards).start
    return f"experiments/{start.name}/checkpoints/last.pth" if start else []


def converted_files(wildcards):
    """Return the files of the checkpoint that an experiment is converted from."""
    source = Path(experiment(wildcards).convert_from)
    return sorted(map(str, source.glob("*.pt"))) if source.is_dir() else str(source)


def checkpoint(wildcards):
    """Return the checkpoint of an iteration, or of the end; kept iterations are no declared files."""
    name = Path(wildcards.at).name or "last"
    return f"experiments/{wildcards.experiment}/checkpoints/{name}.pth"


def trained_weights(wildcards):
    """Return what a model is merged from: an adapter, or the end of a full fine-tune."""
    folder = f"experiments/{wildcards.experiment}"
    if experiment(wildcards).config.method.name == "full":
        return f"{folder}/checkpoints/last.pth"
    return f"{folder}/{wildcards.at}adapter"


def merged_weights(wildcards, input):
    """Return the same for the program: of a full fine-tune the iteration's own checkpoint."""
    is_full = experiment(wildcards).config.method.name == "full"
    return checkpoint(wildcards) if is_full else input.trained


def published_folder(wildcards):
    """Return the folder that is published: the merged model or the adapter."""
    return f"experiments/{wildcards.experiment}/{wildcards.at}{requested().what}"


def served_weights(program):
    """Return the weights of the models that --config names, for a program that talks to them."""
    models = read_models(config, STUDIES, program)
    bases = {base_id(STUDIES.experiments[each.partition("/")[0]]) for each in models}
    return [
        *(f"store/models/{base}/provenance.json" for base in sorted(bases)),
        *(weights_of(each, STUDIES) for each in models),
    ]


def requested():
    """Return what --config says of publishing; only the rules that publish may ask."""
    return publishing.read_publish_config(config)


def refuse_publishing_without_token():
    """Stop before the first job, so that nobody trains for hours and is told at the end."""
    if any(re.fullmatch(r"(\./)*experiments/.+/published", each) for each in sys.argv[1:]):
        try:
            publishing.require_token(requested().scheme, os.environ)
        except UserError as error:
            sys.exit(f"Error: {error}")


def refuse_unknown_targets():
    """Stop with a helpful message when a target names no experiment or no file we can make."""
    for target in filter(re.compile(r"(\./)*experiments/").match, sys.argv[1:]):
        message = explain_unknown(target, STUDIES) or publishing.explain_publish_target(
            target, STUDIES, config
        )
        if message:
            sys.exit(f"Error: {message}")


def refuse_unclear_questions():
    """Stop with a helpful message when --config does not say what to plan or to compare."""
    readers = {"plan": read_targets, "diff": read_pair}
    talking = {"chat": read_model, "demo": read_models, "serve": read_models}
    try:
        for asked in readers.keys() & set(sys.argv[1:]):
            readers[asked](config, STUDIES)
        for asked in talking.keys() & set(sys.argv[1:]):
            talking[asked](config, STUDIES, asked)
    except UserError as error:
        sys.exit(f"Error: {error}")


def refuse_without_packages():
    """Stop before the first job where the packages of the extra `agent` are missing."""
    if workflow.deployment_settings.deployment_method:
        return  # conda brings them
    asked = [
        each for each in sys.argv[1:] if re.fullmatch(r"demo|(\./)*experiments/.+/agent/.+", each)
    ]
    if asked and not (importlib.util.find_spec("lagent") and importlib.util.find_spec("streamlit")):
        sys.exit(
            f"Error: {asked[0]} needs packages that are not installed here.\n"
            "  Fix: .venv/bin/pip install -e '.[agent]'"
        )


refuse_unknown_targets()
refuse_unclear_questions()
refuse_without_packages()
