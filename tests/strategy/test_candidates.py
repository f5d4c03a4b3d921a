import numpy as np
import pytest
from optuna.distributions import FloatDistribution, IntDistribution

from optnas import answers
from optnas.answers import contains
from optnas.benchmarks import synthetic
from optnas.strategy import candidates as module
from optnas.strategy.candidates import Candidates, Questions, nearby
from optnas.trial import replay


class Counted:
    """A space that counts its calls."""

    def __init__(self, space) -> None:
        self.space = space
        self.calls = 0

    def __call__(self, trial):
        self.calls += 1
        return self.space(trial)


def conditional(trial) -> None:
    for i in range(trial.suggest_int("depth", 0, 3)):
        if trial.suggest_categorical(f"{i}.op", [True, 1, "1"]) is True:
            trial.suggest_float(f"{i}.rate", 0.0, 1.0)


def test_a_walk_known_is_not_called_again() -> None:
    space = Counted(conditional)
    questions = Questions(space)
    rng = np.random.default_rng(0)
    for _ in range(2000):
        params = questions.answer(lambda name, distribution: answers.draw(distribution, rng))
        assert replayed(conditional, params) == params
    assert space.calls == sum(3**depth for depth in range(4))


def replayed(space, params):
    draw = replay(params)
    space(draw)
    return draw.params


def deep(trial) -> None:
    """More paths than anybody walks; whether there is a rate goes by the answer before."""
    for i in range(trial.suggest_int("depth", 1, 20)):
        trial.suggest_int(f"{i}.width", 1, 99)
        if trial.suggest_categorical(f"{i}.op", ["conv", "pool", "drop"]) == "drop":
            trial.suggest_float(f"{i}.rate", 0.0, 1.0)


def walks(questions, n, rng):
    return [questions.answer(lambda _, distribution: answers.draw(distribution, rng)) for _ in range(n)]


def test_questions_of_a_path_that_nobody_walked_are_foreseen() -> None:
    space = Counted(deep)
    questions, rng = Questions(space), np.random.default_rng(0)
    questions.learn(walks(questions, 100, rng))
    space.calls = 0
    made = Candidates(questions, {}, {}, rng)
    found = [made.random() for _ in range(100)]
    assert sum(made.asked(params) == params for params in found) > 80
    assert space.calls < 170  # a hundred of them just now
    space.calls = 0
    walks(questions, 20, rng)
    assert space.calls == 20


def test_what_is_foreseen_goes_by_what_was_learned_alone() -> None:
    """Another process, which has walked less, foresees the same, right or wrong."""
    told = walks(Questions(conditional), 40, np.random.default_rng(0))
    found = []
    for n in (0, 500):
        questions = Questions(conditional)
        walks(questions, n, np.random.default_rng(1))
        questions.learn(told)
        made = Candidates(questions, {}, {}, np.random.default_rng(2))
        found.append([made.random() for _ in range(200)])
    assert found[0] == found[1]


def test_what_was_foreseen_wrongly_is_asked_in_the_end() -> None:
    """Only two answers together bring a further question."""

    def space(trial) -> None:
        a, b = (trial.suggest_int(name, 0, 9) for name in "ab")
        if a == b == 7:
            trial.suggest_int("c", 0, 9)

    questions, rng = Questions(space), np.random.default_rng(0)
    told = [{"a": i % 7, "b": i // 7} for i in range(20)]
    questions.learn(told)
    made = Candidates(questions, {}, {"a": 7, "b": 7}, rng)
    assert made.random() == {"a": 7, "b": 7}
    asked = made.asked({"a": 7, "b": 7})
    assert asked.keys() == {"a", "b", "c"}
    questions.learn([*told, asked])
    assert made.random().keys() == {"a", "b", "c"}
    assert Candidates(questions, {}, {"a": 1, "b": 7}, rng).random().keys() == {"a", "b"}


def test_forgetting_changes_nothing(monkeypatch) -> None:
    def walks():
        questions, rng = Questions(conditional), np.random.default_rng(0)
        return [questions.answer(lambda _, distribution: answers.draw(distribution, rng)) for _ in range(200)]

    expected = walks()
    monkeypatch.setattr(module, "MOST_NODES", 5)
    assert walks() == expected


def test_candidates_answer_the_space_and_keep_what_is_fixed() -> None:
    fixed = {"depth": 3, "layer.1.op": "pool"}
    beyond = {"rate": FloatDistribution(1e-5, 1.0, log=True)}
    made = Candidates(Questions(synthetic.loss), beyond, fixed, np.random.default_rng(0))
    params = made.random()
    for _ in range(200):
        child = made.mutation(params)
        assert child.items() >= fixed.items()
        own = replayed(synthetic.loss, child)
        assert child == {**own, "rate": child["rate"]}
        differ = {name for name in params.keys() & child.keys() if params[name] != child[name]}
        assert len(differ) <= 2
        params = child


def test_a_mutation_of_what_is_all_fixed_is_the_same() -> None:
    params = {"depth": 1, "0.op": "1"}
    made = Candidates(Questions(conditional), {}, params, np.random.default_rng(0))
    assert made.mutation(params) == params


@pytest.mark.parametrize(
    "distribution",
    [
        IntDistribution(1, 6),
        IntDistribution(8, 128, step=8),
        IntDistribution(1, 1024, log=True),
        FloatDistribution(-1.0, 2.0),
        FloatDistribution(0.0, 0.9, step=0.3),
        FloatDistribution(1e-6, 1e-2, log=True),
    ],
)
def test_nearby_is_possible_and_near(distribution) -> None:
    rng = np.random.default_rng(0)
    value, seen = answers.draw(distribution, rng), set()
    for _ in range(500):
        value = nearby(distribution, value, rng)
        assert contains(distribution, value)
        seen.add(value)
    assert {min(seen), max(seen)} <= seen
    assert len(seen) > 3
