"""What optuna-dashboard shows of a trial beside its numbers: its network, drawn."""

from __future__ import annotations

import json
import logging
import tempfile
from pathlib import Path
from typing import BinaryIO

import optuna
from optuna.artifacts import FileSystemArtifactStore, upload_artifact
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.storages import BaseStorage
from optuna.trial import FixedTrial, FrozenTrial

from optnas.drawing.draw import draw
from optnas.estimation.folders import own_folder
from optnas.objective import Objective

DRAWING = "network.svg"
_FOLDER = "artifacts"
_ARTIFACT = "artifacts:"  # what the system attributes of Optuna's artifacts begin with
_log = logging.getLogger(__name__)


def attach_drawing(study: optuna.Study, objective: Objective, trial: optuna.Trial) -> None:
    """Draw the network of a running trial and add it to the trial's page, if the study keeps files.

    It lies in the study's folder. A trial without a drawing is no error: whatever
    stands in the way is logged for debugging.
    """
    folder = own_folder(study)
    if folder is None:
        return
    try:
        svg = draw(FixedTrial(trial.params), objective)
        with tempfile.TemporaryDirectory() as temporary:
            file = Path(temporary) / DRAWING
            file.write_text(svg, encoding="utf-8")
            store = _store(folder)
            upload_artifact(artifact_store=store, file_path=str(file), study_or_trial=trial)
    except Exception:
        _log.debug("Trial %d has no drawing.", trial.number, exc_info=True)


def drawing_id(trial: FrozenTrial) -> str | None:
    """The artifact that is the trial's drawing, if it has one."""
    for key, value in trial.system_attrs.items():
        if key.startswith(_ARTIFACT) and json.loads(value)["filename"] == DRAWING:
            return key.removeprefix(_ARTIFACT)
    return None


class StudyArtifacts:
    """The files of all studies of a storage, as optuna-dashboard reads them.

    What users add on a page
    goes to `runs/artifacts`.
    """

    def __init__(self, storage: BaseStorage) -> None:
        self._storage = storage
        self._own = Path("runs")

    def open_reader(self, artifact_id: str) -> BinaryIO:
        return self._find(artifact_id).open_reader(artifact_id)

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        _store(self._own).write(artifact_id, content_body)

    def remove(self, artifact_id: str) -> None:
        self._find(artifact_id).remove(artifact_id)

    def _find(self, artifact_id: str) -> FileSystemArtifactStore:
        names = optuna.get_all_study_names(self._storage)
        studies = (optuna.load_study(study_name=name, storage=self._storage) for name in names)
        folders = (own_folder(study) for study in studies)
        for place in (*(folder for folder in folders if folder is not None), self._own):
            if (place / _FOLDER / artifact_id).is_file():
                return FileSystemArtifactStore(place / _FOLDER)
        raise ArtifactNotFound(f"No study's folder has the artifact {artifact_id}.")


def _store(folder: Path) -> FileSystemArtifactStore:
    (folder / _FOLDER).mkdir(parents=True, exist_ok=True)
    return FileSystemArtifactStore(folder / _FOLDER)
