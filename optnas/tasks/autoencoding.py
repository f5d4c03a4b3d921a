"""Inputs from what is left of them, with or without noise in between."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.nn import functional

from optnas.tasks import batches
from optnas.tasks.supervised import Supervised
from optnas.tasks.task import Task
from optnas.trial import Trial


@dataclass(frozen=True)
class Autoencoding(Task):
    """The negative evidence lower bound of a variational autoencoder (Kingma & Welling, arXiv:1312.6114).

    The model returns `(reconstruction, mean, log_variance)` of its normal code; one that returns the
    reconstruction alone is a plain autoencoder. Labels of the batches do not matter. Logs the loss in nats
    per sample and its parts, `reconstruction` and `kl`.

    Args:
        likelihood: "normal": reconstructions are means, of variance 1; "bernoulli": they are logits of
            inputs in 0..1.
        beta: how much the Kullback-Leibler divergence counts (beta-VAE, Higgins et al. 2017).

    The keyword arguments of `optnas.tasks.Task` are accepted too: `lr`, `recipe`, `call`, ...

    Examples:
        >>> task = optnas.tasks.Autoencoding("bernoulli", beta=0.5, lr=1e-3)
        >>> module = task(nn.Linear(8, 8), trial)
    """

    likelihood: Literal["normal", "bernoulli"] = "normal"
    beta: float = 1.0

    def __post_init__(self) -> None:
        if self.likelihood not in ("normal", "bernoulli"):
            raise ValueError(f"likelihood={self.likelihood!r}: give 'normal' or 'bernoulli'.")

    def __call__(self, model: nn.Module, trial: Trial) -> LightningModule:
        return self.supervised(model, trial, _Bound(self.likelihood, self.beta), {}, _Autoencoder)


class _Autoencoder(Supervised):
    loss: _Bound

    def split(self, batch: Any) -> tuple[Any, Any]:
        x = batch[0] if isinstance(batch, tuple | list) else batch
        return x, (x,)  # no tensor, so that the output stays whole

    def score(self, output: Any, y: Any) -> tuple[Tensor, Tensor | int]:
        return self.loss(output, y[0]), len(y[0])

    def measured(self, output: Any, y: Any) -> tuple[Any, Any]:
        return batches.main(output), y[0]

    def parts(self, output: Any, y: Any) -> Mapping[str, tuple[Tensor, Tensor | int]]:
        reconstruction, kl = self.loss.parts(output, y[0])
        return {"reconstruction": (reconstruction, len(y[0])), "kl": (kl, len(y[0]))}


class _Bound(nn.Module):
    """Nats per sample."""

    def __init__(self, likelihood: str, beta: float) -> None:
        super().__init__()
        self.likelihood = likelihood
        self.beta = beta

    def forward(self, output: Any, x: Tensor) -> Tensor:
        reconstruction, kl = self.parts(output, x)
        return reconstruction + self.beta * kl

    def parts(self, output: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        """How unlikely the inputs are given their code, and how far codes are from standard normal."""
        code = tuple(output[1:3]) if isinstance(output, tuple | list) and len(output) > 2 else ()
        found = batches.main(output)
        if not isinstance(found, Tensor) or found.shape != x.shape:
            got = tuple(found.shape) if isinstance(found, Tensor) else f"a {type(found).__name__}"
            raise ValueError(
                f"Autoencoding: the inputs are {tuple(x.shape)}, and the model returned {got}; it returns "
                "(reconstruction, mean, log_variance) or the reconstruction alone."
            )
        if self.likelihood == "bernoulli":
            each = functional.binary_cross_entropy_with_logits(found, x, reduction="none")
        else:
            each = 0.5 * ((found - x) ** 2 + math.log(2 * math.pi))
        reconstruction = each.sum() / len(x)
        if not code:
            return reconstruction, torch.zeros_like(reconstruction)
        mean, log_variance = code
        kl = -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum() / len(x)
        return reconstruction, kl
