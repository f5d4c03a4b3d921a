"""Zero-cost scores: what one batch through the untrained network tells of what it may learn.

They filter, they do not pick. Among all cells of NAS-Bench-201 the better ones rank networks about as the
number of parameters does; among the best tenth of the cells none of them ranks at all
(studies/benchmarks/zero_cost.py prints both). `optnas.rank_correlation` says what they are worth in a study.

Each score is a function `(model, probe) -> number` by its paper's definition, larger for the more promising
network; `zero_cost` makes a `Fact` of it. A weight that the output does not depend on is not scored.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from optnas.facts.fact import Fact
from optnas.facts.inputs import Example, as_inputs
from optnas.facts.probe import (
    LastMap,
    Loss,
    Probe,
    Rectifiers,
    draw,
    gradients,
    normalizations,
    prepare,
    reached,
    weights,
    without_normalization,
)

Score = Callable[[nn.Module, Probe], float]


def zero_cost(
    score: Score,
    inputs: Example | None = None,
    targets: Tensor | None = None,
    *,
    loss: Loss = F.cross_entropy,
    seed: int = 0,
    batch: int = 32,
    name: str = "",
) -> Fact:
    """A zero-cost score as a fact: `Objective(..., facts=[zero_cost(synflow), zero_cost(naswot, x[:32])])`.

    It is measured on a copy of the untrained model on the CPU: the model's parameters, buffers, gradients and
    modes stay as they are, and so do the random states. It depends on the batch and on the initial weights,
    which `optnas.Objective` seeds with the trial.

    Args:
        score: `synflow`, `snip`, `grasp`, `fisher`, `grad_norm`, `jacob_cov`, `naswot`, `zen`, `zico`, or a
            function of your own.
        inputs: a batch of real inputs, or a shape with the batch dimension, which stands for standard normal
            numbers. By default `batch` samples like the objective's example: standard normal numbers, or
            where it holds whole numbers, those of the example.
        targets: of `inputs`; by default classes drawn at random. Only the scores of a loss use them.
        loss: `(output, targets) -> number`, averaged over the samples.
        seed: seed of all random numbers.
        name: name of the fact; by default that of the score.

    Raises:
        ValueError: (when measured) the score is not a finite number; the fact is recorded as missing.

    Examples:
        >>> naswot = optnas.facts.zero_cost(optnas.facts.naswot, torch.randn(16, 1, 8, 8))
        >>> measured = optnas.Objective(space, training, facts=[naswot])
    """

    def measure(model: nn.Module, example: Any) -> float:
        if inputs is None:
            given = draw(example, batch, seed)
        elif _is_shape(inputs):
            given = draw(inputs, inputs[0], seed)  # a shape
        else:
            given = as_inputs(inputs, "cpu")
        torch.manual_seed(seed)
        with torch.enable_grad():
            number = float(score(prepare(model), Probe(given, targets, loss, seed)))
        if not math.isfinite(number):
            raise ValueError(f"{fact.name} of this network is {number}.")
        return number

    fact = Fact(name or score.__name__, measure, better="higher", needs="batch")
    return fact


def _is_shape(example: Any) -> bool:
    return isinstance(example, tuple | list) and all(isinstance(size, int) for size in example)


# ---- of the weights ----


def synflow(model: nn.Module, probe: Probe) -> float:
    """log Σ |w · ∂R/∂w|, where R sums the outputs of ones through the network of absolute weights.

    Normalizations are left out, and numbers are double: the sum grows with every layer. Of the batch only
    whole numbers are used. Tanaka et al., NeurIPS 2020, arXiv:2006.05467.

    Examples:
        >>> synflow = optnas.facts.zero_cost(optnas.facts.synflow)
        >>> synflow.of(model, example) != 0
        True
    """
    without_normalization(model)
    model.double().eval()
    one = next(probe.map(lambda x: torch.ones_like(x, dtype=torch.double)).chunks(len(probe)))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.abs_()
    alive = gradients(one.output(model).sum(), weights(model))
    return math.log(sum(float((w.detach() * g).abs().sum()) for w, g in alive))


def snip(model: nn.Module, probe: Probe) -> float:
    """Σ |w · ∂L/∂w|: how much the loss hangs on the weights. Lee et al., ICLR 2019, arXiv:1810.02340.

    Examples:
        >>> optnas.facts.zero_cost(optnas.facts.snip, batch=8).of(model, example) > 0
        True
    """
    alive = gradients(probe.loss_of(model), weights(model))
    return sum(float((w.detach() * g).abs().sum()) for w, g in alive)


def grad_norm(model: nn.Module, probe: Probe) -> float:
    """Σ ‖∂L/∂W‖ over the layers. Abdelfattah et al., ICLR 2021, arXiv:2101.08134.

    Examples:
        >>> optnas.facts.zero_cost(optnas.facts.grad_norm, batch=8).of(model, example) > 0
        True
    """
    return sum(float(g.norm()) for _, g in gradients(probe.loss_of(model), weights(model)))


def grasp(model: nn.Module, probe: Probe) -> float:
    """-Σ w · Hg, with g the gradient of the loss and H its Hessian: how gradients keep their flow.

    Wang et al., ICLR 2020, arXiv:2002.07376; summed as by Abdelfattah et al., ICLR 2021.

    Examples:
        >>> optnas.facts.zero_cost(optnas.facts.grasp, batch=8).of(model, example) != 0
        True
    """
    alive = gradients(probe.loss_of(model), weights(model), create_graph=True)
    flow = sum((g * g.detach()).sum() for _, g in alive)
    assert isinstance(flow, Tensor)
    return -sum(float((w.detach() * hg).sum()) for w, hg in gradients(flow, [w for w, _ in alive]))


def zico(model: nn.Module, probe: Probe, *, parts: int = 2) -> float:
    """Σ over layers of log Σ over weights of the mean of |∂L/∂w| by its standard deviation.

    Both are taken over `parts` equal parts of the batch. Li et al., ICLR 2023, arXiv:2301.11300.

    Examples:
        >>> optnas.facts.zero_cost(optnas.facts.zico, batch=8).of(model, example) != 0
        True
    """
    layers = weights(model)
    found: dict[int, list[Tensor]] = {}
    for part in probe.chunks(parts):
        for w, g in gradients(part.loss_of(model), layers):
            found.setdefault(id(w), []).append(g.abs())
    score = 0.0
    for of_layer in found.values():
        sizes = torch.stack(of_layer)
        mean, deviation = sizes.mean(0), sizes.std(0, unbiased=False)
        ratio = float((mean[deviation > 0] / deviation[deviation > 0]).sum())
        score += math.log(ratio) if ratio > 0 else 0.0
    return score


# ---- of the activations ----


def fisher(model: nn.Module, probe: Probe) -> float:
    """Σ over channels of ½ mean (Σ a · ∂L/∂a)² over the samples, a being the outputs of the weighted layers.

    Turner et al., ICLR 2020, arXiv:1906.04113.

    Examples:
        >>> optnas.facts.zero_cost(optnas.facts.fisher, batch=8).of(model, example) > 0
        True
    """
    owned = {id(w) for w in weights(model)}
    outputs: list[tuple[bool, Tensor]] = []

    def note(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.requires_grad:
            outputs.append((_channels_come_first(module), output))

    for module in list(model.modules()):
        if any(id(p) in owned for p in module.parameters(recurse=False)):
            module.register_forward_hook(note)
    loss = probe.loss_of(model)
    first = {id(output): come_first for come_first, output in outputs}
    score = 0.0
    for a, g in gradients(loss, [output for _, output in outputs]):
        product = len(probe) * a.detach() * g  # the loss is a mean: this is of each sample's own
        product = product if first[id(a)] else product.movedim(-1, 1)
        score += float(product.reshape(*product.shape[:2], -1).sum(2).square().mean(0).sum() / 2)
    return score


def _channels_come_first(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.conv._ConvNd)


def jacob_cov(model: nn.Module, probe: Probe) -> float:
    """-Σ log(v + k) + 1 / (v + k) over the eigenvalues v of how the samples' Jacobians correlate; k = 1e-5.

    The Jacobian is that of the summed outputs; the more alike two samples', the worse. Mellor et al., 2020,
    arXiv:2006.04647v1.

    Raises:
        ValueError: no input is of floating-point numbers, or fewer than two samples.

    Examples:
        >>> optnas.facts.zero_cost(optnas.facts.jacob_cov, batch=8).of(model, example) < 0
        True
    """
    _at_least_two(probe)
    probe.check_floating("jacob_cov")
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    leaves = [tensor.requires_grad_() for tensor in probe.floating()]
    rows = [g.flatten(1).double() for _, g in gradients(probe.output(model).sum(), leaves)]
    correlation = torch.corrcoef(torch.cat(rows, 1))
    if not correlation.isfinite().all():
        raise ValueError("The outputs of at least one sample do not depend on its inputs.")
    v = torch.linalg.eigvalsh(correlation).clamp(min=0) + 1e-5
    return -float((v.log() + 1 / v).sum())


def naswot(model: nn.Module, probe: Probe) -> float:
    """log |det K|, where K counts the rectifiers that two samples switch alike.

    Mellor et al., ICML 2021, arXiv:2006.04647. Beside ReLU its relatives count (GELU, SiLU, ...), which are
    on where their input is positive.

    Raises:
        ValueError: the network has no rectifier, or fewer than two samples.

    Examples:
        >>> optnas.facts.zero_cost(optnas.facts.naswot, batch=8).of(model, example) > 0
        True
    """
    _at_least_two(probe)
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    alive = _live_rectifiers(model, next(probe.chunks(len(probe) // 2)))
    n = len(probe)
    kernel = torch.zeros(n, n, dtype=torch.double)

    def count(index: int, x: Tensor) -> None:
        if index in alive and len(x) == n:
            on = (x > 0).flatten(1).float()
            kernel.add_(on @ on.T).add_((1 - on) @ (1 - on).T)

    with torch.no_grad(), Rectifiers(count):
        probe.output(model)
    if not kernel.any():
        raise ValueError(f"{type(model).__name__} has no rectifier (ReLU or like) that naswot could read.")
    return float(torch.linalg.slogdet(kernel).logabsdet)


def _live_rectifiers(model: nn.Module, probe: Probe) -> set[int]:
    """Which rectifiers, in the order of their calls, the output depends on."""
    with Rectifiers() as seen:
        output = probe.output(model)
    of_output = reached(output)
    return {index for index, function in enumerate(seen.outputs) if function in of_output}


def zen(model: nn.Module, probe: Probe, *, gamma: float = 0.01) -> float:
    """log of the mean L1 change of the last map under noise, plus Σ log σ over the BatchNorm layers.

    Weights are drawn anew from N(0, 1), inputs are standard normal, noise is `gamma` times such; σ² is the
    mean variance that a BatchNorm sees. The map is what the network has before it pools. The paper takes
    residual links out of its own blocks; here they stay, for nobody can tell which they are in any network.
    Lin et al., ICCV 2021, arXiv:2102.01063.

    Raises:
        ValueError: no input is of floating-point numbers.

    Examples:
        >>> optnas.facts.zero_cost(optnas.facts.zen, batch=8).name
        'zen'
    """
    probe.check_floating("zen")
    drawn = probe.map(torch.randn_like)
    moved = drawn.map(lambda x: x + gamma * torch.randn_like(x))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_() if parameter.dim() > 1 else parameter.zero_()
        for norm in normalizations(model):
            for which, parameter in norm.named_parameters(recurse=False):
                parameter.fill_(which == "weight")
        norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        for norm in norms:
            norm.momentum = None  # its statistics are then those of the one batch
            norm.reset_running_stats()
        before = _last_map(model, drawn)
        variances = [norm.running_var for norm in norms if norm.running_var is not None]
        spread = sum(float(v.mean().sqrt().log()) for v in variances)
        after = _last_map(model, moved)
    return math.log(float((after - before).abs().sum()) / len(probe)) + spread


def _last_map(model: nn.Module, probe: Probe) -> Tensor:
    with LastMap(len(probe)) as last:
        output = probe.output(model)
    return output if last.found is None else last.found


def _at_least_two(probe: Probe) -> None:
    if len(probe) < 2:
        raise ValueError("A batch of one sample is not enough to compare samples; give inputs= of some 32.")


# ---- several at once ----


def log_ranks(scores: Mapping[str, ArrayLike]) -> NDArray[np.float64]:
    """One score from several: for each member of a population Σ log(rank / N), 0 for the best in all.

    `scores` maps each score's name to its numbers, one a member, larger for the more promising; NaN ranks
    last, and equal numbers share a mean rank. Lee & Ham (AZ-NAS), CVPR 2024, arXiv:2403.19232.

    Raises:
        ValueError: no scores, or not as many of each.

    Examples:
        >>> optnas.facts.log_ranks({"jacob_cov": [-90.0, -70.0], "n_params": [1000, 1000]}).round(2)
        array([-0.98, -0.29])
    """
    table = [np.asarray(numbers, dtype=float) for numbers in scores.values()]
    if not table or len({numbers.shape for numbers in table}) > 1 or table[0].ndim != 1:
        sizes = {name: np.shape(numbers) for name, numbers in scores.items()}
        raise ValueError(f"log_ranks needs as many numbers of each score, one a member; got shapes {sizes}.")
    return np.sum([np.log(_mean_ranks(numbers) / len(numbers)) for numbers in table], axis=0)  # type: ignore[no-any-return]


def _mean_ranks(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 for the smallest; equal numbers share the mean of their ranks."""
    _, place, counts = np.unique(
        np.where(np.isnan(numbers), -np.inf, numbers), return_inverse=True, return_counts=True
    )
    ranks: NDArray[np.float64] = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return ranks
