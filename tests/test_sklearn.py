"""Searches as estimators of scikit-learn: its own checks, and what the checks do not see."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from sklearn.datasets import load_diabetes, load_iris
from sklearn.model_selection import cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from sklearn.utils.estimator_checks import estimator_checks_generator

from optnas.hub import tabular
from optnas.sklearn import SearchClassifier, SearchRegressor

SMALL = partial(tabular.resnet, width=32, depth=(1, 2))
QUICK: dict[str, Any] = {
    "space": SMALL,
    "n_trials": 1,
    "max_epochs": 15,
    "batch_size": 16,
    "lr": 0.01,
    "random_state": 0,
}


CHECKS = [
    pytest.param(estimator, check, id=f"{type(estimator).__name__}-{check.func.__name__}")
    for kind in (SearchClassifier, SearchRegressor)
    for estimator, check in estimator_checks_generator(kind(**QUICK), mark="skip")
]  # with names of their own: those that scikit-learn gives hold addresses, which differ between processes


@pytest.mark.parametrize(("estimator", "check"), CHECKS)
def test_it_passes_the_checks_of_scikit_learn(estimator: Any, check: Callable[[Any], None]) -> None:
    check(estimator)


def test_a_classifier_finds_irises_and_keeps_their_names() -> None:
    x, y = load_iris(return_X_y=True)
    names = np.array(["setosa", "versicolor", "virginica"])[y]
    x_train, x_test, y_train, y_test = train_test_split(x, names, test_size=0.3, random_state=0, stratify=y)
    search = SearchClassifier(SMALL, n_trials=3, max_epochs=20, batch_size=16, random_state=0).fit(
        x_train, y_train
    )
    assert search.score(x_test, y_test) > 0.9
    assert list(search.classes_) == ["setosa", "versicolor", "virginica"]
    assert {"depth", "lr"} <= set(search.best_params_)
    assert isinstance(search.study_, optuna.Study)
    outputs = search.best_model_(torch.from_numpy(search.scaler_.transform(x_test)).float())
    np.testing.assert_allclose(outputs.softmax(1).detach(), search.predict_proba(x_test), atol=1e-4)
    assert search.best_loss_ == pytest.approx(search.study_.best_value)


def test_a_regressor_predicts_in_the_units_of_the_targets() -> None:
    x, y = load_diabetes(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(x, 1000 * y, random_state=0)
    search = SearchRegressor(SMALL, n_trials=2, max_epochs=20, random_state=0).fit(x_train, y_train)
    assert search.score(x_test, y_test) > 0.3
    assert search.predict(x_test).mean() == pytest.approx(y_test.mean(), rel=0.2)


def test_it_is_a_part_of_pipelines_and_cross_validation() -> None:
    rng = np.random.default_rng(0)
    colors = rng.choice(["red", "green", "blue"], size=(90, 2))
    same = colors[:, 0] == colors[:, 1]
    quick = SearchClassifier(**{**QUICK, "max_epochs": 30})
    scores = cross_val_score(make_pipeline(OneHotEncoder(sparse_output=False), quick), colors, same, cv=2)
    assert scores.mean() > 0.8


def test_with_a_storage_a_second_fit_goes_on_with_the_first(tmp_path: Path) -> None:
    x, y = load_iris(return_X_y=True)
    url = f"sqlite:///{tmp_path}/nas.db"
    first = SearchClassifier(**QUICK, storage=url).fit(x, y)
    more = SearchClassifier(**{**QUICK, "n_trials": 2}, storage=url).fit(x, y)
    again = SearchClassifier(**{**QUICK, "n_trials": 2}, storage=url).fit(x, y)
    assert len(first.study_.trials) == len(more.study_.trials) == len(again.study_.trials) == 2
    np.testing.assert_array_equal(more.predict_proba(x), again.predict_proba(x))


def test_without_one_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    SearchRegressor(**QUICK).fit(np.random.default_rng(0).random((30, 2)), np.arange(30.0))
    assert list(tmp_path.iterdir()) == []


def test_one_class_cannot_be_told_apart() -> None:
    with pytest.raises(ValueError, match="of one class"):
        SearchClassifier(**QUICK).fit(np.ones((9, 2)), np.zeros(9))
