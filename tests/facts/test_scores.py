"""Each score against its paper's definition, computed in another way."""

from __future__ import annotations

import copy
import math
import random

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from optnas import Objective, create_study, record
from optnas.facts.scores import (
    fisher,
    grad_norm,
    grasp,
    jacob_cov,
    log_ranks,
    naswot,
    snip,
    synflow,
    zen,
    zero_cost,
    zico,
)

SCORES = (synflow, snip, grasp, fisher, grad_norm, jacob_cov, naswot, zen, zico)


def convolutional(seed: int = 0, *, bias: bool = False) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, bias=bias),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Conv2d(6, 5, 3, padding=1, bias=bias),
        nn.BatchNorm2d(5),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(5, 4),
    )


def plain(seed: int = 0) -> nn.Sequential:
    """Without normalization, so that samples do not see one another."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 4))


def batch(n: int = 8, *shape: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(n, *(shape or (3,)), generator=generator)
    return x, torch.randint(4, (n,), generator=generator)


def of(score, model: nn.Module, *given, **settings) -> float:
    return zero_cost(score, *given, **settings).of(model, (2, 3))


# ---- by the papers' definitions ----


def test_synflow_is_the_sum_over_all_paths_in_every_layer() -> None:
    """Tanaka et al.: each layer's scores sum to R, what flows from ones to the outputs."""
    model = convolutional()
    absolute = [layer.weight.detach().abs().double() for layer in (model[0], model[4], model[9])]
    x = torch.ones(1, 3, 6, 6, dtype=torch.double)
    for weight in absolute[:2]:
        x = F.conv2d(x, weight, padding=1)
    flow = (absolute[2] @ x.mean((2, 3))[0]).sum()
    assert zero_cost(synflow).of(model, (2, 3, 6, 6)) == pytest.approx(math.log(3 * flow), rel=1e-9)


def test_synflow_of_a_network_whose_sum_is_beyond_single_precision() -> None:
    deep = nn.Sequential(*(layer for _ in range(60) for layer in (nn.Linear(50, 50), nn.ReLU())))
    with torch.no_grad():
        for parameter in deep.parameters():
            parameter.fill_(1 if parameter.dim() > 1 else 0)
    assert of(synflow, deep[:], (2, 50)) == pytest.approx(math.log(60) + 61 * math.log(50))


def test_snip_and_grad_norm_are_sums_over_the_weights() -> None:
    model, (x, y) = plain(), batch()
    other = copy.deepcopy(model)
    F.cross_entropy(other(x), y).backward()
    layers = [other[0].weight, other[2].weight]
    assert of(snip, model, x, y) == pytest.approx(sum((w * w.grad).abs().sum().item() for w in layers))
    assert of(grad_norm, model, x, y) == pytest.approx(sum(w.grad.norm().item() for w in layers))


def test_grasp_is_the_product_with_the_hessian() -> None:
    model, (x, y) = plain(), batch()
    names = ["0.weight", "2.weight"]
    values = [dict(model.named_parameters())[name].detach() for name in names]

    def loss(*weights: Tensor) -> Tensor:
        return F.cross_entropy(
            torch.func.functional_call(model, dict(zip(names, weights, strict=True)), x), y
        )

    w = torch.cat([value.flatten() for value in values])
    g = torch.cat([g.flatten() for g in torch.autograd.functional.jacobian(loss, tuple(values))])
    rows = torch.autograd.functional.hessian(loss, tuple(values))
    hessian = torch.cat(
        [torch.cat([b.reshape(v.numel(), -1) for b in row], 1) for v, row in zip(values, rows, strict=True)]
    )
    assert of(grasp, model, x, y) == pytest.approx(-(w @ hessian @ g).item(), rel=1e-4)


def test_fisher_of_each_sample_alone() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(3, 5, 2), nn.ReLU(), nn.Flatten(), nn.Linear(15, 4))
    x, y = batch(6, 3, 4)
    total = 0.0
    for i in range(6):
        first = model[0](x[i : i + 1])
        last = model[3](model[2](model[1](first)))
        of_first, of_last = torch.autograd.grad(F.cross_entropy(last, y[i : i + 1]), (first, last))
        total += ((first * of_first).sum(2) ** 2).sum().item() + ((last * of_last) ** 2).sum().item()
    assert of(fisher, model, x, y) == pytest.approx(total / 6 / 2, rel=1e-5)


def test_jacob_cov_from_each_sample_s_own_jacobian() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 30), nn.GELU(), nn.Linear(30, 4))
    x, _ = batch(8, 20)
    rows = [torch.autograd.functional.jacobian(lambda v: model(v).sum(), sample).numpy() for sample in x]
    v = np.clip(np.linalg.eigvalsh(np.corrcoef(np.array(rows, dtype=float))), 0, None) + 1e-5
    assert of(jacob_cov, model, x) == pytest.approx(-np.sum(np.log(v) + 1 / v), rel=1e-3)


def test_naswot_from_codes_bit_by_bit() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(3, 40), nn.ReLU(), nn.Linear(40, 30), nn.ReLU(inplace=True), nn.Linear(30, 4)
    )
    x, _ = batch(6)
    first = model[0](x)
    second = model[2](first.relu())
    codes = torch.cat([first > 0, second > 0], 1).tolist()
    kernel = [[sum(a == b for a, b in zip(one, other, strict=True)) for other in codes] for one in codes]
    assert of(naswot, model, x) == pytest.approx(np.linalg.slogdet(np.array(kernel, float)).logabsdet)


def test_zen_does_not_depend_on_the_weights_and_grows_with_the_noise() -> None:
    linear = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.AdaptiveAvgPool2d(1))

    def once(gamma: float):
        def score(model, probe):
            return zen(model, probe, gamma=gamma)

        return zero_cost(score).of(linear, (2, 3, 8, 8))

    before = once(0.01)
    for layer in linear[:2]:
        layer.reset_parameters()
    assert once(0.01) == before
    assert once(0.1) - before == pytest.approx(math.log(10), rel=1e-3)


def test_zen_adds_what_batchnorm_takes_away() -> None:
    """The paper's reason for the term: with a BatchNorm behind a linear layer, scale is put back."""
    layer = nn.Conv2d(3, 8, 3)
    bare, normalized = nn.Sequential(layer), nn.Sequential(layer, nn.BatchNorm2d(8))
    scores = [zero_cost(zen, batch=64).of(model, (2, 3, 12, 12)) for model in (bare, normalized)]
    assert scores[0] == pytest.approx(scores[1], abs=0.1)
    assert scores[0] > 2  # and the term is not small: σ² is about 27


def test_zico_from_gradients_of_each_half() -> None:
    model, (x, y) = plain(), batch()
    halves = []
    for part in (slice(0, 4), slice(4, 8)):
        other = copy.deepcopy(model)
        F.cross_entropy(other(x[part]), y[part]).backward()
        halves.append([other[i].weight.grad.abs().double().numpy() for i in (0, 2)])
    expected = 0.0
    for one, two in zip(*halves, strict=True):
        mean, deviation = (one + two) / 2, abs(one - two) / 2
        expected += math.log((mean[deviation > 0] / deviation[deviation > 0]).sum())
    assert of(zico, model, x, y) == pytest.approx(expected, rel=1e-4)


# ---- what holds for all ----


class Branches(nn.Module):
    """The same network, with or without a branch that the output does not depend on."""

    def __init__(self, dead: bool) -> None:
        super().__init__()
        self.live = convolutional()
        self.dead = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 3)) if dead else None

    def forward(self, x: Tensor) -> Tensor:
        if self.dead is not None:
            self.dead(x)
        return self.live(x)


@pytest.mark.parametrize("score", SCORES)
def test_a_dead_branch_is_not_scored(score) -> None:
    with_branch, without = (zero_cost(score).of(Branches(dead), (2, 3, 6, 6)) for dead in (True, False))
    assert with_branch == without


@pytest.mark.parametrize("score", SCORES)
def test_the_model_and_the_random_states_stay_as_they_are(score) -> None:
    model = convolutional()
    model[1].eval()
    model[4].weight.requires_grad_(False)
    model[9].weight.grad = torch.ones_like(model[9].weight)
    gradient = model[9].weight.grad
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    states = torch.get_rng_state(), random.getstate(), str(np.random.get_state())  # noqa: NPY002
    first = zero_cost(score).of(model, (2, 3, 6, 6))
    assert zero_cost(score).of(model, (2, 3, 6, 6)) == first
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert [p.requires_grad for p in model.parameters()].count(False) == 1
    assert model[9].weight.grad is gradient
    assert torch.equal(gradient, torch.ones_like(gradient))
    assert model[0].weight.grad is None
    assert not any(module._forward_hooks or "forward" in vars(module) for module in model.modules())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (random.getstate(), str(np.random.get_state())) == states[1:]  # noqa: NPY002


@pytest.mark.parametrize("score", [s for s in SCORES if s is not synflow])
def test_another_batch_gives_another_score(score) -> None:
    one, other = (zero_cost(score, seed=seed).of(convolutional(), (2, 3, 6, 6)) for seed in (0, 1))
    assert one != other


@pytest.mark.parametrize("score", [s for s in SCORES if s not in (jacob_cov, zen)])
def test_sequences_of_words_are_scored(score) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Embedding(9, 8), nn.Linear(8, 8), nn.LayerNorm(8), nn.GELU(), nn.Flatten(), nn.Linear(40, 3)
    )
    words = torch.randint(9, (2, 5))
    assert math.isfinite(zero_cost(score).of(model, words))


def test_what_cannot_be_scored_says_why() -> None:
    words = nn.Sequential(nn.Embedding(9, 8), nn.Flatten(), nn.Linear(40, 3))
    for score in (jacob_cov, zen):
        with pytest.raises(ValueError, match="needs inputs of floating-point numbers"):
            zero_cost(score).of(words, torch.zeros(2, 5, dtype=torch.long))
    with pytest.raises(ValueError, match="has no rectifier"):
        of(naswot, nn.Linear(3, 4))
    with pytest.raises(ValueError, match="A batch of one sample"):
        of(naswot, plain(), (1, 3))
    with pytest.raises(ValueError, match=r"give targets= and loss="):
        of(snip, nn.Linear(3, 1))
    with pytest.raises(ValueError, match="has no trainable matrix"):
        of(snip, nn.BatchNorm1d(3))
    with pytest.raises(ValueError, match=r"broken of this network is nan"):
        zero_cost(lambda m, probe: math.nan, name="broken").of(plain(), (2, 3))


def test_a_regression_is_scored_with_its_own_loss() -> None:
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    y = x.sum(1, keepdim=True)
    model = nn.Linear(3, 1)
    error = (2 * (model(x) - y) * x).mean(0)
    expected = (error * model.weight[0]).abs().sum().item()
    assert of(snip, model, x, y, loss=F.mse_loss) == pytest.approx(expected, rel=1e-5)


def test_a_score_of_ones_own_and_scores_of_a_search() -> None:
    def samples(model: nn.Module, probe) -> float:
        return len(probe)

    objective = Objective(
        lambda trial: nn.Sequential(
            nn.Linear(4, trial.suggest_int("width", 3, 5)), nn.BatchNorm1d(trial.params["width"])
        ),
        lambda model, trial: {"score": 0.0},
        values={"score": "maximize"},
        example=(2, 4),
        facts=[zero_cost(samples, batch=16), zero_cost(synflow), zero_cost(naswot)],
    )
    study = create_study(objective, seed=0)
    study.optimize(objective, n_trials=1)
    [trial] = study.trials
    assert record.facts(trial)["samples"] == 16
    assert "synflow" in record.facts(trial)
    assert "has no rectifier" in record.MISSING.of(trial)["naswot"]


def test_log_ranks_are_zero_for_the_best_in_all() -> None:
    ranks = log_ranks({"a": [1, 3, 2], "b": [10, 30, math.nan]})
    assert ranks == pytest.approx([math.log(1 / 3 * 2 / 3), 0, math.log(2 / 3 * 1 / 3)])
    assert log_ranks({"equal": [5, 5]}) == pytest.approx([math.log(1.5 / 2)] * 2)
    with pytest.raises(ValueError, match="as many numbers of each score"):
        log_ranks({"a": [1, 2], "b": [1]})
    with pytest.raises(ValueError, match="as many numbers of each score"):
        log_ranks({})
