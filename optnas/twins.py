"""Twins: trials of one study that train an equal network in the same way, so that one value does for both."""

from __future__ import annotations

import logging
import math
import statistics
from collections.abc import Collection

import optuna
from optuna.trial import FrozenTrial, TrialState

from optnas import record
from optnas.answers import params_key, same
from optnas.estimation.run import Run
from optnas.record import End
from optnas.trial import ask

AUDITS = 2
"""How many twins of a study are trained all the same, to see that their values are what they seem."""

_NOTHING = object()

logger = logging.getLogger(__name__)


def trusted(study: optuna.Study) -> bool:
    """Whether equal networks of the study are known to train to equal values.

    Until `AUDITS` twins were trained all the same they are not, nor once two values differed.
    """
    return record.TWINS_DIFFER.of(study) is None and len(_audited(study)) >= AUDITS


def find_twin(run: Run, values: Collection[str], *, weights_count: bool) -> FrozenTrial | None:
    """A COMPLETE trial of an equal network whose estimate got the answers that this one gets.

    Args:
        run: It has its fingerprint and its settings already.
        values: Names of the objectives, all of which the other must have.
        weights_count: Whether the estimate depends on the weights that the network comes with, so that these
            must be equal, too.
    """
    fingerprint = record.FINGERPRINT.of(run)
    if fingerprint is None or record.TWINS_DIFFER.of(run.study) is not None:
        return None
    settings = record.SETTINGS.of(run)
    for other in run.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        asked = record.ASKED.of(other)
        if (
            asked is not None  # or somebody told it while it ran
            and other.number != run.number
            and record.TWIN_OF.of(other) is None
            and record.FINGERPRINT.of(other) == fingerprint
            and record.SETTINGS.of(other) == settings
            and (not weights_count or record.INITIAL.of(other) == record.INITIAL.of(run))
            and set(values) <= record.facts(other).keys() | record.metrics(other).keys()
            # The estimate of an equal network starts with the same question as the other's did, and goes on
            # with the same as long as the answers agree: asking here commits to nothing new.
            and all(
                same(ask(run.trial, name, other.distributions[name]), answer)
                for name, answer in asked.items()
                if name in other.distributions
            )
        ):
            return other
    return None


def begin_audit(run: Run, twin: FrozenTrial) -> bool:
    """Whether this twin is trained all the same, from the other's seed; if so, it records that."""
    if params_key(twin.params) == params_key(run.params) or len(_audited(run.study)) >= AUDITS:
        return False
    record.AUDIT_OF.write(run, twin.number)
    seed = record.SEED.of(twin)
    assert seed is not None, "every trial of an objective has one"
    record.SEED.write(run, seed)
    return True


def end_audit(run: Run, twin: FrozenTrial, values: tuple[float, ...]) -> None:
    """Compare the values of an audit with its twin's, and end all reuse where they differ."""
    for i, (value, other) in enumerate(zip(values, twin.values, strict=True)):
        if _differ(run, twin, i, value, other):
            _end_reuse(run, twin, value, other)
            return


def _audited(study: optuna.Study) -> list[int]:
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return [trial.number for trial in trials if record.AUDIT_OF.of(trial) is not None]


def _differ(run: Run, twin: FrozenTrial, i: int, value: float, other: float) -> bool:
    if record.INITIAL.of(run) == record.INITIAL.of(twin):
        # The same operations in the same order on the same weights: the same training.
        return not math.isclose(value, other, rel_tol=1e-6, abs_tol=1e-12)
    # Layers made in another order draw other weights: the values differ as those of two seeds do.
    trials = run.study.get_trials(deepcopy=False)
    known = [float(t.values[i]) for t in trials if record.end(t) is End.COMPLETE]
    spread = statistics.pstdev(known) if len(known) > 7 else math.inf
    return abs(value - other) > 2 * spread


def _end_reuse(run: Run, twin: FrozenTrial, value: float, other: float) -> None:
    changed = [
        f"{name}: {twin.params.get(name, 'not asked')!r} or {run.params.get(name, 'not asked')!r}"
        for name in {**twin.params, **run.params}
        if not same(twin.params.get(name, _NOTHING), run.params.get(name, _NOTHING))
    ]
    words = (
        f"Trial {run.number} builds the same network as trial {twin.number}, and trained from the same "
        f"seed it got {value:.6g} instead of {other:.6g}. What differs ({'; '.join(changed)}) decides "
        "something that the traced network does not show, or trainings are not reproducible here. No "
        "value of this study is reused from now on."
    )
    record.TWINS_DIFFER.write(run.study, words)
    logger.warning("%s", words)
