"""The typed experiment: load, inherit, expand variants, validate, ids. Imports no torch."""

from snaketune.experiment.identity import base_id, data_id, train_id
from snaketune.experiment.load import Experiment, Problem, Studies, load_studies

__all__ = ["Experiment", "Problem", "Studies", "base_id", "data_id", "load_studies", "train_id"]
