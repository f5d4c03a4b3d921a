import numpy as np
import optuna
import torch
from torch import nn

from optnas.facts import structure
from optnas.space.explore import sample, walk
from optnas.strategy.predictor import LOOKED, ROUNDS, PredictorSampler
from optnas.strategy.structures import SHOWN, Structures
from optnas.trial import Draw, replay, scope

SHAPE = (2, 4, 8, 8)
OPS = {
    "none": lambda: None,
    "skip": nn.Identity,
    "conv": lambda: nn.Conv2d(4, 4, 3, padding=1),
    "pool": lambda: nn.MaxPool2d(3, 1, 1),
}


class Cell(nn.Module):
    """Five nodes; each is the sum of the edges that enter it, and the last is the output."""

    def __init__(self, ops) -> None:
        super().__init__()
        self.ops = nn.ModuleDict({name: op for name, op in ops.items() if op is not None})

    def forward(self, x):
        nodes = [x]
        for j in range(1, 5):
            entering = [self.ops[f"{i}-{j}"](node) for i, node in enumerate(nodes) if f"{i}-{j}" in self.ops]
            nodes.append(sum(entering) if entering else torch.zeros_like(x))
        return nodes[-1]


def cells(trial):
    edges = [f"{i}-{j}" for j in range(1, 5) for i in range(j)]
    return Cell({edge: OPS[scope(trial, "edge").suggest_categorical(edge, list(OPS))]() for edge in edges})


def shown(params):
    with torch.device("meta"):
        model = cells(replay(params))
    return {name: n for name, n in structure(model, SHAPE).items() if name.startswith(SHOWN)}


def test_what_others_build_is_looked_at_and_not_built_again() -> None:
    n_built = []

    def counting(trial):
        n_built.append(1)
        return cells(trial)

    seen = Structures(counting, SHAPE)
    params = [sample(cells, seed) for seed in range(4)]
    seen.looking = True
    for answers in params[:2]:
        walk(seen.space, replay(answers))
    assert [seen({**answers, "learning_rate": 0.1}) for answers in params] == [shown(p) for p in params]
    assert [seen(answers) for answers in params] == [shown(p) for p in params]
    assert len(n_built) == 4


def test_an_example_may_depend_on_the_trial() -> None:
    def example(trial):
        return (2, 4, trial.suggest_int("size", 8, 16), 8)

    params = sample(cells, 0)
    assert Structures(cells, example)({**params, "size": 9}) == shown(params)


def test_what_cannot_be_seen_is_nothing(caplog) -> None:
    def key(trial):
        return trial.suggest_int("a", 0, 3)

    def raising(trial):
        raise ValueError(f"{trial.suggest_int('a', 0, 3)} does not fit")

    def looking_at_values(trial):
        trial.suggest_int("a", 0, 3)
        return Values()

    class Values(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    for space in (raising, looking_at_values):
        assert Structures(space, SHAPE)({"a": 1}) == {}
    assert not caplog.records  # the trials of such networks say it
    assert Structures(key, SHAPE)({"a": 1}) == {}


def test_what_is_no_fault_of_a_network_is_told_once(monkeypatch, caplog) -> None:
    def broken(flow, n_params):
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("optnas.strategy.structures.described", broken)
    seen = Structures(cells, SHAPE)
    assert [seen(sample(cells, seed)) for seed in range(3)] == [{}] * 3
    (told,) = (record.message for record in caplog.records if record.levelname == "WARNING")
    assert "ZeroDivisionError" in told


def test_few_networks_are_built_for_a_suggestion() -> None:
    built = []

    def counting(trial):
        built.append(1)
        return cells(trial)

    study = optuna.create_study(sampler=PredictorSampler(counting, n_startup_trials=8, example=SHAPE, seed=0))
    for _ in range(14):
        before, trial = len(built), study.ask()
        walk(cells, Draw(lambda name, d: trial.suggest_categorical(name, d.choices)))  # noqa: B023
        study.tell(trial, sum(answer == "pool" for answer in trial.params.values()))
    # Of each batch those that promise most, once what follows which answers is known; and the one chosen.
    assert 0 < len(built) - before <= LOOKED * (ROUNDS + 1) + 1


def longest(params) -> float:
    """The value: how many convolutions the longest chain through the cell has, and a little for shortcuts."""
    found = shown(params)
    return found["most convolution"] + 0.1 * found["least shortcut"]


def test_a_search_that_sees_the_network_is_ahead() -> None:
    """Of 4 ** 10 cells, one in 1,024 has a convolution on each of 0-1, 1-2, 2-3 and 3-4: the best value."""

    def needed(seed, example):
        study = optuna.create_study(
            direction="maximize", sampler=PredictorSampler(cells, example=example, seed=seed)
        )
        for n in range(1, 61):
            trial = study.ask()
            walk(cells, Draw(lambda name, d: trial.suggest_categorical(name, d.choices)))  # noqa: B023
            study.tell(trial, longest(trial.params))
            if study.best_value >= 4:
                return n
        return 60

    seeing = [needed(seed, SHAPE) for seed in range(3)]
    assert np.median(seeing) <= 35
