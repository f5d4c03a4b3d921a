import numpy as np
import optuna
import pytest
from optuna.trial import create_trial
from scipy import stats

from optnas.plots import plot_comparison


def study_of(values: list[float]) -> optuna.Study:
    study = optuna.create_study()
    study.add_trials([create_trial(value=v) for v in values])
    return study


def test_mean_and_band() -> None:
    curves = np.array([[3.0, 2.0, 1.0], [5.0, 3.0, 2.0], [4.0, 4.0, 2.5]])
    groups = {"many": [study_of(c.tolist()) for c in curves], "one": [study_of([1.0, 2.0])]}
    band, mean, single = plot_comparison(groups).data
    assert list(mean.y) == pytest.approx(curves.mean(axis=0))
    low, high = stats.t.interval(0.95, 2, curves.mean(axis=0), curves.std(axis=0, ddof=1) / np.sqrt(3))
    assert list(band.y) == pytest.approx([*high, *low[::-1]])
    assert list(single.y) == [1.0, 1.0]
    assert single.line.dash != mean.line.dash


def test_bad_beginnings_do_not_hide_the_differences() -> None:
    values = [100.0, *np.linspace(3.0, 1.0, 29)]
    groups = {"a": [study_of(values)], "b": [study_of([v + 0.5 for v in values])]}
    low, high = plot_comparison(groups).layout.yaxis.range
    assert low < 1.0
    assert 3.0 < high < 4.0


def test_many_groups_can_be_told_apart_and_no_band_covers_a_line() -> None:
    traces = plot_comparison({str(i): [study_of([i]), study_of([i + 1])] for i in range(12)}).data
    assert [trace.mode for trace in traces] == [None] * 12 + ["lines"] * 12
    assert len({(trace.line.color, trace.line.dash) for trace in traces[12:]}) == 12


def test_nothing_finished_says_so() -> None:
    empty = {name: [optuna.create_study()] for name in "ab"}
    assert "No study" in plot_comparison(empty).layout.annotations[0].text


def test_the_band_of_huge_values_is_as_wide_as_that_of_others() -> None:
    curves = np.array([[3.0, 2.0, 1.0], [5.0, 3.0, 2.0], [4.0, 4.0, 2.5]])
    bands = []
    for unit in (1.0, 2.0**1000):
        groups = {"many": [study_of((unit * c).tolist()) for c in curves], "one": [study_of([unit])]}
        bands.append(np.array(plot_comparison(groups).data[0].y) / unit)
    np.testing.assert_array_equal(*bands)
