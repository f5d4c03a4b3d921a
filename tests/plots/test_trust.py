import math

from optnas.analysis.trust import Agreement, Interval, RankCorrelation
from optnas.plots import plot_rank_correlation


def row(name: str, kendall: float) -> Agreement:
    interval = Interval(kendall, kendall - 0.1, kendall + 0.2)
    return Agreement(name, 50, interval, interval, interval, interval)


def test_estimates_and_each_floor_once() -> None:
    floors = (row("parameters", 0.5), row("FLOPs", 0.4))
    found = [
        RankCorrelation(row(f"<b>{name}", value), floors, None) for name, value in (("a", 0.6), ("b", 0.1))
    ]
    estimates, free = plot_rank_correlation(found).data
    assert list(estimates.x) == [0.6, 0.1]
    assert list(estimates.y) == ["&lt;b&gt;a", "&lt;b&gt;b"]
    assert list(free.y) == ["parameters", "FLOPs"]
    assert math.isclose(estimates.error_x.array[0], 0.2)
    assert math.isclose(estimates.error_x.arrayminus[0], 0.1)


def test_nothing_to_show_says_so() -> None:
    constant = RankCorrelation(row("a", math.nan), (), None)
    for found in ([], [constant]):
        assert "No estimate" in plot_rank_correlation(found).layout.annotations[0].text
