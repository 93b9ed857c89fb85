"""The stage that takes the place of training: a checkpoint of XTuner 0.1 becomes one of ours."""

import logging
from pathlib import Path

from snaketune.bases.xtuner import XTunerCheckpoint, fitted, read_xtuner
from snaketune.core.digests import digest
from snaketune.core.files import inventory, locked, require_free_space, sha256, write_text
from snaketune.core.layout import BasePaths
from snaketune.core.run_identity import RunIdentity
from snaketune.data.template import ChatTemplate
from snaketune.experiment.resolved import Resolved, package_versions, to_yaml
from snaketune.models.checkpoint import CheckpointState
from snaketune.training.run_folder import RunFolder
from snaketune.training.train_record import TrainRecord

log = logging.getLogger(__name__)


def convert(experiment: Resolved, base: Path, source: Path, output: Path) -> None:
    """Write iter_N.pth, last.pth and train.json, as if the experiment had been trained.

    Args:
        base: The base model's folder, with provenance.json.
        source: XTuner's checkpoint, a file or a folder.
        output: experiments/X/checkpoints.

    Raises:
        UserError: The checkpoint is damaged, or does not fit the base or the experiment.
    """
    template = ChatTemplate(base, experiment.config.template)
    found = read_xtuner(source)
    weights, method = fitted(found, base, experiment.config.method)
    _tell(found, experiment, len(weights))
    identity = RunIdentity(
        train_id=experiment.train_id,
        base_sha256=sha256(BasePaths(base).provenance),
        source_sha256=_digest(source),
    )
    folder = RunFolder(output, identity, keep=1)
    about = folder.about(
        experiment.name, base, found.precision, method, template.record().model_dump()
    )
    state: CheckpointState = {
        "iteration": found.iteration,
        "resume_from": found.iteration,
        "weights": weights,
        "optimizer": None,
        "random": None,
        "about": about.model_dump(),
    }
    with locked(output):
        size = sum(tensor.nbytes for tensor in weights.values())
        require_free_space(output, size + 2**20, "the converted checkpoint")
        folder.claim()
        write_text(folder.paths.resolved, to_yaml(experiment.values))
        folder.save(found.iteration, state)
        record = TrainRecord(
            **identity.model_dump(),
            iterations=found.iteration,
            # the name alone: adapter and merged model pass it on, and a path is nobody's business
            converted_from=source.name,
            versions=package_versions(),
        )
        folder.finish(record)
    log.info("%s is now %s", source, folder.paths.last)


def _tell(found: XTunerCheckpoint, experiment: Resolved, count: int) -> None:
    """Say what was found, and what only the experiment's file knows."""
    log.info("%s: %d tensors of iteration %d", found.path, count, found.iteration)
    method, template = experiment.config.method, experiment.config.template
    if method.name != "full" and found.alpha is None:
        log.warning(
            "%s does not tell LoRA's alpha; method.alpha: %g is believed", found.path, method.alpha
        )
    if found.templates and template not in found.templates:
        log.warning(
            "%s was trained with template %s, this experiment has template: %s. Another template "
            "than it learned from makes a model worse; set template: unless they are the same.",
            found.path,
            " and ".join(sorted(found.templates)),
            template,
        )


def _digest(source: Path) -> str:
    return digest(inventory(source)) if source.is_dir() else sha256(source)
