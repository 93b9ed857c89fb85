"""What `--config one=X two=Y` asks to compare. The Snakefile reads it, before anything runs."""

from collections.abc import Mapping
from typing import Any

from snaketune.core.errors import UserError, nearest
from snaketune.experiment import Studies

KEYS = ("one", "two")
"""Snakemake 9 refuses names of one letter, such as a and b."""


def read_pair(config: Mapping[str, Any], studies: Studies) -> list[str]:
    """Return the names of the two experiments to compare.

    Args:
        config: Snakemake's, which makes a number of `one=1`.

    Raises:
        UserError: One is missing or unknown, or both are the same.
    """
    names = [str(config[key]).strip("/") for key in KEYS if config.get(key) is not None]
    names = [name.removeprefix("experiments/") for name in names]
    known = list(studies.experiments)
    if len(names) < len(KEYS):
        first, second, *_ = [*known, "X", "Y"]
        raise UserError(
            "two experiments are needed to compare.\n"
            f"  Fix: name both, e.g. snakemake diff --config one={first} two={second}"
        )
    for name in names:
        if problems := studies.problems_of(name) if name not in known else ():
            listed = "\n".join(f"  {problem}" for problem in problems)
            raise UserError(f"{name} cannot be compared until these are corrected:\n{listed}")
        if name not in known:
            listed = ", ".join(sorted(known)) or "none"
            hint = nearest(name, known)
            raise UserError(f"there is no experiment '{name}'.{hint} Known: {listed}")
    if names[0] == names[1]:
        raise UserError(f"one and two are both {names[0]}.\n  Fix: name another experiment.")
    return names
