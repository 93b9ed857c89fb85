"""The typed experiment: load, inherit, expand variants, validate, ids. Imports no torch."""

from snaketune.experiment.document import Problem
from snaketune.experiment.experiment import Experiment, Studies
from snaketune.experiment.identity import base_id, data_id, train_id
from snaketune.experiment.studies import load_studies

__all__ = ["Experiment", "Problem", "Studies", "base_id", "data_id", "load_studies", "train_id"]
