"""The stage that takes the place of training: a checkpoint of XTuner 0.1 becomes one of ours."""

import logging
from pathlib import Path

from snaketune.bases.xtuner import XTunerCheckpoint, fitted, read_xtuner
from snaketune.core.digests import digest
from snaketune.core.files import inventory, locked, require_free_space, sha256, write_text
from snaketune.data.template import ChatTemplate
from snaketune.experiment.resolved import Resolved, package_versions, to_yaml
from snaketune.training.run_folder import RunFolder

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
    identity = {
        "train_id": experiment.train_id,
        "base_sha256": sha256(base / "provenance.json"),
        "source_sha256": _digest(source),
    }
    folder = RunFolder(output, identity, keep=1)
    about = folder.about(experiment.name, base, found.precision, method, template.bound())
    state = {
        "iteration": found.iteration,
        "resume_from": found.iteration,
        "weights": weights,
        "about": about,
    }
    with locked(output):
        size = sum(tensor.nbytes for tensor in weights.values())
        require_free_space(output, size + 2**20, "the converted checkpoint")
        folder.open()
        write_text(output / "resolved.yaml", to_yaml(experiment.values))
        folder.save(found.iteration, state)
        # without its folder: an adapter and a merged model tell it to whoever gets them
        figures = {"converted_from": source.name, "iterations": found.iteration}
        folder.finish(found.iteration, identity | figures | {"versions": package_versions()})
    log.info("%s is now %s/last.pth", source, output)


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
