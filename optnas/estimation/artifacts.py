"""Files that the pages of trials show. They are artifacts of Optuna, in the study's folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import BinaryIO

import optuna
from optuna.artifacts import FileSystemArtifactStore
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

from optnas.estimation import remote
from optnas.estimation.folders import own_folder

DRAWING = "network.svg"
_FOLDER = "artifacts"
_ARTIFACT = "artifacts:"  # what the system attributes of Optuna's artifacts begin with


def drawing_id(trial: FrozenTrial) -> str | None:
    """The artifact that is the trial's drawing, if it has one."""
    for key, value in trial.system_attrs.items():
        if key.startswith(_ARTIFACT) and json.loads(value)["filename"] == DRAWING:
            return key.removeprefix(_ARTIFACT)
    return None


class StudyArtifacts:
    """The files of all studies of a storage, as optuna-dashboard reads them.

    Files that users add on a page go to `runs/artifacts`.
    """

    def __init__(self, storage: BaseStorage) -> None:
        self._storage = storage
        self._own = Path("runs")

    def open_reader(self, artifact_id: str) -> BinaryIO:
        return self._find(artifact_id).open_reader(artifact_id)

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        store_in(self._own).write(artifact_id, content_body)

    def remove(self, artifact_id: str) -> None:
        self._find(artifact_id).remove(artifact_id)

    def _find(self, artifact_id: str) -> FileSystemArtifactStore:
        names = optuna.get_all_study_names(self._storage)
        studies = (optuna.load_study(study_name=name, storage=self._storage) for name in names)
        folders = (own_folder(study) for study in studies)
        for place in (*(folder for folder in folders if folder is not None), self._own):
            if remote.is_file(place / _FOLDER / artifact_id):
                return _Store(place / _FOLDER)
        raise ArtifactNotFound(f"No study's folder has the artifact {artifact_id}.")


def store_in(folder: Path) -> FileSystemArtifactStore:
    """The artifacts of a study that has this folder."""
    (folder / _FOLDER).mkdir(parents=True, exist_ok=True)
    return _Store(folder / _FOLDER)


class _Store(FileSystemArtifactStore):
    """Optuna's artifact store, also for a folder behind a URL."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._folder = folder

    def open_reader(self, artifact_id: str) -> BinaryIO:
        remote.fetch(self._folder / artifact_id)
        return super().open_reader(artifact_id)

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        super().write(artifact_id, content_body)
        remote.upload(self._folder / artifact_id)

    def remove(self, artifact_id: str) -> None:
        remote.remove(self._folder / artifact_id)
