import copy

import numpy as np
import pytest
from scipy.optimize import check_grad
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel
from threadpoolctl import threadpool_info, threadpool_limits

from optnas.surrogate.gaussian_process import JITTER, MOST_FITTED, GaussianProcess


def rows_and_targets(n, columns=6, seed=0):
    rng = np.random.default_rng(seed)
    rows = rng.random((n, columns))
    targets = np.sin(5 * rows[:, 0]) + rows[:, 1] ** 2 + 0.05 * rng.normal(size=n)
    return rows, (targets - targets.mean()) / targets.std()


def test_predicts_what_scikit_learn_predicts_with_the_fitted_kernel() -> None:
    rows, targets = rows_and_targets(40)
    ours = GaussianProcess().fit(rows, targets)
    kernel = ConstantKernel(ours._signal) * Matern(1 / ours._scale, nu=1.5) + WhiteKernel(ours._noise + 1e-8)
    theirs = GaussianProcessRegressor(kernel, alpha=0, optimizer=None).fit(rows, targets)
    elsewhere = rows_and_targets(30, seed=1)[0]
    mean, std = ours.predict(elsewhere)
    expected, noisy_std = theirs.predict(elsewhere, return_std=True)
    np.testing.assert_allclose(mean, expected, atol=1e-6)
    np.testing.assert_allclose(std**2, noisy_std**2 - ours._noise, atol=1e-6)


def test_what_is_fitted_is_what_is_predicted_for_the_same_rows() -> None:
    rows, targets = rows_and_targets(40)
    gp = GaussianProcess().fit(rows, targets)
    np.testing.assert_allclose(gp.fitted(), gp.predict(rows)[0], atol=1e-9)
    assert np.abs(gp.fitted() - targets).max() > 1e-3


@pytest.mark.parametrize("same", [None, np.kron(np.eye(5), np.ones((4, 4)))])
def test_the_gradient_is_that_of_the_loss(same) -> None:
    rows, targets = rows_and_targets(20)
    gp = GaussianProcess().fit(rows, targets, groups=None if same is None else np.arange(20) // 4)
    for seed in range(3):
        x = gp._prior_mean + np.random.default_rng(seed).normal(size=len(gp._prior_mean))
        loss, gradient = (lambda at, i=i: gp._loss(at, rows, targets, same)[i] for i in (0, 1))
        assert check_grad(loss, gradient, x) < 1e-4 * np.linalg.norm(gradient(x))


def test_learns_which_columns_matter() -> None:
    gp = GaussianProcess().fit(*rows_and_targets(60))
    assert gp._scale[:2].min() > 2 * gp._scale[2:].max()


@pytest.mark.parametrize("n", [2, 3, 10])
def test_is_sane_with_fewer_rows_than_columns(n) -> None:
    rows, targets = rows_and_targets(n, columns=50)
    mean, std = GaussianProcess().fit(rows, targets).predict(rows)
    assert np.isfinite(std).all()
    assert np.abs(mean).max() <= np.abs(targets).max() + 0.1


def test_columns_that_do_not_vary_are_no_obstacle() -> None:
    rows = np.ones((5, 3))
    mean, std = GaussianProcess().fit(rows, np.arange(5) - 2.0).predict(rows)
    np.testing.assert_allclose(mean, 0, atol=1e-6)
    assert np.isfinite(std).all()


def test_what_is_believed_changes_no_mean_and_lowers_the_uncertainty() -> None:
    gp = GaussianProcess().fit(*rows_and_targets(15))
    elsewhere = rows_and_targets(20, seed=1)[0]
    believing = gp.believe(elsewhere[:5])
    for before, after in zip(gp.predict(elsewhere), believing.predict(elsewhere), strict=True):
        assert (after <= before + 1e-3).all()
    np.testing.assert_allclose(believing.predict(elsewhere)[0], gp.predict(elsewhere)[0], atol=1e-2)
    assert (believing.predict(elsewhere[:5])[1] < gp.predict(elsewhere[:5])[1]).all()


def test_the_kernel_is_fitted_to_the_first_rows_and_predicts_from_all() -> None:
    rows, targets = rows_and_targets(MOST_FITTED + 20)
    first = GaussianProcess().fit(rows[:MOST_FITTED], targets[:MOST_FITTED])
    every = GaussianProcess().fit(rows, targets)
    np.testing.assert_allclose(first._scale, every._scale, rtol=1e-2)  # the prior knows the variance of all
    late = slice(MOST_FITTED, None)
    errors = [np.abs(gp.predict(rows[late])[0] - targets[late]).mean() for gp in (first, every)]
    assert errors[1] < 0.5 * errors[0]


def test_columns_that_do_not_vary_among_the_fitted_rows_keep_the_weight_of_the_prior() -> None:
    rows, targets = rows_and_targets(MOST_FITTED + 20)
    rows[:MOST_FITTED, 5] = 0.5
    gp = GaussianProcess().fit(rows, targets)
    typical = 0.6 / (2 * rows.var(axis=0).sum())
    np.testing.assert_allclose(gp._scale[5] ** 2, typical)
    assert (np.abs(gp._scale[:5] ** 2 / typical - 1) > 1e-3).all()


def test_one_thread_is_used_whatever_there_is() -> None:
    rows, targets = rows_and_targets(30)
    used = set()

    class Watched(GaussianProcess):
        def _loss(self, *arguments):
            used.update(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")
            return super()._loss(*arguments)

    with threadpool_limits(2, user_api="blas"):
        Watched().fit(rows, targets)
        assert {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"} == {2}
    assert used == {1}


GROUPS = np.array([0, 0, 1, 1, 1, 2, 3, 3, 4])


def test_groups_are_predicted_from_the_others_alone() -> None:
    rng = np.random.default_rng(0)
    rows, targets = rng.normal(size=(9, 2)), rng.normal(size=9)
    process = GaussianProcess().fit(rows, targets, groups=GROUPS)
    mean, variance = process.left_out()
    for group in range(5):
        out = group == GROUPS
        without = copy.copy(process)
        without._condition(process._scaled[~out], targets[~out], GROUPS[~out])
        expected, std = without.predict(rows[out])
        assert mean[out] == pytest.approx(expected)
        assert variance[out] == pytest.approx(std**2 + process._noise + process._luck + JITTER)
    alone, ungrouped = copy.copy(process), copy.copy(process)
    alone._condition(process._scaled, targets, np.arange(9))
    ungrouped._noise = process._noise + process._luck
    ungrouped._condition(process._scaled, targets, None)
    assert alone.left_out()[0] == pytest.approx(ungrouped.left_out()[0])


def test_what_the_targets_of_a_group_have_in_common_is_luck_and_no_signal() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(60), 4)
    place = rng.uniform(size=60)[groups]
    level = np.tile([0.25, 0.5, 0.75, 1.0], 60)
    rows, truth = np.column_stack([place, 0.5 * level]), np.sin(5 * place)
    targets = truth + rng.normal(0, 0.7, 60)[groups] + rng.normal(0, 0.05, 240)
    fits = [GaussianProcess().fit(rows, targets, most=240, groups=known, n_own=1) for known in (groups, None)]
    errors = [np.sqrt(((process.fitted() - truth) ** 2).mean()) for process in fits]
    assert errors[0] < 0.5 * errors[1]
    assert 0.25 < fits[0]._luck < 0.9  # 0.49
    assert fits[0].fitted() == pytest.approx(fits[0].predict(rows)[0])


def test_what_is_believed_is_a_group_of_its_own() -> None:
    rng = np.random.default_rng(0)
    rows, targets = rng.normal(size=(9, 2)), rng.normal(size=9)
    process = GaussianProcess().fit(rows, targets, groups=GROUPS)
    new = rng.normal(size=(3, 2))
    believed = process.believe(new)
    assert believed.predict(new)[0] == pytest.approx(process.predict(new)[0])
    assert (believed.predict(new)[1] < process.predict(new)[1]).all()


def test_columns_in_units_of_their_own_keep_the_weight_of_the_prior_however_much_they_vary() -> None:
    rows, targets = rows_and_targets(20)
    same = np.full(20, 3.0)
    for scale in (0.1, 10.0):
        gp = GaussianProcess().fit(np.column_stack([rows, same * scale]), targets, n_own=1)
        assert gp._scale[-1] == 1.0
        assert gp._scale[:-1] == pytest.approx(GaussianProcess().fit(rows, targets)._scale)
