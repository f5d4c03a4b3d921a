"""Pruning with several objectives, which Optuna refuses: by the one that changes during training."""

from __future__ import annotations

from collections.abc import Container

from optuna.pruners import BasePruner, MedianPruner
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from optnas import pareto, private, record
from optnas.pareto import MultiObjectivePruner


class FrontPruner(MultiObjectivePruner):
    """Lets a pruner of one objective stop the trials of a search with several, compared with their rivals.

    All other objectives must be facts, which are known before training. The rivals of a trial are those that
    are as good in all of them: such networks, and no others, keep it off the front. So a cheap network is
        compared with cheap ones only, and an expensive one must beat all that are cheaper.

        optnas.create_study(objective, pruner=FrontPruner(MedianPruner(n_warmup_steps=5)))

    Args:
        pruner: decides, given the trial and its rivals as a study of that one objective; by default Optuna's
            MedianPruner.

    Raises:
        ValueError: (when it is asked) an objective but the reported one is not a fact of the trial.

    Examples:
        >>> pruner = optnas.strategy.FrontPruner(optuna.pruners.MedianPruner(n_warmup_steps=5))
        >>> pruned = optnas.create_study(two, pruner=pruner)
    """

    def __init__(self, pruner: BasePruner | None = None) -> None:
        self.pruner = MedianPruner() if pruner is None else pruner

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether the trial is not to go on."""
        objective = reported(study, trial)
        own = pareto.as_one(study, trial, objective)
        if not own.intermediate_values:
            return False
        return self.pruner.prune(_Rivals(study, trial, objective), own)


def reported(study: Study, trial: FrozenTrial) -> int:
    """Which objective changes during training, where all others are facts of the trial.

    Raises:
        ValueError: none does, or several do.
    """
    names = study.metric_names or []
    known = record.facts(trial)
    changing = [i for i, name in enumerate(names) if name not in known]
    if len(changing) != 1:
        raise ValueError(
            f"This pruner needs exactly one objective that training decides; the others must be facts. "
            f"Of {', '.join(names)}, "
            f"{', '.join(names[i] for i in changing) or 'none'} is not known before training."
        )
    return changing[0]


class _Rivals(Study):
    """A trial and those that are as good in all objectives but one, as a study of that one."""

    def __init__(self, study: Study, trial: FrozenTrial, objective: int) -> None:
        super().__init__(study.study_name, private.storage(study))
        self._of, self._trial, self._objective = study, trial, objective
        self._directions = [study.directions[objective]]

    def get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        names, signs = self._of.metric_names or [], pareto.signs(self._of)
        others = [i for i in range(len(names)) if i != self._objective]
        mine = record.facts(self._trial)

        def rivals(trial: FrozenTrial) -> bool:
            theirs = record.facts(trial)
            return all(
                names[i] in theirs and signs[i] * theirs[names[i]] <= signs[i] * mine[names[i]]
                for i in others
            )

        trials = self._of.get_trials(deepcopy=False, states=states)
        return [pareto.as_one(self._of, t, self._objective) for t in trials if rivals(t)]

    def _get_trials(
        self,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
        use_cache: bool = False,
    ) -> list[FrozenTrial]:
        return self.get_trials(deepcopy, states)
