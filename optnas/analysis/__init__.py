"""About a study: what matters, what was learned, how sure that is: numbers."""

from typing import TYPE_CHECKING

from optnas._lazy import lazily
from optnas.analysis.compare import Comparison, compare
from optnas.analysis.explain import Explanation, explain
from optnas.analysis.front import distance_to_front, hypervolumes, pareto_front
from optnas.analysis.importance import Importance, importance
from optnas.analysis.leaderboard import leaderboard, leaderboard_table

if TYPE_CHECKING:
    from optnas.analysis.evaluator import ConditionalAnovaEvaluator as ConditionalAnovaEvaluator

__getattr__ = lazily(__name__)[0]  # for the evaluator, which loads scikit-learn

__all__ = [
    "Comparison",
    "ConditionalAnovaEvaluator",
    "Explanation",
    "Importance",
    "compare",
    "distance_to_front",
    "explain",
    "hypervolumes",
    "importance",
    "leaderboard",
    "leaderboard_table",
    "pareto_front",
]
