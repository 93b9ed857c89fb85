"""What can be asked of Snakemake, and what to say when something else is asked."""

import re
from pathlib import PurePosixPath

from snaketune.errors import nearest
from snaketune.experiment.load import NOT_STUDIES, Studies

TARGETS = {
    "resolved.yaml": "the full configuration with every default and the ids",
    "data/report.html": "what was read, dropped and cut, and what the model learns from",
    "data/report.json": "the same for programs",
    "checkpoints/last.pth": "training",
    "adapter": "the adapter in PEFT format",
    "merged": "the full model in Hugging Face format",
    "split": "the same with one tensor in each file",
    "gguf": "the full model as one file for llama.cpp",
    "verify": "compares every file of `merged` with its manifest",
    "published": "the model on a hub: --config to=hf:ORG/NAME",
    "to_publish.txt": "what `published` would send; sends nothing",
    "registered": "the full model in MLflow's model registry",
    "eval/report.html": "base and merged model side by side",
    "eval/report.json": "the same for programs",
}
"""Below experiments/X/, and what each is."""

_ALSO_MADE = {"checkpoints/train.json", "data/report.txt"}
_AT_ITERATION = (
    *("adapter", "merged", "split", "gguf", "verify", "published", "to_publish.txt", "registered"),
)


def explain_unknown(target: str, studies: Studies) -> str | None:
    """Return why a target cannot be built and what to type instead, or None if it can.

    Only paths below experiments/ are judged; Snakemake knows about the rest.
    """
    parts = PurePosixPath(target).parts  # drops a leading ./ and a trailing /
    if parts[0] != "experiments" or len(parts) < 2 or parts[1] in NOT_STUDIES:
        return None
    name, file = parts[1], "/".join(parts[2:])
    problems = (
        studies.experiments[name].absent
        if name in studies.experiments
        else studies.problems_of(name)
    )
    if problems:
        listed = "\n".join(f"  {problem}" for problem in problems)
        return f"{target} cannot be built until these mistakes are corrected:\n{listed}"
    if name not in studies.experiments:
        known = ", ".join(sorted(studies.experiments)) or "none"
        return (
            f"there is no experiment '{name}'.{nearest(name, studies.experiments)} Known: {known}"
        )
    if file.startswith("data/") and not studies.experiments[name].sources:
        return f"{name} has no data, as it is converted. Give it data:, or build another target"
    if file.endswith("adapter") and studies.experiments[name].config.method.name == "full":
        return f"{name} is a full fine-tune, which has no adapter. Build experiments/{name}/merged"
    of_iteration = re.fullmatch(r"iter_[1-9]\d*/(.+)", file)
    if file in TARGETS or file in _ALSO_MADE or (of_iteration and of_iteration[1] in _AT_ITERATION):
        return None
    known = ", ".join([*TARGETS, *(f"iter_N/{each}" for each in _AT_ITERATION)])
    if not file:
        return f"name a target of {target}, e.g. {target.rstrip('/')}/merged. Known: {known}"
    return f"an experiment has no target '{file}'.{nearest(file, TARGETS)} Known: {known}"
