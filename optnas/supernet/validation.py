"""Score sub-networks by the weights that they share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import optuna
from optuna.trial import FrozenTrial
from torch import nn

from optnas import record
from optnas.errors import UntestableError
from optnas.estimation.estimator import Direction, Estimator
from optnas.estimation.run import Run
from optnas.estimation.settings import digest
from optnas.facts import materialize
from optnas.supernet.supernet import Supernet
from optnas.training.training import Training
from optnas.trial import Draw, Trial


class Validation(Estimator):
    """Scores the sub-networks of a trained supernet on the validation data, without training them.

    Statistics of normalizations, which belong to no sub-network, are measured anew first. The score is an
    estimate of what the stand-alone network would reach: measure how well it ranks networks of your space
    before you believe it. Let `best(study, objective, finalists=5)` decide in the end: it trains the best
    networks from scratch, by `training`.

    Args:
        supernet: the supernet whose `subnet` is the objective's space.
        training: how a stand-alone network is trained. It gives the task, the data and the metric, and trains
            the finalists.
        n_calibration: number of batches of training data on which the statistics are measured.

    Examples:
        >>> conv = optnas.Choice(
        ...     "op", {str(k): lambda trial, k=k: nn.Conv2d(1, 4, k, padding=k // 2) for k in (3, 5)}
        ... )
        >>> supernet = optnas.Supernet(
        ...     optnas.Chain(conv=conv, head=lambda trial: blocks.head(trial, n_classes=3)), example
        ... )
        >>> ranked = optnas.Objective(supernet.subnet, optnas.Validation(supernet, training))
    """

    def __init__(self, supernet: Supernet, training: Training, *, n_calibration: int = 20) -> None:
        if n_calibration < 1:
            raise ValueError(
                f"n_calibration={n_calibration}: a sub-network has no statistics of its own; give at least 1."
            )
        self.supernet = supernet
        self.training = training
        self.n_calibration = n_calibration
        self._hash = WeightsHash(supernet)

    def __call__(self, model: nn.Module, run: Run, /) -> dict[str, float]:
        """Metrics of the validation data with the weights that the model has.

        Raises:
            ValueError: nobody has trained the supernet.
        """
        check_trained(self.supernet)
        record.WEIGHTS.write(run, {"from": "shared"})
        return self.training.validate(model, run, n_calibration=self.n_calibration)

    @property
    def values(self) -> Mapping[str, Direction]:
        """Those of the training."""
        return self.training.values

    @property
    def settings(self) -> Any:
        """The training's, and a hash of the shared weights."""
        return {
            "estimator": "Validation",
            "weights": self._hash(),
            "n_calibration": self.n_calibration,
            "training": self.training.settings,
        }

    @property
    def scores_given_weights(self) -> bool:
        """Candidates of equal graph have weights of their own."""
        return True

    def ask(self, model: nn.Module, trial: Trial) -> None:
        """What the training asks."""
        self.training.ask(model, trial)

    @property
    def has_example(self) -> bool:
        """The training's."""
        return self.training.has_example

    def example(self, trial: Trial) -> Any:
        """The training's."""
        return self.training.example(trial)

    def provenance(self) -> Mapping[str, Any]:
        """The training's."""
        return self.training.provenance()

    def test(self, model: nn.Module, study: optuna.Study, trial: FrozenTrial) -> dict[str, float]:
        """Shared weights are not tested.

        Raises:
            UntestableError: always.
        """
        raise UntestableError(
            f"Trial {trial.number} was scored with shared weights and has none of its own. Train it "
            "anew: best(...).retrain(), or `optnas best --retrain 3`."
        )

    def estimate_and_test(self, model: nn.Module, run: Run) -> Mapping[str, float]:
        """Train the stand-alone network from scratch, as `training` does."""
        alone = self.supernet.space(Draw(run.answer))
        return self.training.estimate_and_test(materialize(alone, self.example(run)), run)

    def with_max_epochs(self, max_epochs: int) -> Validation:
        """The same, with another number of epochs for what is trained from scratch."""
        training = self.training.with_max_epochs(max_epochs)
        return Validation(self.supernet, training, n_calibration=self.n_calibration)


class WeightsHash:
    """A hash of the shared weights, computed anew when they have changed."""

    def __init__(self, supernet: Supernet) -> None:
        self._supernet = supernet
        self._known: tuple[Any, str] | None = None

    def __call__(self) -> str:
        weights = self._supernet.state_dict()
        version = [(name, weight.data_ptr(), weight._version) for name, weight in weights.items()]
        if self._known is None or self._known[0] != version:
            self._known = version, digest(weights)
        return self._known[1]


def check_trained(supernet: Supernet) -> None:
    """Raises ValueError where nobody has trained the supernet."""
    if not supernet.passes:
        raise ValueError(
            "This supernet is untrained: its weights are as they were initialized. Train one with "
            "Objective(supernet.untrained, Training(SinglePath(task), ...)), and take the trained one "
            "from there: best(study, objective).model()."
        )
