"""How a model is scored: estimators `(model, trial) -> metrics`.

Names are loaded on first use: a table of published results does not need Lightning.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optnas.estimation.checkpoints import study_folder as study_folder
    from optnas.estimation.checkpoints import tidy as tidy
    from optnas.estimation.checkpoints import trial_folder as trial_folder
    from optnas.estimation.checkpoints import weights_path as weights_path
    from optnas.estimation.tabular import Tabular as Tabular
    from optnas.estimation.training import Training as Training

_NAMES = {
    "checkpoints": ("study_folder", "tidy", "trial_folder", "weights_path"),
    "tabular": ("Tabular",),
    "training": ("Training",),
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'optnas.estimation' has no attribute {name!r}")
    return getattr(import_module(f"optnas.estimation.{_HOMES[name]}"), name)
