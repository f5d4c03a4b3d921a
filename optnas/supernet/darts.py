"""How a mixture is trained: weights on the training data, alphas on the validation data, in turn.

`Training(Darts(Classification(10)), ...)` trains a `Mixture` with all that `Training` does for any model.
What it draws follows from the seed, the epoch and the batch alone, and all that it learns is in the mixture
or in the state of the training, so a training that was interrupted goes on exactly.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from itertools import count
from typing import Any, ClassVar, Literal

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, IterableDataset

from optnas.data.tensors import Batches
from optnas.facts.cost import inference
from optnas.seeds import derive_seed
from optnas.supernet.mixing import Weights
from optnas.supernet.mixture import Mixture
from optnas.tasks.supervised import Supervised
from optnas.training.arguments import Monitored
from optnas.training.training import Task
from optnas.trial import Trial

_log = logging.getLogger(__name__)

COMPARED = 20
"""Steps over which OLES averages cosines."""

LOOKS = 8
"""Every so many steps the gap is measured."""

_STATE = "optnas:alphas"


@dataclass(frozen=True)
class Darts(Monitored):
    """Learns the decisions of a `Mixture` by gradients, while its weights are learned.

    Before each step of the weights on a training batch, the alphas go a step of Adam on a batch of the
    validation data, shuffled anew in every epoch. Nothing else of the task changes: its optimizer and
    schedule train the weights.

    Each validation logs `progress` (the share of epochs done), by which `Training(monitor="progress",
    mode="max")` keeps what was learned last, and the only `monitor` that it takes; `skips`, the share
    of decisions whose best answer is an identity (`Mixture.skip_share`), and `gap`, the loss of the best
    network minus that of the mixture, with shared weights, on batches of the validation data of the epoch.
    Large ones say that the mixture is no guide to the networks. Plain DARTS is known to end in skips
    (arXiv:1909.09656); `beta`, `oles` and `perturb` are known to prevent it.

    Liu, Simonyan & Yang, DARTS, ICLR 2019 (arXiv:1806.09055).

    Args:
        task: what the networks learn.
        lr: of the alphas; 3e-4 is the paper's, for some ten thousand steps. A short training needs more. 0
            leaves them all but equal, so that `perturb` alone decides: weights then learn under a mixture
            that prefers nothing, and no step of alphas costs time.
        weight_decay: of the alphas.
        second_order: take into account that weights follow alphas: the alphas are trained for the weights
            after their next step, for which a plain step of gradient descent stands. Costs three passes more.
        temperatures: run one candidate of each decision, drawn anew for each step by Gumbel noise; the
            temperature goes from the first number to the second. GDAS (arXiv:1910.04465) has `(10, 0.1)`.
        partial: of so many channels one goes through the candidates, drawn anew for each step, and the others
            pass by, where a `Choice` keeps the shape: PC-DARTS (arXiv:1907.05737) has 4. Candidates have
            their full width, so this saves no memory here; it weakens what a skip gains.
        warmup: epochs in which weights alone are trained; PC-DARTS has 15 of 50.
        beta: regularization of the alphas, 0 at first and so much at the end: the mean over decisions of the
            logarithm of the sum of their exponentials is added to the loss. Beta-DARTS (arXiv:2203.01665)
            has 50.
        oles: stop training the weights of a candidate where its gradients on training and validation data
            are at a cosine below this, on average over its parameters and 20 steps: it has begun to
            overfit. OLES (NeurIPS 2023) has 0.4.
        perturb: decide in the end, instead of by the largest alpha, by which answer the mixture can do
            without the least (DARTS-PT, arXiv:2108.04392): one decision after the other, in random order,
            takes the answer without which the loss on the validation data is largest, and so many epochs
            of training of the weights follow. The paper has 5. They are the last of all epochs: there must
            be more than `perturb` times the decisions.
        most_skips: stop where `skips` is above this, and keep what was learned before (DARTS+,
            arXiv:1909.06035, has 2 of 8).

    Raises:
        ValueError: an argument is out of its range; or (in training) epochs are unlimited, too few for
            `perturb`, or there is no one loader of validation data.
        TypeError: (when it is called) the model is no `Mixture`.

    Examples:
        >>> train = optnas.Darts(optnas.Classification(3), lr=0.01, oles=0.4, perturb=1)
    """

    monitor: ClassVar[str] = "progress"
    mode: ClassVar[Literal["max", "min"]] = "max"

    task: Task
    lr: float = 3e-4
    weight_decay: float = 1e-3
    second_order: bool = False
    temperatures: tuple[float, float] | None = None
    partial: int = 1
    warmup: int = 0
    beta: float = 0.0
    oles: float | None = None
    perturb: int | None = None
    most_skips: float | None = None

    def __post_init__(self) -> None:
        for name, value, low in (
            ("partial", self.partial, 1),
            ("warmup", self.warmup, 0),
            ("beta", self.beta, 0),
            ("perturb", self.perturb, 1),
        ):
            if value is not None and not value >= low:
                raise ValueError(f"Darts({name}={value}) must be at least {low}.")
        if not self.lr >= 0:
            raise ValueError(f"Darts(lr={self.lr}) must be at least 0.")
        if self.lr == 0 and self.perturb is None:
            raise ValueError("Darts(lr=0): alphas that stay as they are decide nothing; give perturb=1, say.")
        if self.lr == 0 and self.oles is not None:
            raise ValueError(
                f"Darts(lr=0, oles={self.oles}): OLES looks at gradients of the steps of the alphas, and "
                "there are none; leave it out."
            )
        if self.temperatures is not None and not min(self.temperatures) > 0:
            raise ValueError(f"Darts(temperatures={self.temperatures}) must both be above 0.")
        if self.oles is not None and not -1 < self.oles < 1:
            raise ValueError(f"Darts(oles={self.oles}) is a cosine, between -1 and 1.")
        if self.most_skips is not None and not 0 <= self.most_skips < 1:
            raise ValueError(f"Darts(most_skips={self.most_skips}) is a share, from 0 to below 1.")

    def __call__(self, model: nn.Module, trial: Trial) -> pl.LightningModule:
        module = self.task(model, trial)
        if not isinstance(model, Mixture):
            raise TypeError(
                f"Darts learns decisions, and its model is a {type(model).__name__}; give "
                "Objective(mixture.untrained, Training(...)) a mixture: Mixture(space, example)."
            )
        search = _Search(self, model, module, torch.initial_seed())
        for own in (
            search.on_train_start,
            search.on_train_epoch_start,
            search.on_train_batch_start,
            search.on_before_optimizer_step,
            search.on_train_batch_end,
            search.on_validation_epoch_end,
            search.on_train_end,
            search.on_save_checkpoint,
            search.on_load_checkpoint,
        ):
            _first(module, own)
        return module


def _first(module: pl.LightningModule, own: Callable[..., None]) -> None:
    """Let the module's hook of the same name call `own` first."""
    name = own.__name__
    inner = getattr(module, name)

    def hook(*args: Any, **kwargs: Any) -> Any:
        own(*args, **kwargs)
        return inner(*args, **kwargs)

    setattr(module, name, hook)


class _Search:
    """What happens beside the task's own steps; its methods are hooks of a LightningModule."""

    def __init__(self, how: Darts, mixture: Mixture, module: pl.LightningModule, seed: int) -> None:
        self.how = how
        self.mixture = mixture
        self.module = module
        self.seed = seed
        self.step = module.training_step
        self.saved: dict[str, Any] | None = None
        self.batches: Iterator[Any] = iter(())
        self.gaps: list[float] = []
        self.gradients: dict[nn.Parameter, Tensor] = {}
        self.context = ExitStack()

    @property
    def trainer(self) -> pl.Trainer:
        return self.module.trainer

    @property
    def epochs(self) -> int:
        """Of the whole training.

        Raises:
            ValueError: that is not known, or too few.
        """
        found = self.trainer.max_epochs
        if found is None or found < 1:
            raise ValueError(f"Training(max_epochs={found}): Darts needs to know how many epochs there are.")
        return found

    @property
    def decides_from(self) -> int:
        """The first epoch of selection by perturbation."""
        if self.how.perturb is None:
            return self.epochs
        n = sum(size > 1 for size in self.mixture.sizes)
        first = self.epochs - n * self.how.perturb
        rehearsed = self.epochs == 1 and isinstance(self.trainer.limit_train_batches, int)
        if rehearsed:  # one epoch of few batches, whatever the training has
            return self.epochs
        if first <= self.how.warmup:
            raise ValueError(
                f"Training(max_epochs={self.epochs}): Darts(perturb={self.how.perturb}) decides {n} times in "
                f"the last {n * self.how.perturb} epochs, which leaves none to learn before; give more than "
                f"{n * self.how.perturb + self.how.warmup}."
            )
        return first

    # ---- hooks, in the order in which Lightning calls them ----

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.saved = checkpoint.get(_STATE)

    def on_train_start(self) -> None:
        how, mixture = self.how, self.mixture
        self.optimizer = torch.optim.Adam(
            [mixture.alpha], lr=how.lr, betas=(0.5, 0.999), weight_decay=how.weight_decay
        )
        if self.saved is not None:
            self.optimizer.load_state_dict(self.saved)
            self.saved = None
        for operation, frozen in zip(mixture.operations, mixture.frozen.tolist(), strict=True):
            if frozen:
                _freeze(operation)
        _ = self.decides_from  # that it fits

    def on_train_epoch_start(self) -> None:
        epoch = self.module.current_epoch
        self.batches = self._shuffled(epoch)
        self.gaps = []
        every, since = self.how.perturb, epoch - self.decides_from
        if every is not None and since >= 0 and since % every == 0 and self.mixture.undecided():
            self._decide(np.random.default_rng(derive_seed("perturb", self.seed, epoch)))

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self.context.close()
        epoch = self.module.current_epoch
        draw = _Draw(self, np.random.default_rng(derive_seed("darts", self.seed, epoch, batch_idx)))
        if self.how.lr and self.how.warmup <= epoch < self.decides_from:
            self._learn(batch, next(self.batches), batch_idx, draw)
        if batch_idx % LOOKS == 0:
            self.gaps.append(self._gap(next(self.batches), batch_idx))
        again = _Draw(self, np.random.default_rng(derive_seed("weights", self.seed, epoch, batch_idx)))
        self.context.enter_context(again.passes(self.mixture.alpha.detach()))

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """OLES: compare gradients on training data, which are there now, with those on validation data."""
        mixture, threshold = self.mixture, self.how.oles
        if threshold is None or not self.gradients:
            return
        for i, operation in enumerate(mixture.operations):
            cosines = [
                functional.cosine_similarity(p.grad.flatten(), self.gradients[p].flatten(), dim=0)
                for p in operation.parameters()
                if p.grad is not None and p in self.gradients
            ]
            if not cosines:
                continue
            mixture.cosines[i] += torch.stack(cosines).mean()
            mixture.compared[i] += 1
            if mixture.compared[i] == COMPARED:
                if mixture.cosines[i] / COMPARED < threshold:
                    mixture.frozen[i] = True
                    _freeze(operation)
                mixture.cosines[i], mixture.compared[i] = 0, 0
        self.gradients = {}

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.context.close()

    def on_validation_epoch_end(self) -> None:
        if self.trainer.sanity_checking:
            return
        skips, progress = self.mixture.skip_share(), (self.module.current_epoch + 1) / self.epochs
        if self.how.most_skips is not None and skips > self.how.most_skips and self.mixture.steps:
            _log.warning(
                "Darts(most_skips=%g): after epoch %d the share of skips is %.2g. The search stops, and what "
                "it had learned before is kept.",
                self.how.most_skips, self.module.current_epoch, skips,
            )  # fmt: skip
            self.trainer.should_stop = True
            progress = 0.0
        self.module.log("progress", progress)
        self.module.log("skips", skips)
        if self.gaps:
            self.module.log("gap", float(np.mean(self.gaps)))

    def on_train_end(self) -> None:
        if (skips := self.mixture.skip_share()) > 0.5:
            _log.warning(
                "The best answer to %.0f %% of the decisions is a skip: this is how a search by gradients "
                "fails. Darts(beta=...), Darts(oles=0.4) and Darts(perturb=...) are known to prevent it.",
                100 * skips,
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[_STATE] = self.optimizer.state_dict()

    # ---- learning ----

    def _learn(self, batch: Any, other: Any, batch_idx: int, draw: _Draw) -> None:
        """One step of the alphas: for the batch `other`, by weights that the batch `batch` trains."""
        mixture = self.mixture
        watched = [p for operation in mixture.operations for p in operation.parameters() if p.requires_grad]
        watched = watched if self.how.oles is not None else []
        alpha = mixture.alpha.detach().clone().requires_grad_()
        with self.trainer.precision_plugin.train_step_context():
            if self.how.second_order:
                found = self._unrolled(alpha, batch, other, batch_idx, draw, watched)
            else:
                found = self._gradients(alpha, other, batch_idx, draw, [alpha, *watched])
        gradient, *others = found
        assert gradient is not None, "every decision is in every pass"
        self.gradients = {p: g for p, g in zip(watched, others, strict=True) if g is not None}
        if self.how.beta:
            weight = self.how.beta * self.module.current_epoch / self.epochs
            spread = torch.stack([part.logsumexp(0) for part in mixture.split(alpha)]).mean()
            gradient = gradient + weight * torch.autograd.grad(spread, alpha)[0]
        mixture.alpha.grad = gradient
        self.optimizer.step()
        mixture.alpha.grad = None  # no optimizer of the task's shall go by it
        mixture.steps += 1

    def _gradients(
        self, alpha: Tensor, batch: Any, batch_idx: int, draw: _Draw, of: Sequence[Tensor]
    ) -> list[Tensor | None]:
        with draw.passes(alpha):
            return list(torch.autograd.grad(self._loss(batch, batch_idx), of, allow_unused=True))

    def _unrolled(
        self,
        alpha: Tensor,
        batch: Any,
        other: Any,
        batch_idx: int,
        draw: _Draw,
        watched: Sequence[nn.Parameter],
    ) -> list[Tensor | None]:
        """Equations 7 and 8 of the paper: the gradient through one step of the weights."""
        rate = self.trainer.optimizers[0].param_groups[0]["lr"]
        weights = [p for p in self.module.parameters() if p.requires_grad]
        kept = [p.detach().clone() for p in weights]

        def move(by: Sequence[Tensor | None], scale: float) -> None:
            with torch.no_grad():
                for p, before, direction in zip(weights, kept, by, strict=True):
                    p.copy_(before if direction is None else before + scale * direction)

        try:
            move(self._gradients(alpha, batch, batch_idx, draw, weights), -rate)
            first, *after = self._gradients(alpha, other, batch_idx, draw, [alpha, *weights])
            assert first is not None, "every decision is in every pass"
            norm = torch.stack([g.norm() for g in after if g is not None]).norm()
            size = 0.01 / max(float(norm), 1e-12)
            sides = []
            for sign in (1, -1):
                move(after, sign * size)
                [side] = self._gradients(alpha, batch, batch_idx, draw, [alpha])
                assert side is not None, "every decision is in every pass"
                sides.append(side)
        finally:
            move([None] * len(weights), 0.0)
        of = dict(zip(weights, after, strict=True))
        return [first - rate * (sides[0] - sides[1]) / (2 * size), *(of[p] for p in watched)]

    def _loss(self, batch: Any, batch_idx: int) -> Tensor:
        """The task's training loss."""
        if isinstance(self.module, Supervised):
            return self.module.loss_on(batch)
        found: Any = self.step(batch, batch_idx)
        loss: Tensor = found["loss"] if isinstance(found, Mapping) else found
        return loss

    def _gap(self, batch: Any, batch_idx: int) -> float:
        """By how much the loss of the best network is above that of the mixture."""
        losses = []
        with torch.no_grad(), self.trainer.precision_plugin.train_step_context():
            for weights in (self.mixture.soft(), self.mixture.hard()):
                with self.mixture.weighed(weights):
                    losses.append(float(self._loss(batch, batch_idx)))
        return losses[1] - losses[0]

    def _decide(self, rng: np.random.Generator) -> None:
        """One decision, by what its mixture can do without."""
        name = str(rng.choice(self.mixture.undecided()))
        losses = []
        with inference(self.module), self.trainer.precision_plugin.val_step_context():
            for answer in range(len(self.mixture.decisions[name])):
                with self.mixture.weighed(self.mixture.lacking(name, answer)):
                    found = [self._loss(self._on_device(b), i) for i, b in enumerate(self._validation())]
                losses.append(float(torch.stack(found).mean()))
        self.mixture.decide(name, losses)

    # ---- data ----

    def _validation(self) -> Any:
        """The loader of the validation data."""
        data: Any = vars(self.trainer).get("datamodule")
        loader = None if data is None else data.val_dataloader()
        if loader is None or isinstance(loader, Mapping | list | tuple):
            raise ValueError(
                "Darts learns decisions on the validation data; give a LightningDataModule whose "
                f"val_dataloader() returns one loader, not a {type(loader).__name__}."
            )
        return loader

    def _shuffled(self, epoch: int) -> Iterator[Any]:
        """Batches of the validation data without end."""
        for turn in count():
            loader = self._validation()
            seed = derive_seed("alphas", self.seed, epoch, turn)
            found = False
            for batch in _in_random_order(loader, seed):
                found = True
                yield self._on_device(batch)
            if not found:
                raise ValueError("Darts learns decisions on the validation data, and there are none.")

    def _on_device(self, batch: Any) -> Any:
        batch = self.trainer.precision_plugin.convert_input(batch)
        batch = self.module._on_before_batch_transfer(batch, dataloader_idx=0)
        return self.trainer.strategy.batch_to_device(batch, dataloader_idx=0)


class _Draw:
    """What is random in the passes of one step: the noise, and which channels pass by."""

    def __init__(self, search: _Search, rng: np.random.Generator) -> None:
        self.search = search
        mixture = search.mixture
        noise = rng.gumbel(size=sum(mixture.sizes))
        self.noise = torch.as_tensor(noise, dtype=mixture.alpha.dtype).to(mixture.alpha.device)
        self.channels_seed = int(rng.integers(2**31))

    def passes(self, alpha: Tensor) -> AbstractContextManager[None]:
        """A context in which the mixture runs under these alphas."""
        how, mixture = self.search.how, self.search.mixture
        return mixture.weighed(self._weights(alpha), partial=how.partial, channels_seed=self.channels_seed)

    def _weights(self, alpha: Tensor) -> dict[str, Weights]:
        how, mixture = self.search.how, self.search.mixture
        if how.temperatures is None:
            return mixture.soft(alpha)
        first, last = how.temperatures
        share = self.search.module.current_epoch / max(1, self.search.epochs - 1)
        return mixture.sampled(alpha, self.noise, first + (last - first) * share)


def _freeze(operation: nn.Module) -> None:
    for parameter in operation.parameters():
        parameter.requires_grad_(False)
        parameter.grad = None


def _in_random_order(loader: Any, seed: int) -> Any:
    """The same data in batches of the same size; as it is where that cannot be told."""
    if isinstance(loader, Batches):
        return Batches(loader.split, loader.batch_size, shuffle=seed)
    plain = isinstance(loader, DataLoader) and loader.batch_size is not None
    if not plain or isinstance(loader.dataset, IterableDataset):
        return loader
    return DataLoader(
        loader.dataset,
        loader.batch_size,
        shuffle=True,
        drop_last=len(loader.dataset) > loader.batch_size,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        generator=torch.Generator().manual_seed(seed),
    )
