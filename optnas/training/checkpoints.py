"""Where a study's weights and interrupted trainings live on disk.

    <folder>/trial-0007/attempt-0/epoch-00003.ckpt   how far an attempt got: deleted when the trial ends
    <folder>/trial-0007/attempt-0/weights.pt         the trial's best weights: a plain state_dict

Every attempt at a trial writes into a folder of its own, so an attempt that was taken over and wakes up
again disturbs nobody.
"""

from __future__ import annotations

import glob
import io
import itertools
import logging
import os
import re
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from optnas import record
from optnas.errors import CheckpointError
from optnas.storage.open import storage_of

_CLAIM = "claimed"
_WEIGHTS = "weights.pt"
_STATES = "epoch-*"
_PARTS = "*.part"
_log = logging.getLogger(__name__)


def study_folder(study: optuna.Study) -> Path:
    """The folder of a study's checkpoints: the recorded one, or `runs/<study name>`."""
    name = re.sub(r"[^\w.-]+", "_", study.study_name)
    return Path(record.FOLDER.of(study) or Path("runs") / name)


def settle_folder(study: optuna.Study, given: Path | None) -> None:
    """Choose the study's folder when it is first needed: `given`, or the default, or one like it.

    Studies of one name in two databases number their trials alike. In one folder they would take each
    other's files for their own, and delete them: the second gets a folder with a number behind its name.
    """
    known = record.FOLDER.of(study)
    if known is None:
        folder = _claim(given or study_folder(study))
        settle = storage_of(study).settle_study_user_attr
        if settle(study._study_id, record.FOLDER.name, str(folder)) != str(folder):
            _delete(folder / _CLAIM)  # another worker of the study was faster
            with suppress(OSError):
                folder.rmdir()
    elif given is not None and not re.fullmatch(rf"{re.escape(str(given))}(-\d+)?", known):
        record.FOLDER.write(study, str(given))  # moved by the user


def _claim(wanted: Path) -> Path:
    for n in itertools.count(1):
        folder = wanted if n == 1 else wanted.with_name(f"{wanted.name}-{n}")
        with _told(folder):
            folder.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):
                if not _find(folder, "trial-*"):
                    (folder / _CLAIM).touch(exist_ok=False)
                    return folder
    raise AssertionError("one of them is free")


def trial_folder(study: optuna.Study, number: int) -> Path:
    """The folder of one trial, also the place for its logger's files."""
    return _trial_folder(study_folder(study), number)


def weights_path(study: optuna.Study, number: int) -> Path | None:
    """The best weights of a finished trial, or None where they were deleted or never written.

    A file that `torch.load(path, weights_only=True)` reads: the `state_dict` of what the space built.
    """
    found = [path / _WEIGHTS for path in _attempts(trial_folder(study, number)) if (path / _WEIGHTS).exists()]
    return found[-1] if found else None


def all_weights(study: optuna.Study) -> dict[int, Path]:
    """The best weights of every trial that has some; of one trial, `weights_path` is faster."""
    files = _find(study_folder(study), f"trial-*/attempt-*/{_WEIGHTS}")
    by_attempt = sorted(files, key=lambda file: _index(file.parent))
    return {int(file.parts[-3].removeprefix("trial-")): file for file in by_attempt}


def load_weights(study: optuna.Study, number: int) -> dict[str, Any]:
    """The `state_dict` of a finished trial's best epoch, on the CPU.

    Raises:
        FileNotFoundError: they were deleted, or are on another machine; the message says which.
    """
    path = weights_path(study, number)
    if path is None:
        deleted = number in (record.DELETED.of(study) or [])
        why = (
            f"were deleted, since only those of the best {count_weights(study)} trials are kept"
            if deleted
            else f"are not below {study_folder(study).absolute()}; run this where the search ran"
        )
        raise FileNotFoundError(f"The weights of trial {number} {why}. Or train it anew.")
    weights: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return weights


def count_weights(study: optuna.Study) -> int:
    """The number of trials whose weights are stored."""
    return len(_stored(study_folder(study), _WEIGHTS))


def tidy(study: optuna.Study, keep: int) -> list[int]:
    """Delete what finished trials left behind, except the weights of the best `keep`, feasible ones first.

    With several objectives the weights of the whole Pareto front are kept. Trials that run or wait are not
    touched, nor are other files in the trials' folders. Safe to call at any time by any worker.

    Returns the numbers of the COMPLETE trials whose weights this call deleted; the study's record
    `DELETED` collects them.
    """
    folder = study_folder(study)
    trials = {trial.number: trial for trial in study.get_trials(deepcopy=False)}
    finished = {number for number, trial in trials.items() if trial.state.is_finished()}
    trained = [t for t in trials.values() if t.state == TrialState.COMPLETE and record.TWIN_OF.of(t) is None]
    kept = {trial.number for trial in _best(study, trained, keep)}
    weights = _stored(folder, _WEIGHTS)
    for number in (weights | _stored(folder, _STATES)) & finished:
        _clean(_trial_folder(folder, number), keep_weights=number in kept)
    deleted = (weights & {trial.number for trial in trained}) - kept
    # Workers that write this list at one moment overwrite each other: add what is known to have been here.
    gone = deleted | ({trial.number for trial in trained if _ran_here(trial)} - weights)
    known = set(record.DELETED.of(study) or [])
    if not gone <= known:
        record.DELETED.write(study, sorted(gone | known))
    return sorted(deleted)


def _ran_here(trial: FrozenTrial) -> bool:
    """Whether the trial ended on this machine; False where that is not known."""
    attempts = record.attempts(trial)
    return bool(attempts) and attempts[-1]["host"] == socket.gethostname()


def _best(study: optuna.Study, complete: list[FrozenTrial], keep: int) -> list[FrozenTrial]:
    if len(study.directions) > 1:
        return study.best_trials
    sign = -1 if study.direction == StudyDirection.MAXIMIZE else 1

    def rank(trial: FrozenTrial) -> tuple[bool, float]:
        infeasible = any(violation > 0 for violation in trial.constraints.values())
        assert trial.value is not None
        return infeasible, sign * trial.value

    return sorted(complete, key=rank)[:keep]


class Attempt:
    """One attempt's files. `identity` describes everything that its training depends on."""

    def __init__(self, trial_folder: Path, identity: str) -> None:
        self.trial_folder = trial_folder
        self.identity = identity
        self.earlier = _attempts(trial_folder)
        first = _index(self.earlier[-1]) + 1 if self.earlier else 0
        with _told(trial_folder):
            trial_folder.mkdir(parents=True, exist_ok=True)
            for index in itertools.count(first):
                self.folder = trial_folder / f"attempt-{index}"
                with suppress(FileExistsError):  # a former owner of the trial was faster: it does not know
                    self.folder.mkdir()
                    break

    def newest(self, key: str) -> tuple[Path, Mapping[str, Any]] | None:
        """The furthest readable state of an earlier attempt at this training, and what `key` saved in it."""
        files = [file for path in self.earlier for file in _find(path, "epoch-*.ckpt")]
        for file in sorted(files, key=lambda file: file.name, reverse=True):
            try:
                state = torch.load(file, map_location="cpu", weights_only=True)["callbacks"][key]
            except Exception as error:
                _log.warning("Cannot read the checkpoint %s (%s); looking for an older one.", file, error)
                continue
            if state["identity"] == self.identity:
                return file, state
        return None

    def write(self, epoch: int, save: Callable[[Path], None]) -> None:
        """Save the state after `epoch` with `save(path)`; the last two are kept."""
        file = self.folder / f"epoch-{epoch:05}.ckpt"
        _replace(file, save)
        _delete(self.folder / f"epoch-{epoch - 2:05}.ckpt")

    def write_weights(self, weights: Mapping[str, Any]) -> None:
        data = io.BytesIO()  # written to a full disk, torch.save says nothing of the disk
        torch.save(dict(weights), data)
        _replace(self.folder / _WEIGHTS, lambda path: path.write_bytes(data.getbuffer()))

    def end(self) -> None:
        """Delete what only an interrupted training needs, of all attempts."""
        _clean(self.trial_folder, keep_weights=True)


def _trial_folder(folder: Path, number: int) -> Path:
    return folder / f"trial-{number:04}"


def _stored(folder: Path, pattern: str) -> set[int]:
    """The numbers of the trials that have such a file."""
    files = _find(folder, f"trial-*/attempt-*/{pattern}")
    return {int(file.parts[-3].removeprefix("trial-")) for file in files}


def _attempts(trial_folder: Path) -> list[Path]:
    """The folders of a trial's attempts, the latest last."""
    return sorted(_find(trial_folder, "attempt-*"), key=_index)


def _find(folder: Path, pattern: str) -> list[Path]:
    """`folder.glob(pattern)`, which raises where another worker deletes a folder that it just reads."""
    return [folder / name for name in glob.glob(pattern, root_dir=folder)]


def _index(attempt: Path) -> int:
    return int(attempt.name.removeprefix("attempt-"))


def _clean(trial_folder: Path, keep_weights: bool) -> None:
    """Delete the states of a finished trial, maybe its weights, and the folders that are empty then."""
    attempts = _attempts(trial_folder)
    # The latest folder may be that of a former owner, who began late and was told that he is none.
    last = ([path for path in attempts if _find(path, _WEIGHTS)] or attempts)[-1:]
    for path in attempts:
        if path not in last:
            shutil.rmtree(path, ignore_errors=True)
    for path in last:
        for pattern in (_STATES, _PARTS, *([] if keep_weights else [_WEIGHTS])):
            for file in _find(path, pattern):
                _delete(file)
        for folder in (path, trial_folder):
            with suppress(OSError):  # not empty
                folder.rmdir()


def _delete(file: Path) -> None:
    """What cannot be deleted now (a network folder, a file of another user) is no fault of any trial."""
    with suppress(OSError):
        file.unlink()


def _replace(file: Path, save: Callable[[Path], object]) -> None:
    """Write a file so that whoever reads finds the old or the new one, never a part."""
    aside = file.with_name(f"{file.name}.part")
    try:
        with _told(file):
            save(aside)
            os.replace(aside, file)
    except CheckpointError:
        _delete(aside)  # a part of it may be what fills the disk
        raise


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CheckpointError(
            f"Cannot write {path}: {error.strerror or error}. Make room, or choose another place with "
            "Training(folder=...)."
        ) from error
