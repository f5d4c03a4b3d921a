"""About a study: what matters, what was learned, how sure that is: numbers."""

from optnas.analysis.anova import ConditionalAnovaEvaluator
from optnas.analysis.compare import Comparison, compare
from optnas.analysis.explain import Explanation, explain
from optnas.analysis.front import distance_to_front, hypervolumes, pareto_front
from optnas.analysis.importance import Importance, importance
from optnas.analysis.leaderboard import leaderboard, leaderboard_table

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
