"""Which of the networks that were estimated cheaply are estimated in full."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from optuna.pruners import BasePruner, NopPruner
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from optnas import record
from optnas.storage.base import is_held
from optnas.strategy.halving import PromotingPruner
from optnas.surrogate.encoder import Features


class ScreeningPruner(PromotingPruner):
    """Lets one of some networks go on after its cheap estimate (`Screening`): the one that promises most.

    What each promises is the value that a surrogate expects of it, which learns from all cheap scores and all
    whole ones together. Of what was screened, the part `share` goes on, spread over the search; so
    the first goes on once `1 / share` networks were screened, and of a search that ends earlier one does.

    `create_study` makes one for an objective with `Screening`, with its `share` and the structure of the
    networks as features.

    Args:
        share: of the screened networks that is estimated in full, above 0 and at most 1.
        features: see `Surrogate`.
        pruner: whether a whole estimate that is under way stops; by default none does.
        most_paused: see `PromotingPruner`.

    Raises:
        ValueError: `share` or `most_paused` is out of its range.

    Examples:
        >>> screened = optnas.Objective(
        ...     space, optnas.Screening(training, by=training.with_max_epochs(1))
        ... )
        >>> tried = optnas.create_study(screened, pruner=optnas.strategy.ScreeningPruner(share=0.2))
    """

    def __init__(
        self,
        share: float = 0.1,
        features: Features | None = None,
        pruner: BasePruner | None = None,
        most_paused: int = 1000,
    ) -> None:
        if not 0 < share <= 1:
            raise ValueError(f"ScreeningPruner(share={share}): give a share above 0 and at most 1.")
        if most_paused < 1:
            raise ValueError(f"most_paused={most_paused} must be at least 1.")
        self.share, self.most_paused = float(share), most_paused
        self._features = features
        self._pruner = NopPruner() if pruner is None else pruner

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether it stops here: after its cheap estimate, unless it is its turn; later, as `pruner` says."""
        if not _waits_for_choice(trial):
            return self._pruner.prune(study, trial)
        others = [other for other in study.get_trials(deepcopy=False) if other.number != trial.number]
        chosen = self._choose(study, [*others, trial], [*_paused(others), trial], last=False)
        if chosen is None or chosen.number != trial.number:
            return True
        record.LET_GO_ON.write(study, trial, 0)
        return False

    def promote(self, study: Study, *, last: bool) -> FrozenTrial | None:
        """A whole estimate that is paused, if `pruner` lets it go on; or the most promising screened one."""
        if isinstance(self._pruner, PromotingPruner):
            further = self._pruner.promote(study, last=last)
            if further is not None:
                return further
        trials = study.get_trials(deepcopy=False)
        return self._choose(study, trials, _paused(trials), last=last)

    def ranked(self, study: Study, paused: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """Those whose whole estimate has begun, then the others, as they promise."""
        begun = [trial for trial in paused if not _waits_for_choice(trial)]
        if isinstance(self._pruner, PromotingPruner):
            begun = self._pruner.ranked(study, begun)
        screened = [trial for trial in paused if _waits_for_choice(trial)]
        promise = self._promise(study, study.get_trials(deepcopy=False), screened)
        order = sorted(range(len(screened)), key=lambda i: (-promise[i], screened[i].number))
        return [*begun, *(screened[i] for i in order)]

    def _choose(
        self, study: Study, trials: Sequence[FrozenTrial], waiting: Sequence[FrozenTrial], *, last: bool
    ) -> FrozenTrial | None:
        """The one of `waiting` whose turn it is; None where as many have gone on as shall."""
        screened = [t for t in trials if record.SCREENED.of(t) is not None and t.state != TrialState.FAIL]
        n_gone_on = sum(not _waits_for_choice(trial) for trial in screened)
        most = round(self.share * len(screened), 9)
        # At the end to the next whole number: of a few that were screened, one is estimated in full.
        if not waiting or n_gone_on >= (math.ceil(most) if last else math.floor(most)):
            return None
        return waiting[int(np.argmax(self._promise(study, trials, waiting)))]

    def _promise(
        self, study: Study, trials: Sequence[FrozenTrial], screened: Sequence[FrozenTrial]
    ) -> Sequence[float]:
        """How promising they are, `(n,)`."""
        if len(screened) < 2:
            return [0.0] * len(screened)
        from optnas.surrogate.model import Surrogate  # only here: it takes a second to import

        running = [t.params for t in trials if t.state == TrialState.RUNNING and not _waits_for_choice(t)]
        surrogate = Surrogate(study.direction, self._features).fit(trials).believe(running)
        found: list[float] = surrogate.promise([trial.params for trial in screened]).tolist()
        return found


def _waits_for_choice(trial: FrozenTrial) -> bool:
    """Whether it was estimated cheaply, and nothing more has happened to it."""
    return (
        record.SCREENED.of(trial) is not None
        and record.LET_GO_ON.of(trial) is None
        and not trial.intermediate_values
        and trial.state != TrialState.COMPLETE
    )


def _paused(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """Those that were estimated cheaply and may go on."""
    return [t for t in trials if t.state == TrialState.WAITING and is_held(t) and _waits_for_choice(t)]
