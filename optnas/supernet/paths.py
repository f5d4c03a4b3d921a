"""How shared weights are trained: which sub-networks take part in a step.

Each is a task around a task: `Training(SinglePath(Classification(10)), ...)` trains a `Supernet` with all
that `Training` does for any model. Which sub-networks a step trains follows from the seed, the epoch and the
batch alone, so a training that was interrupted goes on with the same ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import numpy as np
import pytorch_lightning as pl
import torch
from optuna.distributions import BaseDistribution
from torch import Tensor, nn
from torch.nn import functional

from optnas.answers import draw, is_continuous, keep_or_draw, options
from optnas.seeds import derive_seed
from optnas.supernet.skeleton import Skeleton
from optnas.supernet.supernet import Supernet, answers
from optnas.training.training import Task
from optnas.trial import Trial

Step: TypeAlias = Callable[[], Tensor]
"""The task's training step on the batch, with the sub-network that is chosen now; returns the loss."""

Distance: TypeAlias = Callable[[Any, Any], Tensor]

VALIDATED = 4
"""So many sub-networks, drawn at random once, stand for all in the metrics of a validation."""


@dataclass(frozen=True)
class SinglePath:
    """Each step trains one sub-network, whose decisions are drawn uniformly.

    Validation metrics are those of four sub-networks together, drawn at random once, each normalized by the
    statistics of the batch.

    Guo et al., Single Path One-Shot Neural Architecture Search with Uniform Sampling, 2020
    (arXiv:1904.00420).

    Args:
        task: what the sub-networks learn.

    Raises:
        TypeError: (when it is called) the model is no `Supernet`.

    Examples:
        >>> train = optnas.SinglePath(optnas.Classification(3))
    """

    task: Task

    def __call__(self, model: nn.Module, trial: Trial) -> pl.LightningModule:
        def step(supernet: Supernet, rng: np.random.Generator, one: Step) -> Tensor:
            supernet.choose(supernet.draw(keep_or_draw({}, rng)))
            return one()

        return _on_paths(self.task(model, trial), model, step)


@dataclass(frozen=True)
class Fair:
    """Each step trains several sub-networks, in which every candidate of a `Choice` occurs equally often.

    Each decision deals its answers like cards: no answer comes again before all others have come. If a choice
    has as many candidates as a step has sub-networks, and every sub-network reaches it, each of its
    candidates is trained exactly once in every step; other candidates are trained equally often on average.
    Gradients of the sub-networks add up, then the optimizer goes one step. A step needs the memory of that
    many networks.

    Chu et al., FairNAS, ICCV 2021 (arXiv:1907.01845).

    Args and Raises: as for `SinglePath`.

    Examples:
        >>> train = optnas.Fair(optnas.Classification(3))
    """

    task: Task

    def __call__(self, model: nn.Module, trial: Trial) -> pl.LightningModule:
        def step(supernet: Supernet, rng: np.random.Generator, one: Step) -> Tensor:
            losses = []
            for path in fair_paths(supernet, rng):
                supernet.choose(path)
                losses.append(one())
            return torch.stack(losses).sum()

        return _on_paths(self.task(model, trial), model, step)


@dataclass(frozen=True)
class Sandwich:
    """Each step trains the largest sub-network, the smallest, and some drawn at random.

    The largest learns from the targets, the others from the output of the largest (in-place distillation).
    The largest and the smallest are by number of parameters, as found by improving one decision after the
    other. A step needs the memory of that many networks.

    Yu & Huang, Universally Slimmable Networks, ICCV 2019 (arXiv:1903.05134); Yu et al., BigNAS, ECCV 2020
    (arXiv:2003.11142).

    Args:
        task: what the sub-networks learn.
        n_random: how many are drawn at random.
        distance: `(output, output of the largest) -> scalar`, the loss of the others; the default is for
            class scores `(n, n_classes, ...)`.

    Raises:
        TypeError: (when it is called) the model is no `Supernet`.
        ValueError: (in training) the task's training step does not call the supernet.

    Examples:
        >>> train = optnas.Sandwich(optnas.Classification(3), n_random=1)
    """

    task: Task
    n_random: int = 2
    distance: Distance | None = None

    def __call__(self, model: nn.Module, trial: Trial) -> pl.LightningModule:
        distance = soft_cross_entropy if self.distance is None else self.distance

        def step(supernet: Supernet, rng: np.random.Generator, one: Step) -> Tensor:
            supernet.choose(supernet.draw(answers(supernet.layout.largest)))
            with _Noting(supernet) as note:
                losses = [one()]
            smallest = answers(supernet.layout.smallest)
            for pick in (smallest, *(keep_or_draw({}, rng) for _ in range(self.n_random))):
                supernet.choose(supernet.draw(pick))
                args, kwargs, taught = note.call
                losses.append(distance(supernet(*args, **kwargs), taught))
            return torch.stack(losses).sum()

        return _on_paths(self.task(model, trial), model, step)


def fair_paths(supernet: Supernet, rng: np.random.Generator) -> Iterator[Skeleton]:
    """The sub-networks of a step of `Fair`."""
    decks: dict[str, list[Any]] = {}

    def deal(name: str, distribution: BaseDistribution) -> Any:
        if is_continuous(distribution):
            return draw(distribution, rng)
        if not decks.get(name):
            cards = options(name, distribution)
            decks[name] = [cards[i] for i in rng.permutation(len(cards))]
        return decks[name].pop()

    for _ in range(supernet.layout.widest):
        yield supernet.draw(deal)


def soft_cross_entropy(output: Tensor, taught: Tensor) -> Tensor:
    """Cross-entropy of class scores `(n, n_classes, ...)` against the probabilities that others say."""
    return functional.cross_entropy(output, taught.softmax(1))


class _Noting:
    """Notes what the supernet is called with meanwhile, and what it says."""

    def __init__(self, supernet: Supernet) -> None:
        self._supernet = supernet
        self._found: tuple[tuple[Any, ...], Mapping[str, Any], Any] | None = None

    def __enter__(self) -> _Noting:
        self._handle = self._supernet.register_forward_hook(self._note, with_kwargs=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.remove()

    def _note(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        self._found = args, kwargs, output.detach()

    @property
    def call(self) -> tuple[tuple[Any, ...], Mapping[str, Any], Any]:
        if self._found is None:
            raise ValueError(
                "The task's training_step does not call the supernet, so that its sub-networks cannot learn "
                "from the largest; use SinglePath or Fair, or let the step call the model that the task gets."
            )
        return self._found


def _on_paths(
    module: pl.LightningModule,
    model: nn.Module,
    step: Callable[[Supernet, np.random.Generator, Step], Tensor],
) -> pl.LightningModule:
    """The task's module, with steps of our own around its steps."""
    if not isinstance(model, Supernet):
        raise TypeError(
            f"The task trains shared weights, and its model is a {type(model).__name__}; give "
            "Objective(supernet.untrained, Training(...)) a supernet: Supernet(space, example)."
        )
    seed = torch.initial_seed()
    inner = module.training_step, module.validation_step, module.test_step
    validated: list[Skeleton] = []

    def training_step(*args: Any, **kwargs: Any) -> Tensor:
        batch_idx = kwargs.get("batch_idx", args[1] if len(args) > 1 else 0)
        rng = np.random.default_rng(derive_seed("paths", seed, module.current_epoch, batch_idx))

        def one() -> Tensor:
            found = inner[0](*args, **kwargs)
            loss: Any = found["loss"] if isinstance(found, Mapping) else found
            return cast(Tensor, loss)

        return step(model, rng, one)

    def scoring(own: Callable[..., Any]) -> Callable[..., None]:
        def scoring_step(*args: Any, **kwargs: Any) -> None:
            if not validated:
                rng = np.random.default_rng(0)
                validated.extend(model.draw(keep_or_draw({}, rng)) for _ in range(VALIDATED))
            for path in validated:
                model.choose(path)
                own(*args, **kwargs)

        return scoring_step

    module.training_step = training_step  # type: ignore[method-assign]
    module.validation_step = scoring(inner[1])  # type: ignore[method-assign]
    module.test_step = scoring(inner[2])  # type: ignore[method-assign]
    return module
