"""Score sub-networks by training them on, from the weights that they share."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from torch import nn

from optnas import record
from optnas.estimation.around import Around
from optnas.estimation.estimator import Preview
from optnas.estimation.run import Run
from optnas.estimation.shared import take_shared
from optnas.facts import materialize
from optnas.supernet.supernet import Supernet
from optnas.supernet.validation import WeightsHash, check_trained
from optnas.training.training import Training
from optnas.trial import Draw


class FineTuning(Around):
    """Scores the sub-networks of a trained supernet after training each of them on, by itself.

    It lies between `Validation`, which trains nothing, and a training from scratch: a few epochs let a
    sub-network recover from having shared its weights (Cai et al., Once-for-All, 2020, arXiv:1908.09791). Its
    trials say that they began with shared weights, so that `best` trains the winner from scratch before it
    calls it one. What the supernet has cost is not among their epochs.

    Args:
        supernet: the supernet whose `subnet` is the objective's space.
        training: how a sub-network is trained on: few epochs, a small learning rate.
        anew: how the winner is trained from scratch; `training` if not given, whose epochs may be too few.

    Raises:
        ValueError: `training` gives or inherits other weights.

    Examples:
        >>> conv = optnas.Choice(
        ...     "op", {str(k): lambda trial, k=k: nn.Conv2d(1, 4, k, padding=k // 2) for k in (3, 5)}
        ... )
        >>> supernet = optnas.Supernet(
        ...     optnas.Chain(conv=conv, head=lambda trial: blocks.head(trial, n_classes=3)), example
        ... )
        >>> tuning = optnas.FineTuning(supernet, training.with_max_epochs(1), anew=training)
        >>> tuned = optnas.Objective(supernet.subnet, tuning)
    """

    def __init__(self, supernet: Supernet, training: Training, *, anew: Training | None = None) -> None:
        if training.scores_given_weights:
            raise ValueError(
                "FineTuning: training has inherit= or pretrained=, whose weights would replace the shared "
                "ones; leave them out."
            )
        self.supernet = supernet
        self.estimator = self.training = training
        self.anew = training if anew is None else anew
        self._hash = WeightsHash(supernet)

    def __call__(self, model: nn.Module, run: Run, /) -> dict[str, float]:
        """Metrics of the best epoch, as the training's.

        Raises:
            ValueError: nobody has trained the supernet.
            optuna.TrialPruned, KeyboardInterrupt, SystemExit: as the training.
        """
        check_trained(self.supernet)
        take_shared(model)
        record.WEIGHTS.write(run, {"from": "shared"})
        return self.training(model, run)

    @property
    def settings(self) -> Any:
        """The training's, and a hash of the shared weights."""
        return {"estimator": "FineTuning", "weights": self._hash(), "training": self.training.settings}

    @property
    def scores_given_weights(self) -> bool:
        """Candidates of equal graph have weights of their own."""
        return True

    def rehearse(self, model: nn.Module, run: Run) -> Collection[str] | None:
        """That of the training."""
        take_shared(model)
        return self.training.rehearse(model, run)

    def preview(self, model: nn.Module, run: Run) -> Preview:
        """That of the training."""
        take_shared(model)
        return self.training.preview(model, run)

    def estimate_and_test(self, model: nn.Module, run: Run) -> Mapping[str, float]:
        """Train the stand-alone network from scratch, as `anew` does."""
        alone = self.supernet.space(Draw(run.answer))
        return self.anew.estimate_and_test(materialize(alone, self.example(run)), run)

    def with_max_epochs(self, max_epochs: int) -> FineTuning:
        """The same, with another number of epochs for what is trained from scratch."""
        return FineTuning(self.supernet, self.training, anew=self.anew.with_max_epochs(max_epochs))

    @property
    def name(self) -> str:
        """Its own."""
        return type(self).__name__
