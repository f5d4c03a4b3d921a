"""optuna-dashboard, imported without scikit-learn, which takes longer to import than all the rest of it.

It needs scikit-learn for one answer, that about importances. So the function that gives this answer is
imported when it is first called.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

_MODULE, _FUNCTION = "optuna_dashboard._importance", "get_param_importance_from_trials_cache"


def import_dashboard() -> ModuleType:
    """The package `optuna_dashboard`.

    Another version may take other things from the module that waits; then all of it is imported at once.
    """
    stand_in = ModuleType(_MODULE)
    vars(stand_in)[_FUNCTION] = _when_called
    waits = "optuna_dashboard" not in sys.modules
    if waits:
        sys.modules[_MODULE] = stand_in
    try:
        return import_module("optuna_dashboard")
    except ImportError:
        if not waits:
            raise
    finally:
        if waits:
            del sys.modules[_MODULE]
    return import_module("optuna_dashboard")


def _when_called(*arguments: Any, **named: Any) -> Any:
    return vars(import_module(_MODULE))[_FUNCTION](*arguments, **named)
