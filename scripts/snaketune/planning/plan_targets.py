"""What `--config target=...` asks to plan. The Snakefile reads it, before anything runs."""

import re
from collections.abc import Mapping
from typing import Any

from snaketune.core.errors import UserError
from snaketune.experiment import Studies
from snaketune.experiment.targets import explain_unknown

KEY = "target"


def read_targets(config: Mapping[str, Any], studies: Studies) -> list[str]:
    """Return the targets to plan: one, or several separated by spaces or commas.

    Args:
        config: Snakemake's, of which a value may be a number or a list as well.

    Raises:
        UserError: There is none, or one that cannot be built.
    """
    given = config.get(KEY)
    words = given if isinstance(given, list) else [] if given is None else [given]
    parts = [part for word in words for part in re.split(r"[\s,]+", str(word)) if part]
    targets = list(dict.fromkeys(part.removeprefix("./") for part in parts))
    example = next(iter(studies.experiments), "X")
    if not targets:
        raise UserError(
            "nothing says what to plan.\n  Fix: name it as you would build it, e.g. "
            f"snakemake plan --config target=experiments/{example}/merged"
        )
    for target in targets:
        if message := explain_unknown(target, studies):
            raise UserError(message)
    return targets
