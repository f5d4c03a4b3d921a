"""What comes next in series of numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torchmetrics import MeanAbsoluteError

from optnas.tasks import batches
from optnas.tasks.supervised import Supervised
from optnas.tasks.task import Task
from optnas.trial import Trial


@dataclass(frozen=True)
class Forecasting(Task):
    """The next values of series `(n, horizon, ...)` from their past `(n, length, ...)`.

    The loss is the mean absolute error, or with `quantiles` the mean pinball loss (Koenker & Bassett 1978) of
    outputs `(n, horizon, ..., n_quantiles)`. Logs the loss, `mae` and `mase` (Hyndman & Koehler 2006): the
    error of each series as a share of that of repeating what was one season before, in its past; below 1
    is better than that. Series that stay as they are do not count in `mase`. With quantiles, errors are those
    of the one nearest to one half, and `coverage` is the share of values between the lowest and the highest.

    Args:
        quantiles: which to predict, such as (0.1, 0.5, 0.9).
        season: after how many steps a series repeats itself; 1: as if it stayed where it is.

    The keyword arguments of `optnas.tasks.Task` are accepted too: `lr`, `recipe`, `metrics`, `call`, ... The
    past is the input, or the first of several.

    Examples:
        >>> task = optnas.tasks.Forecasting(quantiles=(0.1, 0.5, 0.9), season=24)
        >>> module = task(nn.Linear(96, 24), trial)
    """

    quantiles: Sequence[float] = ()
    season: int = 1

    def __post_init__(self) -> None:
        ordered = list(self.quantiles) == sorted(set(self.quantiles))
        if not ordered or not all(0 < q < 1 for q in self.quantiles) or self.season < 1:
            raise ValueError(
                f"Forecasting(quantiles={self.quantiles!r}, season={self.season}): quantiles rise and lie "
                "between 0 and 1, and a season has at least one step."
            )

    def __call__(self, model: nn.Module, trial: Trial) -> LightningModule:
        loss = _Pinball(self.quantiles) if self.quantiles else nn.L1Loss()
        return self.supervised(
            model,
            trial,
            loss,
            {"mae": MeanAbsoluteError()},
            _Forecaster,
            quantiles=tuple(self.quantiles),
            season=self.season,
        )


class _Forecaster(Supervised):
    def __init__(self, *args: Any, quantiles: tuple[float, ...], season: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.quantiles = quantiles
        self.season = season
        middle = min(range(len(quantiles)), key=lambda i: abs(quantiles[i] - 0.5)) if quantiles else 0
        self.middle = middle

    def split(self, batch: Any) -> tuple[Any, Any]:
        x, y = super().split(batch)
        past = next(t for t in (x.values() if isinstance(x, Mapping) else [x]))
        past = past[0] if isinstance(past, tuple | list) else past
        if past.shape[1] <= self.season:
            raise ValueError(f"season={self.season} is not within the {past.shape[1]} steps of the past.")
        step = (past[:, self.season :] - past[:, : -self.season]).abs()
        return x, (y, step.flatten(1).mean(1))

    def pair(self, output: Any, y: Any) -> tuple[Any, Any]:
        output, (future, scale) = batches.main(output), y
        shape = (*future.shape, len(self.quantiles)) if self.quantiles else tuple(future.shape)
        if not self.quantiles and isinstance(output, Tensor) and output.shape == (*shape, 1):
            output = output.squeeze(-1)
        if not isinstance(output, Tensor) or output.shape != shape:
            got = tuple(output.shape) if isinstance(output, Tensor) else f"a {type(output).__name__}"
            raise ValueError(f"Forecasting takes outputs {shape}; the model returned {got}.")
        return output, (future, scale)

    def score(self, output: Any, y: Any) -> tuple[Tensor, Tensor | int]:
        return self.loss(output, y[0]), y[0].numel()

    def measured(self, output: Any, y: Any) -> tuple[Any, Any]:
        return self._point(output), y[0]

    def parts(self, output: Any, y: Any) -> Mapping[str, tuple[Tensor, Tensor | int]]:
        future, scale = y
        errors = (self._point(output) - future).abs().flatten(1).mean(1)
        moves = scale > 0
        n = moves.sum()
        mase = torch.where(moves, errors / torch.where(moves, scale, 1), 0).sum() / n.clamp(min=1)
        found: dict[str, tuple[Tensor, Tensor | int]] = {"mase": (mase, n)}
        if len(self.quantiles) > 1:
            inside = (output[..., 0] <= future) & (future <= output[..., -1])
            found["coverage"] = inside.float().mean(), future.numel()
        return found

    def _point(self, output: Tensor) -> Tensor:
        return output[..., self.middle] if self.quantiles else output


class _Pinball(nn.Module):
    """Mean over values and quantiles."""

    levels: Tensor

    def __init__(self, quantiles: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("levels", torch.tensor(quantiles, dtype=torch.float32), persistent=False)

    def forward(self, output: Tensor, y: Tensor) -> Tensor:
        error = y.unsqueeze(-1) - output
        return torch.maximum(self.levels * error, (self.levels - 1) * error).mean()
