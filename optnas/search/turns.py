"""Whose turn it is: trials that the pruner paused go on, are put aside at the end, and are taken up again."""

from __future__ import annotations

from collections.abc import Iterator

import optuna
from optuna.trial import FrozenTrial, TrialState

from optnas import private, record
from optnas.record import Reason, Why
from optnas.storage.base import HELD, is_held
from optnas.storage.open import claim, storage_of
from optnas.strategy.halving import PromotingPruner

KEPT = 10
"""So many trials that are paused at the end of a budget keep their state, to go on with more budget."""


def promotes(study: optuna.Study) -> bool:
    """Whether the study's pruner lets go on what it stopped."""
    return isinstance(study.pruner, PromotingPruner)


def take_paused(study: optuna.Study, *, last: bool) -> int | None:
    """The id of a paused trial that goes on now, in this process; None where there is none.

    `last`: no new trial may begin any more.
    """
    pruner = study.pruner
    while isinstance(pruner, PromotingPruner) and (trial := pruner.promote(study, last=last)) is not None:
        trial_id = private.trial_id(trial)
        if claim(study, None, record.COUNTS.name, wanted=trial_id).trial_id is not None:
            record.LET_GO_ON.write(study, trial, record.n_reports(trial))
            if Reason.of(trial) is not None:  # of an end that is none any more
                storage_of(study).set_trial_user_attr(trial_id, record.REASON.name, {})
            return trial_id
        # Another process was faster; ask again, of what there is now.
    return None


def end_paused(study: optuna.Study) -> Iterator[FrozenTrial]:
    """The search is over: end PRUNED what is paused, unless other processes go on with it.

    The most promising keep the state from which they could go on, if more budget is given (`reopen_paused`).
    """
    trials = study.get_trials(deepcopy=False)
    if any(trial.state == TrialState.RUNNING for trial in trials):
        return
    for rank, trial in enumerate(_paused(study, trials)):
        why = "the budget ended before the pruner let it go on"
        yield from _end(study, trial, Why.PAUSED, why, held=rank < KEPT)


def end_hopeless(study: optuna.Study) -> Iterator[FrozenTrial]:
    """End PRUNED the least promising where more are paused than the pruner keeps: each has files."""
    pruner, trials = study.pruner, study.get_trials(deepcopy=False)
    if not isinstance(pruner, PromotingPruner):
        return
    if sum(trial.state == TrialState.WAITING and is_held(trial) for trial in trials) > pruner.most_paused:
        for trial in _paused(study, trials)[pruner.most_paused :]:
            why = f"{pruner.most_paused} paused trials are more promising"
            yield from _end(study, trial, Why.PRUNED, why, held=False)


def _paused(study: optuna.Study, trials: list[FrozenTrial]) -> list[FrozenTrial]:
    """What is paused, the most promising first."""
    pruner = study.pruner
    paused = [trial for trial in trials if trial.state == TrialState.WAITING and is_held(trial)]
    if not paused:  # a pruner of one value cannot rank trials of several, nor does it pause any
        return []
    return pruner.ranked(study, paused) if isinstance(pruner, PromotingPruner) else paused


def _end(
    study: optuna.Study, trial: FrozenTrial, kind: Why, why: str, *, held: bool
) -> Iterator[FrozenTrial]:
    """End a paused trial PRUNED, unless another process takes it up just now."""
    storage, trial_id = storage_of(study), private.trial_id(trial)
    if claim(study, None, record.COUNTS.name, wanted=trial_id).trial_id is None:
        return
    reason = Reason(kind, f"paused {_where(trial)}; {why}")
    storage.set_trial_user_attr(trial_id, record.REASON.name, reason.as_attr())
    storage.set_trial_system_attr(trial_id, HELD, held)
    last = trial.last_step
    values = (
        None if last is None else [trial.intermediate_values[last]]
    )  # as Optuna records of a pruned trial
    storage.set_trial_state_values(trial_id, TrialState.PRUNED, values)
    yield storage.get_trial(trial_id)


def _where(trial: FrozenTrial) -> str:
    if (step := trial.last_step) is not None:
        return f"at step {step} with {trial.intermediate_values[step]:.6g}"
    reports = record.REPORTS.of(trial)
    if not reports:
        return "before its first report"
    step, found = max(reports.items(), key=lambda report: int(report[0]))
    return f"at step {step} with {', '.join(f'{name} {value:.6g}' for name, value in found.items())}"


def reopen_paused(study: optuna.Study, n_trials: int | None) -> None:
    """There is budget again: what was paused when it ended waits for its turn."""
    trials = study.get_trials(deepcopy=False)
    if not promotes(study) or (n_trials is not None and record.n_counted(trials) >= n_trials):
        return
    storage = storage_of(study)
    for trial in trials:
        if trial.state == TrialState.PRUNED and is_held(trial):
            storage.reopen(private.trial_id(trial))
