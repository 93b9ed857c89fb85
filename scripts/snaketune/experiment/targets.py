"""What can be asked of Snakemake, and what to say when something else is asked."""

import re

from snaketune.errors import nearest
from snaketune.experiment.load import Studies

TARGETS = {
    "resolved.yaml": "the full configuration with every default and the ids",
    "data/report.txt": "what was read, dropped and cut, and what the model learns from",
    "data/report.json": "the same for programs",
    "checkpoints/last.pth": "training",
    "adapter": "the adapter in PEFT format",
    "merged": "the full model in Hugging Face format",
    "eval/report.html": "base and merged model side by side",
    "eval/report.json": "the same for programs",
}
"""Below experiments/X/, and what each is."""

_AT_ITERATION = re.compile(r"iter_[1-9]\d*/(adapter|merged)")


def explain_unknown(target: str, studies: Studies) -> str | None:
    """Return why a target cannot be built and what to type instead, or None if it can.

    Only paths below experiments/ are judged; Snakemake knows about the rest.
    """
    parts = target.strip("/").split("/", 2)
    if parts[0] != "experiments" or len(parts) < 3:
        return None
    _, name, file = parts
    if problems := studies.problems_of(name):
        listed = "\n".join(f"  {problem}" for problem in problems)
        if name not in studies.experiments:
            return f"{target} cannot be built until these mistakes are corrected:\n{listed}"
    if name not in studies.experiments:
        known = ", ".join(sorted(studies.experiments)) or "none"
        return (
            f"there is no experiment '{name}'.{nearest(name, studies.experiments)} Known: {known}"
        )
    if file in TARGETS or file in _ALSO_MADE or _AT_ITERATION.fullmatch(file):
        return None
    known = ", ".join(TARGETS)
    return f"an experiment has no target '{file}'.{nearest(file, TARGETS)} Known: {known}"


_ALSO_MADE = {"checkpoints/train.json"}
