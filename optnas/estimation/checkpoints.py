"""Where a study's weights and interrupted trainings live on disk.

    <folder>/trial-0007/attempt-0/epoch-00003.ckpt   how far an attempt got: deleted when the trial ends
    <folder>/trial-0007/attempt-0/weights.pt         the trial's best weights: a plain state_dict

Every attempt at a trial writes into a folder of its own, so an attempt that was taken over and wakes up
again disturbs nobody.
"""

from __future__ import annotations

import logging
import os
import random
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

_WEIGHTS = "weights.pt"
_log = logging.getLogger(__name__)


def study_folder(study: optuna.Study) -> Path:
    """The folder of a study's checkpoints: its user attribute `folder`, or `runs/<study name>`."""
    name = re.sub(r"[^\w.-]+", "_", study.study_name)
    return Path(study.user_attrs.get("folder", Path("runs") / name))


def trial_folder(study: optuna.Study, number: int) -> Path:
    """The folder of one trial, also the place for its logger's files."""
    return _trial_folder(study_folder(study), number)


def weights_path(study: optuna.Study, number: int) -> Path | None:
    """The best weights of a finished trial, or None where they were deleted or never written.

    A file that `torch.load(path, weights_only=True)` reads: the `state_dict` of what the space built.
    """
    found = [path for path in _attempts(trial_folder(study, number)) if (path / _WEIGHTS).exists()]
    return found[-1] / _WEIGHTS if found else None


def tidy(study: optuna.Study, keep: int) -> list[int]:
    """Delete the weights of all COMPLETE trials but the best `keep`, feasible ones first.

    With several objectives, all trials of the Pareto front are kept. Trials that run or wait are not touched.
    Safe to call at any time by any worker. The numbers of the trials whose weights are gone are kept in the
    study's user attribute `deleted_checkpoints`; returns those deleted by this call.
    """
    folder = study_folder(study)
    stored = {number for number, path in _trials(folder) if next(path.glob(f"attempt-*/{_WEIGHTS}"), None)}
    if len(stored) <= keep:
        return []
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    kept = {trial.number for trial in _best(study, complete, keep)}
    deleted = sorted(stored & {trial.number for trial in complete} - kept)
    for number in deleted:
        shutil.rmtree(_trial_folder(folder, number), ignore_errors=True)
    if deleted:
        known = study.user_attrs.get("deleted_checkpoints", [])
        study.set_user_attr("deleted_checkpoints", sorted({*known, *deleted}))
    return deleted


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

    def __init__(self, folder: Path, number: int, identity: str) -> None:
        self.trial_folder = _trial_folder(folder, number)
        self.identity = identity
        self.earlier = list(_attempts(self.trial_folder))
        index = int(self.earlier[-1].name.removeprefix("attempt-")) + 1 if self.earlier else 0
        self.folder = self.trial_folder / f"attempt-{index}"
        try:
            self.folder.mkdir(parents=True)
        except OSError as error:
            raise OSError(
                f"Cannot write checkpoints to {self.folder}: {error.strerror or error}. "
                "Choose another place with Training(folder=...)."
            ) from error

    def newest(self, key: str) -> tuple[Path, Mapping[str, Any]] | None:
        """The furthest readable state of an earlier attempt at this training, and what `key` saved in it."""
        files = [file for path in self.earlier for file in path.glob("epoch-*.ckpt")]
        for file in sorted(files, key=lambda file: file.name, reverse=True):
            try:
                state = torch.load(file, map_location="cpu", weights_only=True)["callbacks"][key]
            except Exception as error:
                _log.warning("Cannot read the checkpoint %s (%s); looking for an older one.", file, error)
                continue
            if state["identity"] == self.identity:
                return file, state
        return None

    def write(self, epoch: int, save: Any) -> None:
        """Save the state after `epoch` with `save(path)`; the last two are kept."""
        file = self.folder / f"epoch-{epoch:05}.ckpt"
        aside = file.with_suffix(".part")
        save(aside)
        os.replace(aside, file)
        (self.folder / f"epoch-{epoch - 2:05}.ckpt").unlink(missing_ok=True)

    def write_weights(self, weights: Mapping[str, Any]) -> None:
        aside = self.folder / "weights.part"
        torch.save(weights, aside)
        os.replace(aside, self.folder / _WEIGHTS)

    def end(self, keep_weights: bool) -> None:
        """Delete what only an interrupted training needs, of all attempts."""
        for path in self.earlier:
            shutil.rmtree(path, ignore_errors=True)
        if keep_weights:
            for file in self.folder.glob("epoch-*"):
                file.unlink(missing_ok=True)
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        try:
            self.trial_folder.rmdir()
        except OSError:
            _log.debug("%s holds other files; left as it is.", self.trial_folder)


def random_state() -> dict[str, Any]:
    """The state of Python's, NumPy's and torch's generators, in types that `weights_only` loads."""
    version, numbers, gauss = random.getstate()
    # Users still draw from NumPy's global generator.
    legacy: Any = np.random.get_state(legacy=False)  # noqa: NPY002 (see above)
    key = torch.from_numpy(legacy["state"]["key"].astype(np.int64))
    state: dict[str, Any] = {
        "python": (version, torch.tensor(numbers), gauss),
        "numpy": {**legacy, "state": {**legacy["state"], "key": key}},
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_random_state(state: Mapping[str, Any]) -> None:
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers.tolist()), gauss))
    legacy = state["numpy"]
    key = legacy["state"]["key"].numpy().astype(np.uint32)
    np.random.set_state({**legacy, "state": {**legacy["state"], "key": key}})  # noqa: NPY002 (as above)
    torch.set_rng_state(state["torch"].cpu())
    if "cuda" in state and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([s.cpu() for s in state["cuda"]])


def _trial_folder(folder: Path, number: int) -> Path:
    return folder / f"trial-{number:04}"


def _trials(folder: Path) -> Iterator[tuple[int, Path]]:
    for path in folder.glob("trial-*"):
        yield int(path.name.removeprefix("trial-")), path


def _attempts(trial_folder: Path) -> list[Path]:
    """The folders of a trial's attempts, the latest last."""
    return sorted(trial_folder.glob("attempt-*"), key=lambda path: int(path.name.removeprefix("attempt-")))
