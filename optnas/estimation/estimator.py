"""What scores a model: the one interface between a search and an estimate of performance."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.trial import FrozenTrial
from torch import nn

from optnas.errors import TrialPaused, UntestableError
from optnas.estimation import folders
from optnas.estimation.run import Run
from optnas.estimation.settings import describe
from optnas.facts.inputs import Example
from optnas.trial import Trial

Direction = Literal["maximize", "minimize"]


@dataclass(frozen=True)
class Preview:
    """What one short estimate has shown.

    Attributes:
        errors: what an estimate would raise.
        seconds: that a whole estimate takes here, about; None where that is not known.
        batch_size: samples that the network sees at a time; None where that is not known.
        metrics: the names of what an estimate returns; None where that is not known.
    """

    errors: tuple[Exception, ...] = ()
    seconds: float | None = None
    batch_size: int | None = None
    metrics: frozenset[str] | None = None


class Estimator(ABC):
    """Scores a model: `estimator(model, run) -> metrics`.

    Only `__call__` must be written. The defaults of all other methods suit an estimate that asks the trial
    nothing, keeps no files and cannot test. `as_estimator` turns a plain function `(model, trial) -> metrics`
    into an estimator.

    Examples:
        >>> class Loss(optnas.Estimator):
        ...     def __call__(self, model, run):
        ...         return {"loss": float(model(torch.ones(example)).square().mean())}
        >>> minimal = optnas.Objective(space, Loss(), values={"loss": "minimize"}, example=example)
        >>> optnas.optimize(optnas.create_study(minimal, seed=0), minimal, n_trials=1)
    """

    @abstractmethod
    def __call__(self, model: nn.Module, run: Run, /) -> Mapping[str, float]:
        """Metrics of the model, by name.

        It may report to the run, ask the run for what it needs (a learning rate), refuse (`run.refuse`) and
        raise `optuna.TrialPruned`.
        """

    # ---- before an estimate ----

    @property
    def values(self) -> Mapping[str, Direction]:
        """The metric to optimize and its direction; empty: `Objective(values=...)` says it."""
        return {}

    @property
    def settings(self) -> Any:
        """What the result depends on beside the model and the answers, as JSON; None: nothing.

        Values are reused between trials only under equal settings.
        """
        return None

    @property
    def max_reports(self) -> int:
        """How many values a trial reports at most; 0: not known. See `default_pruner`."""
        return 0

    @property
    def scores_given_weights(self) -> bool:
        """Whether the score depends on weights that others trained: shared ones, or those of a parent.

        Networks of equal graph are then twins only where their weights are equal, too.
        """
        return False

    @property
    def is_noisy(self) -> bool:
        """Whether another seed would give another score, so that the best of many is partly the luckiest."""
        return True

    @property
    def resumes(self) -> bool:
        """Whether an attempt goes on from where an earlier one at the same trial stopped.

        If so, it calls `run.pause()` where `run.should_prune()` says yes: the trial may go on later.
        """
        return False

    @property
    def share_in_full(self) -> float:
        """The share of trials that is estimated in full; others end with a cheap estimate (`Screening`)."""
        return 1.0

    def ask(self, model: nn.Module, trial: Trial) -> None:
        """Ask the trial exactly what the call would ask. `model` may be on the meta device."""

    @property
    def has_example(self) -> bool:
        """Whether `example` knows what inputs look like; if not, `Objective(example=...)` must say it."""
        return False

    def example(self, trial: Trial) -> Example:
        """A small batch of inputs."""
        raise NotImplementedError(f"The estimator ({self.name}) does not say what its inputs look like.")

    def rehearse(self, model: nn.Module, run: Run) -> Collection[str] | None:
        """Do everything that an estimate does, as quickly as possible, and keep nothing.

        A search calls it before its first trial, so that a mistake in the settings costs no trial: it raises.

        Returns:
            The names of the metrics of an estimate; None where they are not known before.
        """
        return None

    def preview(self, model: nn.Module, run: Run) -> Preview:
        """Like `rehearse`, but return every error that it finds, and the time that an estimate takes.

        Raises:
            optuna.TrialPruned: this network is refused.
        """
        try:
            self.rehearse(model, run)
        except (optuna.TrialPruned, TrialPaused):
            raise
        except Exception as error:
            return Preview((error,))
        return Preview()

    def provenance(self) -> Mapping[str, Any]:
        """What a study records of its circumstances, flat and as JSON: a fingerprint of the data, say."""
        return {}

    # ---- after an estimate ----

    def finish(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Called when a trial has ended, in any process: delete what only an unfinished trial needs."""

    def tidy(self, study: optuna.Study) -> None:
        """Called when a search begins or ends: delete what no trial needs any more."""

    def settle(self, study: optuna.Study) -> Path:
        """The folder of the study's files; it is made if there is none.

        Raises:
            CheckpointError: it cannot be made.
        """
        return folders.settle(study)

    @property
    def folder(self) -> Path | None:
        """The folder that the user gave for a study's files; None: beside the database, or it keeps none."""
        return None

    @property
    def keeps_weights(self) -> bool:
        """Whether `trained` can give back what an estimate trained."""
        return False

    def has_trained(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether what this trial trained is still there for `trained`."""
        return False

    def trained(self, model: nn.Module, study: optuna.Study, trial: FrozenTrial) -> nn.Module:
        """The network as it was when it got its score, in evaluation mode; `model` is the untrained one.

        Raises:
            NotImplementedError: the estimator keeps no weights.
            FileNotFoundError: they were deleted, or are elsewhere.
            ParamsMismatchError: they do not fit the model.
        """
        raise NotImplementedError(f"The objective's estimator ({self.name}) keeps no weights; Training does.")

    def test(self, model: nn.Module, study: optuna.Study, trial: FrozenTrial) -> dict[str, float]:
        """Metrics, on data that no estimate saw, of what a trial trained; `model` is the untrained one.

        Raises:
            UntestableError: there is nothing to test on.
            FileNotFoundError, ParamsMismatchError: as for `trained`.
        """
        raise UntestableError(f"The objective's estimator ({self.name}) has no test.")

    def estimate_and_test(self, model: nn.Module, run: Run) -> Mapping[str, float]:
        """An estimate outside a search, with the metrics of its test where it has one."""
        return self(model, run)

    def with_max_epochs(self, max_epochs: int) -> Estimator:
        """The same estimate with another number of epochs.

        Raises:
            NotImplementedError: it has no epochs.
        """
        raise NotImplementedError(f"The objective's estimator ({self.name}) has no epochs; Training has.")

    @property
    def name(self) -> str:
        """Its name in messages."""
        return type(self).__name__


class Function(Estimator):
    """A plain function, or an object that is called like one, as an estimator.

    Attributes of these names are used where the object has them: `values`, `settings` (default: a description
    of its code), `example(trial)`, `ask(model, trial)` and `max_epochs` (how many values it reports).
    """

    _OPTIONAL = ("values", "settings", "example", "ask", "max_epochs")

    def __init__(self, function: Callable[..., Mapping[str, float]]) -> None:
        self.function = function
        self._has = frozenset(self._OPTIONAL) & frozenset(dir(function))

    def __call__(self, model: nn.Module, run: Run, /) -> Mapping[str, float]:
        return self.function(model, run)

    def _given(self, name: str) -> Any:
        return getattr(self.function, name)

    @property
    def values(self) -> Mapping[str, Direction]:
        return self._given("values") if "values" in self._has else {}

    @property
    def settings(self) -> Any:
        return self._given("settings") if "settings" in self._has else describe(self.function)

    @property
    def max_reports(self) -> int:
        return int(self._given("max_epochs")) if "max_epochs" in self._has else 0

    def ask(self, model: nn.Module, trial: Trial) -> None:
        if "ask" in self._has:
            self._given("ask")(model, trial)

    @property
    def has_example(self) -> bool:
        return "example" in self._has

    def example(self, trial: Trial) -> Example:
        return self._given("example")(trial) if self.has_example else super().example(trial)

    @property
    def name(self) -> str:
        kind = type(self.function).__name__
        return self.function.__name__ if kind == "function" else kind


def as_estimator(thing: Estimator | Callable[..., Mapping[str, float]]) -> Estimator:
    """The estimator itself, or a plain function as one.

    Raises:
        TypeError: it cannot be called.
    """
    if isinstance(thing, Estimator):
        return thing
    if not callable(thing):
        raise TypeError(
            f"The estimator is {thing!r}, which cannot be called; pass a function (model, trial) -> metrics, "
            "optnas.Training, or a subclass of optnas.Estimator."
        )
    return Function(thing)
