from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from optnas import Objective, create_study, record
from optnas.devices import fit_latency, learn_latency
from optnas.errors import UntrustworthyError
from optnas.facts import Fact
from optnas.facts.layers import operations
from optnas.facts.prediction import _left_out, _ridge, _with_one
from optnas.space import sample
from optnas.trial import replay

EXAMPLE = (1, 4, 8, 8)


class Branches(nn.Module):
    """Convolutions of which some lead nowhere."""

    def __init__(self, small: int, large: int, dead: int) -> None:
        super().__init__()
        self.live = nn.Sequential(
            *(nn.Conv2d(4, 4, 1) for _ in range(small)),
            *(nn.Conv2d(4, 4, 3, padding=1) for _ in range(large)),
        )
        self.dead = nn.Sequential(*(nn.Conv2d(4, 4, 3, padding=1) for _ in range(dead)))

    def forward(self, x: Tensor) -> Tensor:
        self.dead(x)
        return self.live(x).relu()


def space(trial) -> nn.Module:
    return Branches(*(trial.suggest_int(name, 0, 5) for name in ("small", "large", "dead")))


def seconds(model: Branches, live_only: bool, noise: float = 0.0) -> float:
    number = 1.0 + 0.5 * len(model.live) + sum(2.0 for layer in model.live if layer.kernel_size == (3, 3))
    number += 0 if live_only else 2.5 * len(model.dead)
    return number * float(np.exp(noise * np.random.default_rng(len(model.dead)).normal()))


@pytest.mark.parametrize("live_only", [True, False])
def test_a_device_that_runs_what_it_is_given_and_one_that_drops_what_leads_nowhere(live_only) -> None:
    """Both are learned from twenty networks: which model looks at the right thing, cross-validation says."""
    rng = np.random.default_rng(0)
    networks = [space(replay(sample(space, rng))) for _ in range(60)]
    numbers = [seconds(network, live_only) for network in networks]
    predictor = fit_latency(networks[:20], numbers[:20], EXAMPLE)
    assert predictor.trusted
    predicted = [predictor.predict(network) for network in networks[20:]]
    assert predicted == pytest.approx(numbers[20:], rel=0.15)
    assert predictor.rank.spearman.value > 0.95
    assert predictor.n == 20
    assert predictor.by in str(predictor)
    with torch.device("meta"):
        assert predictor.predict(Branches(1, 2, 3)) == predictor.predict(
            Branches(1, 2, 3).to_empty(device="cpu")
        )


def test_noise_is_no_limit() -> None:
    rng = np.random.default_rng(1)
    networks = [space(replay(sample(space, rng))) for _ in range(30)]
    predictor = fit_latency(networks, rng.lognormal(0, 1, 30).tolist(), EXAMPLE)
    assert not predictor.trusted
    assert predictor.words.startswith("Warning")
    with pytest.raises(UntrustworthyError, match=r"poorly .*trust_anyway=True"):
        predictor.fact()
    assert predictor.fact(trust_anyway=True).name == "predicted_latency"


def test_left_out_predictions_are_those_of_fits_without_each() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(12, 3)), rng.normal(size=12)
    x = (x - x.mean(0)) / x.std(0)  # or each fit would scale by itself
    one_by_one = []
    for i in range(12):
        rest = np.arange(12) != i
        a = _with_one(x[rest])
        shrink = np.diag([0, 0.3, 0.3, 0.3])
        one_by_one.append(_with_one(x[[i]]) @ np.linalg.solve(a.T @ a + shrink, a.T @ y[rest]))
    assert _left_out(x, y, 0.3) == pytest.approx(np.concatenate(one_by_one))
    constant = np.hstack([x, np.ones((12, 1))])
    assert _ridge(constant, y, 0.3)[:4] == pytest.approx(_ridge(x, y, 0.3))
    assert _ridge(constant, y, 0.3)[4] == 0


def test_a_space_is_learned_and_its_fact_is_known_before_a_network_is_built() -> None:
    fact = Fact(
        "energy", lambda model, example: seconds(model, True), unit="mJ", better="lower", needs="batch"
    )
    objective = Objective(
        space, lambda model, trial: {"score": 0.0}, values={"score": "maximize"}, example=EXAMPLE
    )
    state = torch.get_rng_state()
    predictor = learn_latency(objective, fact, n_networks=25)
    assert torch.equal(torch.get_rng_state(), state)
    assert predictor.trusted
    predicted = predictor.fact()
    assert (predicted.name, predicted.unit, predicted.needs) == ("predicted_energy", "mJ", "meta")
    searched = Objective(
        space,
        objective.estimator,
        values={"predicted_energy": "minimize"},
        example=EXAMPLE,
        facts=[predicted],
    )
    study = create_study(searched, seed=0)
    study.optimize(searched, n_trials=1)
    [trial] = study.trials
    assert trial.value == pytest.approx(seconds(space(replay(trial.params)), True), rel=0.15)
    assert "predicted energy" in record.facts_in_words(study, trial)[-1]


def test_what_was_never_measured_is_not_guessed() -> None:
    networks = [Branches(i, 1, 0) for i in range(12)]
    predictor = fit_latency(networks, [1.0 + i for i in range(12)], EXAMPLE)
    with pytest.raises(ValueError, match="No network that was measured has avg_pool2d 2x2"):
        predictor.predict(nn.AvgPool2d(2))
    with pytest.raises(ValueError, match="at least 10 networks"):
        fit_latency(networks[:3], [1.0, 2, 3], EXAMPLE)
    with pytest.raises(ValueError, match="above 0"):
        fit_latency(networks, [-1.0] * 12, EXAMPLE)
    broken = Fact("broken", lambda model, example: 1 / 0, needs="batch")
    objective = Objective(
        space, lambda model, trial: {"score": 0.0}, values={"score": "maximize"}, example=EXAMPLE
    )
    with pytest.raises(ValueError, match=r"0 networks could be measured.*ZeroDivisionError"):
        learn_latency(objective, broken, n_networks=10)


def test_operations_have_kinds_and_views_are_none() -> None:
    model = nn.Sequential(
        nn.Conv2d(4, 8, 3, groups=2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(72, 3),
    )
    found = [o for o in operations(model, EXAMPLE) if o.kind != "_to_copy"]  # of the input
    kinds = Counter(operation.kind for operation in found)
    assert kinds == {
        "convolution 3x3 grouped": 1,
        "native_batch_norm": 1,
        "relu": 1,
        "avg_pool2d 2x2": 1,
        "addmm": 1,
    }
    assert [operation.depth for operation in found] == [1, 1, 1, 1, 2]
    assert found[-1].flops == 2 * 72 * 3
    assert found[2].elements == 8 * 36
