"""What is imported for the dashboard's first page, and when the rest is."""

from __future__ import annotations

import subprocess
import sys

ANSWERS = """
import sys
from optnas.dashboard.lean import import_dashboard

package = import_dashboard()
from optnas.dashboard import serve
assert "sklearn" not in sys.modules and "scipy.stats" not in sys.modules

import optuna
study = optuna.create_study()
study.optimize(lambda t: t.suggest_int("x", 0, 9) + t.suggest_float("y", 0, 1), n_trials=12)
from optuna_dashboard._inmemory_cache import InMemoryCache
asked = InMemoryCache(), study._storage, 0, 0, study.trials
later = package._app.get_param_importance_from_trials_cache(*asked)
assert "sklearn" in sys.modules
from optuna_dashboard import _importance
_importance.param_importance_cache.clear()
assert later == _importance.get_param_importance_from_trials_cache(*asked)
assert import_dashboard() is package and {one["name"] for one in later} == {"x", "y"}, later
"""


def test_what_needs_scikit_learn_is_imported_when_it_is_asked_for() -> None:
    done = subprocess.run([sys.executable, "-c", ANSWERS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


OTHER = """
import sys
from types import ModuleType
import optnas.dashboard.lean as lean

lean._FUNCTION = "of another version"
package = lean.import_dashboard()
assert package.wsgi and "sklearn" in sys.modules
from optuna_dashboard import _importance
assert callable(_importance.get_param_importance_from_trials_cache)
"""


def test_a_version_that_needs_more_from_there_is_imported_as_it_is() -> None:
    done = subprocess.run([sys.executable, "-c", OTHER], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
