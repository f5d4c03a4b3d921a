"""What a study's trainings leave on disk, in the folder that `estimation.folders` settles.

    <folder>/trial-0007/attempt-0/epoch-00003.ckpt   how far an attempt got: deleted when the trial ends
    <folder>/trial-0007/attempt-0/weights.pt         the trial's best weights: a plain state_dict
    <folder>/trial-0007/attempt-0/module.pt          what its LightningModule learned beyond those
    <folder>/trial-0007/training-1/attempt-0/...     the same of a second training in one trial

Every attempt at a trial writes into a folder of its own, so an attempt that was taken over and wakes up
again disturbs nobody.
"""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from optnas import pareto, private, record
from optnas.errors import CheckpointError
from optnas.estimation import remote
from optnas.estimation.folders import (
    abandon,
    belongs_to,
    cannot_write,
    folder_of,
    own_folder,
    study_folder,
    told,
    trial_folder,
)
from optnas.storage.base import is_held

if TYPE_CHECKING:  # who only looks for weights does not need torch
    from optnas.training.snapshot import Snapshot

_WEIGHTS = "weights.pt"
_REST = "module.pt"
_DELETED = "deleted.txt"
_STATES = "epoch-*"
_BEGUN = "begun"
_PARTS = "*.part"
PASSING = (_STATES, _PARTS)
"""Files that only a training which is under way needs."""
_log = logging.getLogger(__name__)
_readable: set[frozenset[type]] = set()  # kinds of states that this process has read back


def weights_path(study: optuna.Study, number: int) -> Path | None:
    """The best weights of a finished trial, or None where they were deleted or never written.

    A file that `torch.load(path, weights_only=True)` reads: the `state_dict` of what the space built.

    Examples:
        >>> optnas.training.weights_path(study, study.best_trial.number) is None  # nothing was trained
        True
    """
    path = _weights(trial_folder(study, number)) if own_folder(study) is not None else None
    return None if path is None else remote.fetch(path)


def all_weights(study: optuna.Study) -> dict[int, Path]:
    """The best weights of every trial that has some; those behind a URL are not fetched."""
    held = _held(own_folder(study), study.get_trials(deepcopy=False), _WEIGHTS)
    kept = {trial.number: _weights(path) for trial, path in held}
    return {number: path for number, path in sorted(kept.items()) if path is not None}


def has_weights(study: optuna.Study, trial: FrozenTrial) -> bool:
    """Whether a finished trial's weights are stored, and in a folder of this study."""
    folder = own_folder(study)
    return folder is not None and _weights(folder_of(folder, trial)) is not None


def load_snapshot(study: optuna.Study, trial: FrozenTrial) -> Snapshot:
    """What a finished trial had learned when it got its score, on the CPU.

    Raises:
        FileNotFoundError: it was deleted, or is elsewhere; the message says what is known.
        ParamsMismatchError: a part of it was no plain value.
    """
    folder = own_folder(study)
    path = None if folder is None else _weights(folder_of(folder, trial))
    if path is None:
        raise FileNotFoundError(f"The weights of trial {trial.number} {_why_missing(study, trial)}")
    from optnas.training import snapshot

    return snapshot.read(remote.fetch(path), remote.fetch(path.with_name(_REST)))


def newest_state(study: optuna.Study, trial: FrozenTrial) -> Mapping[str, Any]:
    """The furthest state of a trial's training that is under way, on the CPU.

    Raises:
        FileNotFoundError: there is none here.
    """
    folder = own_folder(study)
    attempts = [] if folder is None else _attempts(folder_of(folder, trial))
    files = [file for path in attempts for file in _find(path, f"{_STATES}.ckpt")]
    if not files:
        raise FileNotFoundError(
            f"Trial {trial.number} has no state of its training here: it has ended, or runs elsewhere."
        )
    state: Mapping[str, Any] = _load(remote.fetch(max(files, key=lambda file: file.name)))
    return state


def _why_missing(study: optuna.Study, trial: FrozenTrial) -> str:
    if trial.number in (record.DELETED.of(study) or []):
        return "were deleted, since only those of the best trials are kept. Train it anew."
    recorded, folder = record.FOLDER.of(study), study_folder(study)
    if recorded is not None and own_folder(study) is None:
        return (
            f"are with the original of this copied study, if anywhere: {recorded} belongs to it. Open the "
            "original, or train it anew."
        )
    return (
        f"are not below {remote.shown(folder.absolute())}: they were never written or removed by hand, or "
        "lie where the search ran. Run this there, or train it anew."
    )


def count_weights(folder: Path) -> int:
    """The number of trials whose weights are stored in the folder of a study."""
    return len({path for path, _ in _files(folder, _WEIGHTS)})


def has_states(beside: Path) -> bool:
    """Whether the study of a trial's folder has states of interrupted trainings of other trials."""
    return any(path != beside for path, _ in _files(beside.parent, _STATES))


def passing(study: optuna.Study) -> list[tuple[FrozenTrial, Path, list[Path]]]:
    """Every trial that has states of trainings, with its folder and these files."""
    folder = own_folder(study)
    files: dict[Path, list[Path]] = {}
    if folder is not None:
        for path, file in (found for pattern in PASSING for found in _files(folder, pattern)):
            files.setdefault(path, []).append(file)
    held = _held(folder, study.get_trials(deepcopy=False), *PASSING)
    return [(trial, path, files.get(path, [])) for trial, path in held]


def tidy(study: optuna.Study, keep: int) -> list[int]:
    """Delete what finished trials left behind, except the weights of the best `keep`, feasible ones first.

    With several objectives the weights of the whole Pareto front are kept. Trials that run or wait are not
    touched, nor are other files in the trials' folders, nor what no trial of the study is known to own. Safe
    to call at any time by any worker.

    Returns the numbers of the COMPLETE trials whose weights this call deleted; the study's record
    `DELETED` collects them.

    Examples:
        >>> optnas.training.tidy(study, keep=1)
        []
    """
    folder = own_folder(study)
    if folder is None:
        return []
    trials = study.get_trials(deepcopy=False)
    trained = [t for t in trials if t.state == TrialState.COMPLETE and record.TWIN_OF.of(t) is None]
    kept = [private.trial_id(trial) for trial in _best(study, trained, keep)]
    # A trial that is under way may begin with its parent's.
    parents = {record.PARENT.of(trial) for trial in trials if not trial.state.is_finished()}
    kept += [private.trial_id(trial) for trial in trained if trial.number in parents]
    deleted = []
    for trial, path in _held(folder, trials, _WEIGHTS, _STATES):
        if trial.state.is_finished() and not is_held(trial):
            keeps = private.trial_id(trial) in kept
            if trial in trained and not keeps and _weights(path) is not None:
                deleted.append(trial.number)
            clean(path, keep_weights=keeps)
    if deleted:
        _record_deleted(study, folder / _DELETED, deleted)
    return sorted(deleted)


def end(study: optuna.Study, trial: FrozenTrial) -> None:
    """Delete what only an interrupted training needs, of a trial that has ended."""
    folder = own_folder(study)
    if folder is not None:
        clean(folder_of(folder, trial), keep_weights=True)


def _record_deleted(study: optuna.Study, ledger: Path, numbers: list[int]) -> None:
    """Add to the list, which workers that do so at one moment may overwrite, but not what is in the file."""
    if remote.is_remote(ledger):  # where nothing can be appended
        record.DELETED.write(study, sorted({*numbers, *(record.DELETED.of(study) or [])}))
        return
    with told(ledger), ledger.open("a+", encoding="utf-8") as file:
        file.write("".join(f"{number}\n" for number in numbers))
        file.flush()
        file.seek(0)
        known = {int(line) for line in file if line.strip().isdigit()}
    record.DELETED.write(study, sorted(known | set(record.DELETED.of(study) or [])))


def _held(folder: Path | None, trials: list[FrozenTrial], *patterns: str) -> list[tuple[FrozenTrial, Path]]:
    """The trials that have such files in their study's folder, if it has one, each with its own."""
    if folder is None:
        return []
    by_number: dict[int, list[FrozenTrial]] = {}
    for trial in trials:
        by_number.setdefault(trial.number, []).append(trial)
    found = []
    for path in sorted({path for pattern in patterns for path, _ in _files(folder, pattern)}):
        number = int(path.name.split("-")[1])
        found += [(trial, path) for trial in by_number.get(number, []) if belongs_to(path, trial)][:1]
    return found


def _best(study: optuna.Study, complete: list[FrozenTrial], keep: int) -> list[FrozenTrial]:
    if len(study.directions) > 1:
        return pareto.front_trials(study)
    sign = -1 if study.direction == StudyDirection.MAXIMIZE else 1

    def rank(trial: FrozenTrial) -> tuple[bool, float]:
        infeasible = any(violation > 0 for violation in trial.constraints.values())
        assert trial.value is not None
        return infeasible, sign * trial.value

    return sorted(complete, key=rank)[:keep]


class Attempt:
    """One attempt's files.

    Args:
        trial_folder: of the trial, from `folders.claim`.
        identity: describes everything that its training depends on.
        part: which training of the trial it is, of several.
    """

    def __init__(self, trial_folder: Path, identity: str, part: int = 0) -> None:
        self.trial_folder = trial_folder
        self.identity = identity
        self.part = part
        place = trial_folder / f"training-{part}" if part else trial_folder
        self.earlier = _attempts(place)
        first = _index(self.earlier[-1]) + 1 if self.earlier else 0
        try:
            place.mkdir(parents=True, exist_ok=True)
            for index in itertools.count(first):
                self.folder = place / f"attempt-{index}"
                with suppress(FileExistsError):  # a former owner of the trial was faster: it does not know
                    self.folder.mkdir()
                    break
            if remote.is_remote(self.folder):  # where there is no folder without a file
                (self.folder / _BEGUN).touch()
                remote.upload(self.folder / _BEGUN)
        except OSError as error:
            raise cannot_write(place, error) from error
        self._is_read_back = False

    def newest(self, key: str) -> tuple[Path, Mapping[str, Any]] | None:
        """The furthest readable state of an earlier attempt at this training, and what `key` saved in it."""
        files = [file for path in self.earlier for file in _find(path, "epoch-*.ckpt")]
        files.sort(key=lambda file: file.name, reverse=True)
        others = files[-1] if files else None
        for file in files:
            try:
                state = _load(remote.fetch(file))["callbacks"][key]
            except Exception as error:
                _log.warning("Cannot read the checkpoint %s (%s); looking for an older one.", file, error)
                continue
            if state["identity"] == self.identity:
                return file, state
            if file == others:
                _log.warning(
                    "The trial begins anew instead of going on from %s: the data, the settings or the "
                    "questions have changed.", file,
                )  # fmt: skip
        return None

    def write(self, epoch: int, save: Callable[[Path], None], kinds: frozenset[type] = frozenset()) -> None:
        """Save the state after `epoch` with `save(path)`; the last two are kept.

        The first one is read back: whether a training could go on shows while there is time to mend it. Not
        so where this process has read back a state of the same `kinds` of objects, which takes milliseconds.
        """
        file = self.folder / f"epoch-{epoch:05}.ckpt"
        _replace(file, save)
        _delete(self.folder / f"epoch-{epoch - 2:05}.ckpt")
        if not self._is_read_back and (not kinds or kinds not in _readable):
            self._is_read_back = True
            try:
                _load(remote.fetch(file))
                _readable.add(kinds)
            except Exception as error:  # pickle's and torch's, of which there are many
                _log.warning(
                    "The state of this training cannot be read back (%s): if its process ends, it begins "
                    "anew. States hold tensors, arrays and plain values only; look at what the callbacks, "
                    "the LightningModule or its data save in them.",
                    next(iter(str(error).splitlines()), type(error).__name__),
                )

    def write_snapshot(self, found: Snapshot) -> None:
        """Write what was learned; whoever finds `weights.pt` finds the rest too."""
        from optnas.training import snapshot

        weights, rest = snapshot.files(found)
        _replace(self.folder / _REST, lambda path: path.write_bytes(rest))
        try:
            _replace(self.folder / _WEIGHTS, lambda path: path.write_bytes(weights))
        except CheckpointError:
            _delete(self.folder / _REST)
            raise


def _load(file: Path) -> Any:
    import torch

    from optnas.training import snapshot

    with snapshot.numpy_is_safe():
        return torch.load(file, map_location="cpu", weights_only=True)


def _files(folder: Path, pattern: str) -> list[tuple[Path, Path]]:
    """Such files of all trials, each with the folder of its trial."""
    places = ("trial-*/attempt-*", "trial-*/training-*/attempt-*")
    files = [file for place in places for file in _find(folder, f"{place}/{pattern}")]
    return [(folder / file.relative_to(folder).parts[0], file) for file in files]


def _weights(trial_folder: Path) -> Path | None:
    found = [path / _WEIGHTS for path in _attempts(trial_folder) if remote.exists(path / _WEIGHTS)]
    return found[-1] if found else None


def _attempts(place: Path) -> list[Path]:
    """The folders of the attempts at one training, the latest last."""
    return sorted(_find(place, "attempt-*"), key=_index)


def _find(folder: Path, pattern: str) -> list[Path]:
    return [folder / name for name in remote.names(folder, pattern)]


def _index(attempt: Path) -> int:
    return int(attempt.name.removeprefix("attempt-"))


def clean(trial_folder: Path, keep_weights: bool) -> None:
    """Delete the states of a finished trial, maybe its weights, and the folders that are empty then."""
    for place in (*_find(trial_folder, "training-*"), trial_folder):
        attempts = _attempts(place)
        # The latest folder may be that of a former owner, who began late and was told that he is none.
        last = ([path for path in attempts if _find(path, _WEIGHTS)] or attempts)[-1:]
        for path in attempts:
            if path not in last:
                remote.remove_tree(path)
        for path in last:
            for pattern in (_STATES, _PARTS, _BEGUN, *([] if keep_weights else [_WEIGHTS, _REST])):
                for file in _find(path, pattern):
                    _delete(file)
            with suppress(OSError):  # not empty
                path.rmdir()
        if place != trial_folder:
            with suppress(OSError):
                place.rmdir()
    abandon(trial_folder)


def _delete(file: Path) -> None:
    """What cannot be deleted now (a network folder, a file of another user) is no fault of any trial."""
    remote.remove(file)


def _replace(file: Path, save: Callable[[Path], object]) -> None:
    """Write a file so that whoever reads finds the old or the new one, never a part."""
    aside = file.with_name(f"{file.name}.part")
    try:
        save(aside)
        os.replace(aside, file)
        remote.upload(file)
    except OSError as error:
        _delete(aside)  # a part of it may be what fills the disk
        raise cannot_write(file, error) from error
