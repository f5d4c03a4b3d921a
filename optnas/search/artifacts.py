"""What optuna-dashboard shows of a trial beside its numbers: its network, drawn."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

import optuna
from optuna.artifacts import upload_artifact
from optuna.trial import FixedTrial

from optnas.drawing.draw import draw
from optnas.estimation.artifacts import DRAWING, store_in
from optnas.estimation.folders import own_folder
from optnas.objective import Objective

_log = logging.getLogger(__name__)


def attach_drawing(study: optuna.Study, objective: Objective, trial: optuna.Trial) -> None:
    """Draw the network of a running trial and add it to the trial's page, if the study keeps files.

    The file is in the study's folder. If the drawing fails, the trial goes on without one, and the reason is
    logged for debugging.
    """
    folder = own_folder(study)
    if folder is None:
        return
    try:
        svg = draw(FixedTrial(trial.params), objective)
        with tempfile.TemporaryDirectory() as temporary:
            file = Path(temporary) / DRAWING
            file.write_text(svg, encoding="utf-8")
            store = store_in(folder)
            upload_artifact(artifact_store=store, file_path=str(file), study_or_trial=trial)
    except Exception:
        _log.debug("Trial %d has no drawing.", trial.number, exc_info=True)
