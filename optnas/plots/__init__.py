"""Plots of studies: each a function that returns a plotly figure."""

from optnas.plots.comparison import plot_comparison
from optnas.plots.decisions import plot_importance, plot_parallel
from optnas.plots.front import plot_front
from optnas.plots.history import plot_history, plot_hypervolume, plot_learning_curves, plot_timeline
from optnas.plots.trust import plot_rank_correlation

__all__ = [
    "plot_comparison",
    "plot_front",
    "plot_history",
    "plot_hypervolume",
    "plot_importance",
    "plot_learning_curves",
    "plot_parallel",
    "plot_rank_correlation",
    "plot_timeline",
]
