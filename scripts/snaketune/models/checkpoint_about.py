"""What a checkpoint says about itself, and what is made of it says too. Imports no torch."""

from typing import Any

from snaketune.core.run_identity import RunIdentity
from snaketune.experiment.schema import Method


class CheckpointAbout(RunIdentity):
    """`about` in a .pth file: the run it belongs to and all that exporting and chatting need.

    Attributes:
        name: The experiment's.
        precision: Of the training's arithmetic, as torch calls it: `bfloat16`.
        template: The chat template that was learned, as in data.json: `name`, `text`, `sha256`,
            `end_token_ids` and `system`.
    """

    name: str
    base_id: str
    precision: str
    method: Method
    template: dict[str, Any]
