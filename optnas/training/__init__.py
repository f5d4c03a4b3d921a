"""Trainings with Lightning: what is kept of them, how they go on, and what they leave behind.

Names are loaded on first use: who only looks for weights does not need Lightning.
"""

from typing import TYPE_CHECKING

from optnas._lazy import lazily

if TYPE_CHECKING:
    from optnas.estimation.folders import study_folder as study_folder
    from optnas.estimation.folders import trial_folder as trial_folder
    from optnas.training.checkpoints import tidy as tidy
    from optnas.training.checkpoints import weights_path as weights_path
    from optnas.training.cross_validation import CrossValidation as CrossValidation
    from optnas.training.pretrained import Pretrained as Pretrained
    from optnas.training.training import Training as Training

__getattr__, __dir__, __all__ = lazily(__name__)
