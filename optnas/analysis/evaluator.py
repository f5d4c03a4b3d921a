"""The analysis of variance as one of Optuna's importance evaluators, whose module loads scikit-learn."""

from __future__ import annotations

from collections.abc import Callable

from optuna.importance import BaseImportanceEvaluator
from optuna.study import Study
from optuna.trial import FrozenTrial

from optnas.analysis.anova import LEVELS, decompose, tabulate
from optnas.analysis.trials import finished, objective_value


class ConditionalAnovaEvaluator(BaseImportanceEvaluator):
    """Importance of a decision: its share of the metric's variance among the trials where it is active.

    The share is that of the main effect, noise included in the whole: 1 means that the decision alone
    determines the metric wherever it is asked, 0 that it has no effect of its own. Corrected for chance, so
    that an irrelevant decision scores 0 on average before negative estimates are set to 0. The whole is the
    sum of all effects' variances and of what they leave (noise and interactions). Numbers with more than
    `levels` values are cut into up to that many classes of equal counts, of at least 6 trials.

    An Optuna evaluator: `optuna.importance.get_param_importances(study, evaluator=...)` takes it too
    (`normalize=False` keeps shares).

    Examples:
        >>> evaluator = optnas.analysis.ConditionalAnovaEvaluator()
        >>> list(optuna.importance.get_param_importances(study, evaluator=evaluator))[:2]
        ['depth', 'width']
    """

    def __init__(self, *, levels: int = LEVELS) -> None:
        if levels < 2:
            raise ValueError(f"levels must be at least 2, got {levels}.")
        self.levels = levels

    def evaluate(
        self,
        study: Study,
        params: list[str] | None = None,
        *,
        target: Callable[[FrozenTrial], float] | None = None,
    ) -> dict[str, float]:
        """Shares by name, largest first.

        Raises:
            ValueError: several objectives and no `target`.
        """
        table = tabulate(finished(study), objective_value(study, target), self.levels)
        shares = dict(zip(table.names, decompose(table).shares, strict=True))
        wanted = table.names if params is None else params
        return dict(sorted(((n, float(shares.get(n, 0.0))) for n in wanted), key=lambda x: -x[1]))
