"""One attempt at one trial: all that an estimator gets beside the model."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import BaseTrial, FrozenTrial

from optnas import private, record
from optnas.answers import check_kept, check_storable
from optnas.errors import ParamsMismatchError, TrialPaused
from optnas.estimation import folders
from optnas.pareto import MultiObjectivePruner
from optnas.record import Reason, Why
from optnas.trial import Draw, Trial, ask

if TYPE_CHECKING:
    from torch import nn

_WAY_OUT = (
    "Put what the choices depend on into the name, for example with scope(trial, ...); if the code has "
    "changed, start a study of another name or use the choices that this one began with."
)


class Run(optuna.Trial):
    """A running trial, with what an estimate needs beside it.

    It *is* the trial of Optuna (`number`, `params`, `study`, `set_user_attr`, ... as there), and goes
    wherever one is asked for. Made by `Run.of`.

    Attributes:
        asked: what was asked through it, and the answers: all that the trial's value depends on beside the
            model.
        told_to_prune: whether `should_prune` has returned True.
        can_go_on: whether the trial can continue later if the pruner pauses it.
        rebuild: builds the untrained network of another trial of the study; None where no objective runs it.
        in_passing: whether what is estimated here is not the value of the trial, so that no weights are kept.

    Examples:
        >>> def estimate(model, run):
        ...     run.report(1, {"score": 0.5})
        ...     return {"score": 0.5 if run.should_prune() else len(model)}
        >>> reporting = optnas.Objective(space, estimate, values={"score": "maximize"}, example=example)
        >>> optnas.optimize(optnas.create_study(reporting, seed=0), reporting, n_trials=1)
    """

    asked: dict[str, Any]
    told_to_prune: bool
    can_go_on: bool
    rebuild: Callable[[FrozenTrial], nn.Module] | None
    in_passing: bool
    _given: Draw | None

    def __init__(self, study: optuna.Study, trial_id: int, *, can_go_on: bool = False) -> None:
        super().__init__(study, trial_id)
        self._begin(None, can_go_on)

    def _begin(self, given: Draw | None, can_go_on: bool = False) -> None:
        self.asked, self.told_to_prune, self._given = {}, False, given
        self.can_go_on = can_go_on
        self.rebuild = None
        self.in_passing = False

    @classmethod
    def of(cls, trial: BaseTrial | Trial) -> Run:
        """The run of a trial: itself if it is one; of a running trial of Optuna; or a lone one.

        A lone run asks the given trial (a stored, a fixed or a replayed one), and belongs to no study.

        Raises:
            ParamsMismatchError: (from a question to a lone run) the trial has no answer that fits.
        """
        if isinstance(trial, Run):
            return trial
        run = cls.__new__(cls)
        if isinstance(trial, optuna.Trial):
            run.__dict__ = trial.__dict__  # one trial: what either learns, both know
            run._begin(None)
            return run
        run.__dict__ = _trial_apart().__dict__
        run._begin(Draw(_asking(trial)))
        if isinstance(trial, BaseTrial) and (seed := record.SEED.of(trial)) is not None:
            record.SEED.write(run, seed)
        if isinstance(trial, BaseTrial) and (origin := record.ORIGIN.of(trial)) is not None:
            record.ORIGIN.write(run, origin)
        return run

    @property
    def lone(self) -> bool:
        """Whether it belongs to no study: a training anew, of which nothing is stored."""
        return self._given is not None

    @property
    def seed(self) -> int | None:
        """What the model and everything random after it were seeded with; None if nobody seeded them."""
        return record.SEED.of(self)

    @property
    def folder(self) -> Path | None:
        """The folder of this trial's files, which exists when it was asked for; None for a lone run.

        Raises:
            CheckpointError: it cannot be made.
        """
        return None if self.lone else folders.claim(folders.settle(self.study), self)

    def part(self) -> int:
        """0 for the first training of this attempt, 1 for the next, and so on."""
        parts: Iterator[int] = self.__dict__.setdefault("_parts", itertools.count())
        return next(parts)

    @property
    def params(self) -> dict[str, Any]:
        """As Optuna's."""
        return super().params if self._given is None else dict(self._given.params)

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        """As Optuna's."""
        return super().distributions if self._given is None else dict(self._given.distributions)

    @property
    def trial(self) -> optuna.Trial:
        """The same trial as plain Optuna's: what is asked there is not noted in `asked`."""
        plain = optuna.Trial.__new__(optuna.Trial)
        plain.__dict__ = self.__dict__
        return plain

    def answer(self, name: str, distribution: BaseDistribution) -> Any:
        """The answer to a question, which is not noted in `asked`.

        Raises:
            ChoicesError: the study has asked this name with other choices, or cannot tell these apart.
        """
        if self._given is not None:
            return ask(self._given, name, distribution)
        check_storable(name, distribution)
        try:
            return ask(self.trial, name, distribution)
        except ValueError:
            for other in self.study.get_trials(deepcopy=False):
                if name in other.distributions:
                    before = other.distributions[name]
                    check_kept(name, before, distribution, f"in trial {other.number}", way_out=_WAY_OUT)
            raise

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """As Optuna's; the answer is noted in `asked`."""
        return self._note(name, self.answer(name, CategoricalDistribution(choices)))

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """As Optuna's; the answer is noted in `asked`."""
        return int(self._note(name, self.answer(name, IntDistribution(low, high, log=log, step=step))))

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """As Optuna's; the answer is noted in `asked`."""
        return float(self._note(name, self.answer(name, FloatDistribution(low, high, log=log, step=step))))

    def _note(self, name: str, answer: Any) -> Any:
        self.asked[name] = answer
        return answer

    def report(self, value: float | int, step: int | Mapping[str, float]) -> None:
        """Tell how far the estimate is, as Optuna's `report(value, step)`, or as `report(step, metrics)`.

        Of `metrics` the study's first value is reported to Optuna; where the study has several values, which
        Optuna cannot report, all of them are kept in the trial.

        Raises:
            KeyError: the study's value is not among the metrics.
        """
        if not isinstance(step, Mapping):
            super().report(float(value), int(step))
            return
        at, found = int(value), {name: float(number) for name, number in step.items()}
        names = self.study.metric_names
        if len(self.study.directions) > 1:
            record.REPORTS.write(self, {**(record.REPORTS.of(self) or {}), str(at): found})
            return
        if names is None and len(found) != 1:
            raise KeyError(
                f"report({at}, {found}): the study does not say which of these is its value; create it with "
                "optnas.create_study, or report that one alone."
            )
        name = names[0] if names else next(iter(found))
        if name not in found:
            raise KeyError(f"report({at}, {found}): the study's value {name!r} is not among the metrics.")
        super().report(found[name], at)

    def should_prune(self) -> bool:
        """As Optuna's; of several values what a `MultiObjectivePruner` says, and False under any other.

        False for a twin that is trained all the same: only its last value can be compared with the other's.
        """
        if not self.lone and self._is_pruned() and record.AUDIT_OF.of(self) is None:
            self.told_to_prune = True
        return self.told_to_prune

    def _is_pruned(self) -> bool:
        if len(self.study.directions) == 1:
            return super().should_prune()
        pruner = self.study.pruner
        return isinstance(pruner, MultiObjectivePruner) and pruner.prune(self.study, private.stored(self))

    def stop(self, reason: Reason) -> NoReturn:
        """End the trial PRUNED, for this reason."""
        reason.write(self)
        raise optuna.TrialPruned(reason.words)

    def refuse(self, name: str, violation: float, words: str) -> NoReturn:
        """End the trial PRUNED because it breaks the limit `name` by `violation` (above 0, any unit).

        The sampler is told by a constraint, not by a bad value. A trial whose estimate has returned counts
        toward `n_trials` all the same; any other does not.

        Raises:
            optuna.TrialPruned: always.
            ValueError: `violation` is not above 0.
        """
        if not violation > 0:
            raise ValueError(f"refuse({name!r}): violation={violation} must be above 0.")
        # Optuna keeps the first number under a name: that the network was found to keep the limit, perhaps.
        self.set_constraint(name if name not in self.constraints else f"{name}, at last", violation)
        if record.METRICS.of(self) is None:
            record.COUNTS.write(self, False)
        self.stop(Reason(Why.LIMIT, words, cause=name))

    def pause(self, reason: Reason | None = None) -> NoReturn:
        """Put the trial back into the queue: it keeps number, answers, reports and its place in the budget.

        Whoever takes it next goes on where its state was saved. Where `should_prune` has said yes, it waits
        until the pruner lets it go on; where none does that (most pruners, `study.optimize`), it is pruned.

        Args:
            reason: why it is pruned, if so.

        Raises:
            TrialPaused: it pauses; a search takes that for what it says.
            optuna.TrialPruned: it is pruned.
        """
        if self.told_to_prune and not self.can_go_on:
            self.stop(reason or Reason(Why.PRUNED, "pruned"))
        raise TrialPaused(f"Trial {self.number} pauses.")


def _trial_apart() -> optuna.Trial:
    """A trial of a study of its own, in memory, about which Optuna logs nothing."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        return optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask()
    finally:
        optuna.logging.set_verbosity(verbosity)


def _asking(trial: BaseTrial | Trial) -> Callable[[str, BaseDistribution], Any]:
    def pick(name: str, distribution: BaseDistribution) -> Any:
        try:
            return ask(trial, name, distribution)
        except ParamsMismatchError:
            raise
        except ValueError as error:  # what optuna.trial.FixedTrial says of a name that it does not know
            raise ParamsMismatchError(f"Parameter {name!r}: {error}") from error

    return pick
