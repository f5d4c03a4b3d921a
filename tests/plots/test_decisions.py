from itertools import pairwise

import optuna
import pytest
from optuna.distributions import CategoricalDistribution
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.trial import create_trial

from optnas.analysis.importance import importance
from optnas.plots import plot_importance, plot_parallel


@pytest.fixture(scope="module")
def random_study() -> optuna.Study:
    def objective(trial: optuna.Trial) -> float:
        value = trial.suggest_float("x", 0, 1)
        if trial.suggest_categorical("two", [False, True]):
            value += trial.suggest_int("two.y", 0, 20)
        return value

    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(objective, n_trials=40)
    return study


def test_importance_bars_are_the_shares(random_study: optuna.Study) -> None:
    result = importance(random_study, n_bootstrap=10)
    (bars,) = plot_importance(result, n=2).data
    largest, second = result.decisions[:2]
    assert list(bars.x) == [second.value, largest.value]  # the largest on top
    assert bars.error_x.array[1] == pytest.approx(largest.high - largest.value)
    assert bars.error_x.arrayminus[1] == pytest.approx(largest.value - largest.low)


def test_importance_axis_names_what_it_shows(random_study: optuna.Study) -> None:
    ours = plot_importance(importance(random_study, n_bootstrap=0))
    optunas = plot_importance(
        importance(random_study, evaluator=PedAnovaImportanceEvaluator(), n_bootstrap=0)
    )
    assert "share of variance" in ours.layout.xaxis.title.text
    assert optunas.layout.xaxis.title.text == "importance"
    assert plot_importance(importance(random_study, n_bootstrap=0), of="positions").layout.annotations
    with pytest.raises(ValueError, match="of='method' must be one of decisions, "):
        plot_importance(importance(random_study, n_bootstrap=0), of="method")


def test_parallel_lines_stand_where_the_answers_are(random_study: optuna.Study) -> None:
    figure = plot_parallel(random_study, params=["two", "two.y"])
    n_lines = sum(list(trace.x).count(None) for trace in figure.data)
    assert n_lines == 40
    best = next(trace for trace in figure.data if trace.name == "best fifth")
    # The smallest values are best here: all of them without `two`, so that `two.y` was not asked.
    assert [x for x in best.x if x is not None] == pytest.approx([0.0] * 16, abs=0.013)
    words = [a.text for a in figure.layout.annotations]
    ys = [t.params["two.y"] for t in random_study.trials if "two.y" in t.params]
    assert words == ["<b>two</b>", "False", "True", "<b>two.y</b>", "not asked", str(min(ys)), str(max(ys))]


def test_parallel_chooses_the_most_important(random_study: optuna.Study) -> None:
    words = [a.text for a in plot_parallel(random_study, n=2).layout.annotations]
    assert [w for w in words if w.startswith("<b>")] == ["<b>two</b>", "<b>two.y</b>"]


def test_parallel_needs_trials_and_known_names(random_study: optuna.Study) -> None:
    assert "Too few" in plot_parallel(optuna.create_study()).layout.annotations[0].text
    with pytest.raises(ValueError, match="'z'"):
        plot_parallel(random_study, params=["z"])


def test_parallel_tells_true_from_one_and_knows_the_choices_of_all_trials() -> None:
    study = optuna.create_study()
    for choices in ((True, 1, 1.5), (True, 1, 1.5, None)):
        for i, choice in enumerate(choices):
            x = CategoricalDistribution(choices)
            study.add_trial(create_trial(value=i, params={"x": choice}, distributions={"x": x}))
    figure = plot_parallel(study, params=["x"])
    assert [a.text for a in figure.layout.annotations] == ["<b>x</b>", "True", "1", "1.5", "None"]
    places = sorted(x for trace in figure.data for x in trace.x if x is not None)
    assert places == pytest.approx([0, 0, 1 / 3, 1 / 3, 2 / 3, 2 / 3, 1], abs=0.013)


def test_names_and_answers_are_no_markup() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(lambda t: len(t.suggest_categorical("<b>%{x}", ["<br>", "x & y"])), n_trials=12)
    words = [a.text for a in plot_parallel(study).layout.annotations]
    assert words == ["<b>&lt;b&gt;%&#123;x}</b>", "&lt;br&gt;", "x &amp; y"]
    assert plot_importance(importance(study, n_bootstrap=2)).layout.yaxis.ticktext == ("&lt;b&gt;%&#123;x}",)


@pytest.mark.parametrize("asked", [1.0, 0.8])
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 8, 13, 30, 60])
def test_no_labels_touch_on_a_phone(n: int, asked: float) -> None:
    """The longest of answers, to a decision that all trials were asked, or only some."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    choices = [f"{i}" + "n" * 50 for i in range(n)]

    def objective(trial: optuna.Trial) -> float:
        if trial.number < 10 * asked:
            trial.suggest_categorical("x", choices)
        return float(trial.number)

    study.optimize(objective, n_trials=10)
    labels = [a for a in plot_parallel(study, params=["x"]).layout.annotations if a.yanchor == "top"]
    assert len(labels) >= min(n, 8)
    assert all(len(a.text) >= 3 for a in labels)
    for line in {a.yshift for a in labels}:
        spans = []
        for a in labels:
            if a.yshift == line:
                width = 6.5 * len(a.text)  # at 11 pixels
                left = 310 * a.x - {"left": 0, "center": width / 2, "right": width}[a.xanchor]
                spans.append((left, left + width))
        assert all(end <= start for (_, end), (start, _) in pairwise(sorted(spans)))
