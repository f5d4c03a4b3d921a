"""Paused trials: let them go on, set them aside at the end of a budget, and take them up again."""

from __future__ import annotations

from collections.abc import Iterator

import optuna
from optuna.trial import FrozenTrial, TrialState

from optnas import private, record
from optnas.record import Reason, Why
from optnas.storage.base import HELD, NEVER, Claim, Seen, is_held
from optnas.storage.open import claim, storage_of
from optnas.strategy.halving import PromotingPruner

KEPT = 10
"""How many trials that are paused at the end of a budget keep their state, to go on with more budget."""


def promotes(study: optuna.Study) -> bool:
    """Whether the study's pruner lets trials go on that it stopped."""
    return isinstance(study.pruner, PromotingPruner)


def take_paused(study: optuna.Study, *, last: bool) -> int | None:
    """The id of a paused trial that goes on now, in this process; None if there is none.

    `last`: whether no new trial may begin any more.
    """
    pruner = study.pruner
    while isinstance(pruner, PromotingPruner):
        seen = Seen.of(study.get_trials(deepcopy=False)) if pruner.exact else None
        if (trial := pruner.promote(study, last=last)) is None:
            return None
        trial_id = private.trial_id(trial)
        if claim(study, None, record.COUNTS.name, wanted=trial_id, seen=seen).trial_id is not None:
            record.LET_GO_ON.write(study, trial, record.n_reports(trial))
            if Reason.of(trial) is not None:  # the reason of an earlier end, which no longer holds
                storage_of(study).set_trial_user_attr(trial_id, record.REASON.name, {})
            return trial_id
        # Another process was faster; ask the pruner again.
    return None


def take_next(study: optuna.Study, n_trials: int | None) -> Claim:
    """Claim what waits for the next worker, or a new trial where the pruner lets one begin."""
    pruner, seen = study.pruner, None
    if isinstance(pruner, PromotingPruner) and pruner.exact:
        seen = Seen.of(study.get_trials(deepcopy=False))
        seen = seen if pruner.begins(study) else NEVER
    return claim(study, n_trials, record.COUNTS.name, seen=seen)


def end_paused(study: optuna.Study) -> Iterator[FrozenTrial]:
    """At the end of a search, set paused trials to PRUNED, unless other processes go on with them.

    The most promising ones keep the state from which they can go on with more budget (`reopen_paused`).
    """
    trials = study.get_trials(deepcopy=False)
    if any(trial.state == TrialState.RUNNING for trial in trials):
        return
    for rank, trial in enumerate(_paused(study, trials)):
        why = "the budget ended before the pruner let it go on"
        yield from _end(study, trial, Why.PAUSED, why, held=rank < KEPT)


def end_hopeless(study: optuna.Study) -> Iterator[FrozenTrial]:
    """Set the least promising to PRUNED if more are paused than the pruner keeps, since each has files."""
    pruner, trials = study.pruner, study.get_trials(deepcopy=False)
    if not isinstance(pruner, PromotingPruner):
        return
    if sum(trial.state == TrialState.WAITING and is_held(trial) for trial in trials) > pruner.most_paused:
        for trial in _paused(study, trials)[pruner.most_paused :]:
            why = f"{pruner.most_paused} paused trials are more promising"
            yield from _end(study, trial, Why.PRUNED, why, held=False)


def _paused(study: optuna.Study, trials: list[FrozenTrial]) -> list[FrozenTrial]:
    """The paused trials, the most promising first."""
    pruner = study.pruner
    paused = [trial for trial in trials if trial.state == TrialState.WAITING and is_held(trial)]
    if not paused:  # a pruner for one value pauses no trial of several values, and cannot rank them
        return []
    return pruner.ranked(study, paused) if isinstance(pruner, PromotingPruner) else paused


def _end(
    study: optuna.Study, trial: FrozenTrial, kind: Why, why: str, *, held: bool
) -> Iterator[FrozenTrial]:
    """Set a paused trial to PRUNED, unless another process takes it up at this moment."""
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
        about = record.SCREENED.of(trial)
        return (
            f"after screening, with {about['name']} {about['value']:.6g}"
            if about
            else "before its first report"
        )
    step, found = max(reports.items(), key=lambda report: int(report[0]))
    return f"at step {step} with {', '.join(f'{name} {value:.6g}' for name, value in found.items())}"


def reopen_paused(study: optuna.Study, n_trials: int | None) -> None:
    """When there is budget again, let the trials wait for their turn that were paused at its end."""
    trials = study.get_trials(deepcopy=False)
    if not promotes(study) or (n_trials is not None and record.n_counted(trials) >= n_trials):
        return
    storage = storage_of(study)
    for trial in trials:
        if trial.state == TrialState.PRUNED and is_held(trial):
            storage.reopen(private.trial_id(trial))
