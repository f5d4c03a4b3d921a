import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import RandomSampler

from optnas.answers import contains
from optnas.benchmarks import synthetic
from optnas.strategy.reinforce import BINS, ReinforceSampler, _action, _n_actions, _value


def run(sampler, n_trials, objective):
    study = optuna.create_study(sampler=sampler)
    study.optimize(objective, n_trials=n_trials)
    return study


def greedy():
    """With little reward for entropy, so that the policy settles soon."""
    return ReinforceSampler(learning_rate=0.02, entropy=0.1, batch=1, hidden=16, seed=0)


def correlated(trial):
    """The second answer is right or wrong by the first: what an autoregressive controller can learn."""
    first = trial.suggest_categorical("first", ["a", "b", "c"])
    second = trial.suggest_categorical("second", ["a", "b", "c"])
    return float(first != second) + 0.2 * (first == "c")


def test_the_policy_learns_and_its_late_trials_are_better_than_chance() -> None:
    trials = run(greedy(), 200, correlated).trials
    assert np.mean([trial.value for trial in trials[150:]]) < 0.3  # 0.73 by chance


def test_later_answers_depend_on_earlier_ones() -> None:
    study = optuna.create_study(sampler=greedy())
    rng = np.random.default_rng(0)
    for _ in range(300):  # first answers are enqueued at random, so that only the second can be learned
        study.enqueue_trial({"first": "abc"[rng.integers(3)]})
    study.optimize(
        lambda t: float(t.suggest_categorical("first", "abc") != t.suggest_categorical("second", "abc")),
        n_trials=300,
    )
    assert np.mean([trial.value for trial in study.trials[220:]]) < 0.3  # 0.67 by chance


def test_a_batch_of_trials_is_as_likely_as_each_of_them_answer_by_answer() -> None:
    study = run(RandomSampler(seed=0), 12, synthetic.loss)
    controller = ReinforceSampler(hidden=8, seed=0)._learned(study).controller
    batch = [[(n, d, t.params[n]) for n, d in t.distributions.items()] for t in study.trials]
    assert len({len(questions) for questions in batch}) > 3
    controller.meet(batch)
    log_p, entropy = controller.log_likelihood(batch)
    for i, questions in enumerate(batch):
        state, logs, entropies = None, [], []
        for name, distribution, answer in questions:
            state, log_policy = controller.step(state, name, distribution)
            assert log_policy.exp().sum().item() == pytest.approx(1, abs=1e-5)
            action = _action(name, distribution, answer)
            logs.append(log_policy[action].item())
            entropies.append(-(log_policy.exp() * log_policy).sum().item())
            state = state.after(action)
        assert log_p[i].item() == pytest.approx(sum(logs), abs=1e-4)
        assert entropy[i].item() == pytest.approx(np.mean(entropies), abs=1e-4)


def test_pruned_trials_teach_too() -> None:
    def objective(trial):
        if trial.suggest_categorical("op", ["a", "b"]) == "a":
            raise optuna.TrialPruned
        return trial.suggest_float("x", 0, 1)

    late = run(greedy(), 150, objective).trials[100:]
    assert sum(trial.params["op"] == "b" for trial in late) > 40


def test_the_global_random_state_is_left_alone() -> None:
    import torch

    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    run(ReinforceSampler(hidden=8, seed=0), 5, correlated)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    "distribution",
    [
        CategoricalDistribution((True, 1, "1", None)),
        IntDistribution(8, 64, step=8),
        IntDistribution(1, 100_000, log=True),
        IntDistribution(-50, 49, step=3),
        FloatDistribution(0, 1, step=0.1),
        FloatDistribution(1e-5, 1, log=True),
        FloatDistribution(-2, 2),
    ],
)
def test_an_action_leads_to_answers_that_lead_back_to_it(distribution) -> None:
    rng = np.random.default_rng(0)
    for action in range(_n_actions("x", distribution)):
        for _ in range(5):
            value = _value("x", distribution, action, rng)
            assert contains(distribution, value)
            # Rounding to an integer may cross into another interval.
            if _n_actions("x", distribution) < BINS or isinstance(distribution, FloatDistribution):
                assert _action("x", distribution, value) == action


def test_better_than_random_on_average() -> None:
    def objective(trial):
        return float(sum(trial.suggest_categorical(f"x{i}", list("abcd")) != "a" for i in range(8)))

    ours = run(ReinforceSampler(hidden=16, seed=0), 200, objective)
    chance = run(RandomSampler(seed=0), 200, objective)
    assert ours.best_value < chance.best_value


def test_impossible_settings_are_named() -> None:
    with pytest.raises(ValueError, match=r"learning_rate=0\.0"):
        ReinforceSampler(learning_rate=0.0)
    with pytest.raises(ValueError, match="batch=0"):
        ReinforceSampler(batch=0)
