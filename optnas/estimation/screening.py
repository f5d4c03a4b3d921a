"""A cheap estimate of many networks, and the whole one of few."""

from __future__ import annotations

import copy
import itertools
import logging
import math
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from torch import nn

from optnas import private, record
from optnas.estimation.around import Around
from optnas.estimation.estimator import Direction, Estimator, Preview, as_estimator
from optnas.estimation.run import Run
from optnas.facts import materialize
from optnas.facts.fact import Fact
from optnas.record import Reason, Why
from optnas.seeds import random_state, set_random_state
from optnas.surrogate.screened import worth
from optnas.trial import Draw, Space, Trial

_FIRST_PART = 1000  # files of trainings from this one on are of cheap estimates, which keep no weights

logger = logging.getLogger(__name__)


class Screening(Around):
    """Scores every network cheaply, and only those in full that `ScreeningPruner` chooses then.

        Screening(training, by=training.with_max_epochs(3))

    A trial begins with the cheap estimate and pauses. One of ten goes on later, in place (`share`): the one
    of which a surrogate expects most, from all cheap scores and all whole ones. The others end PRUNED, and
    count toward `n_trials` all the same. The value of a trial is that of the whole estimate, which begins
    anew, as if nothing had been before it. Under any other pruner, each trial gets both estimates.

    How well the cheap scores rank the networks that were estimated in full is measured all along
    (`optnas.surrogate.screened.worth`), and stands in the report and at the end of `optnas run`. When it is
    near zero, the study says so, and trials that begin later are estimated in full at once. That is dearer:
    give a budget in time or in `n_trainings`, not only in trials.

    Args:
        estimator: the whole estimate.
        by: the cheap one. An estimator: fewer epochs, less data, smaller images; its metric is the one that
            it optimizes by itself, or else that of `estimator`, and its steps count for a budget in
            `n_trainings` as those of `estimator` do. Or a `Fact` that says which way is better, such as
            `optnas.facts.zero_cost(optnas.facts.naswot)`.
        share: of the networks that is estimated in full, above 0 and below 1.
        space: builds the network for the cheap estimate from the same answers, such as a narrower one; by
            default it is a copy of the one that is estimated in full.

    Raises:
        ValueError: `share` is out of its range; a fact does not say which way is better; `space` is
            given, and no estimator has an example of its inputs; or (in a trial) the study has several
            objectives.

    Examples:
        >>> screening = optnas.Screening(training, by=optnas.facts.zero_cost(optnas.facts.naswot))
        >>> screened = optnas.Objective(space, screening)
        >>> tried = optnas.create_study(screened, seed=0)
        >>> type(tried.pruner).__name__
        'ScreeningPruner'
    """

    def __init__(
        self,
        estimator: Estimator | Callable[..., Mapping[str, float]],
        by: Estimator | Fact | Callable[..., Mapping[str, float]],
        *,
        share: float = 0.1,
        space: Space[nn.Module] | None = None,
    ) -> None:
        if not 0 < share < 1:
            raise ValueError(f"Screening(share={share}): give a share above 0 and below 1.")
        self._share = float(share)
        self.estimator = as_estimator(estimator)
        self.by = _Measuring(by, self.estimator) if isinstance(by, Fact) else as_estimator(by)
        self.space = space
        if space is not None and not (self.by.has_example or self.estimator.has_example):
            raise ValueError(
                "Screening(space=...): neither estimator says what its inputs look like, so that the network "
                "for the cheap estimate cannot be built. Give an estimator that has an example, or leave "
                "space out."
            )

    def __call__(self, model: nn.Module, run: Run, /) -> Mapping[str, float]:
        """The metrics of the whole estimate.

        Raises:
            TrialPaused, optuna.TrialPruned: the pruner does not choose it now; or as the estimators.
        """
        if run.lone:
            return self.estimator(model, run)
        if record.SCREENED.of(run) is not None:
            self.by.ask(model, run)  # what an earlier attempt was asked is asked of this one, too
        elif record.UNSCREENED.of(run.study) is None:
            self._screen(model, run)
        if record.SCREENED.of(run) is not None and not private.stored(run).intermediate_values:
            self._wait(run)
        metrics = self.estimator(model, run)
        self._judge(run, metrics)
        return metrics

    def _screen(self, model: nn.Module, run: Run) -> None:
        """Estimate it cheaply. What comes after begins as if this had not been."""
        if len(run.study.directions) > 1:
            raise ValueError(
                f"Screening chooses by one value, and study {run.study.study_name!r} has "
                f"{len(run.study.directions)}: limit the others (Objective(..., limits={{'flops': 2e6}})) "
                "or leave Screening out."
            )
        name, direction = self._value_of(run.study)
        state, started = random_state(), time.perf_counter()
        cheaply = _Cheaply.within(run)
        found = self.by(self._network(model, run), cheaply)
        if name not in found:
            raise ValueError(
                f"Screening goes by {name!r}, which its cheap estimate ({self.by.name}) did not return; it "
                f"returned {', '.join(found)}."
            )
        value = float(found[name])
        if not math.isfinite(value):
            run.stop(Reason(Why.DIVERGED, f"diverged: {name} is {value} in the cheap estimate"))
        about = {
            "name": name,
            "value": value,
            "better": "higher" if direction == "maximize" else "lower",
            "reports": self.by.max_reports,
            "seconds": time.perf_counter() - started,
        }
        record.SCREENED.write(run, about)
        self.by.finish(run.study, private.stored(run))
        set_random_state(state)

    def _network(self, model: nn.Module, run: Run) -> nn.Module:
        if self.space is None:
            return copy.deepcopy(model)
        example = (self.by if self.by.has_example else self.estimator).example(run)
        return materialize(self.space(Draw(run.answer)), example)

    def _value_of(self, study: optuna.Study) -> tuple[str, Direction]:
        """The metric of the cheap estimate, and its direction."""
        for known in (self.by.values, self.estimator.values):
            if known:
                return next(iter(known.items()))
        names = study.metric_names or ["value"]
        return names[0], "maximize" if study.direction == StudyDirection.MAXIMIZE else "minimize"

    def _wait(self, run: Run) -> None:
        if run.should_prune():
            about = record.SCREENED.of(run) or {}
            words = f"screened: {about.get('name')} is {about.get('value', math.nan):.6g}, others come first"
            run.pause(Reason(Why.PRUNED, words))

    def _judge(self, run: Run, metrics: Mapping[str, float]) -> None:
        """End the screening of a study where cheap scores say nothing of whole ones."""
        study = run.study
        names = study.metric_names or list(metrics)[:1]
        if len(names) > 1 or names[0] not in metrics or record.UNSCREENED.of(study) is not None:
            return
        mine = copy.copy(private.stored(run))
        mine.state, mine.values = TrialState.COMPLETE, [float(metrics[names[0]])]
        others = [trial for trial in study.get_trials(deepcopy=False) if trial.number != run.number]
        sign = -1.0 if study.direction == StudyDirection.MAXIMIZE else 1.0
        found = worth([*others, mine], sign)
        if found is not None and found.is_none:
            words = f"Screening ends, and trials are estimated in full from now on: {found.words}"
            record.UNSCREENED.write(study, words)
            logger.warning("%s", words)

    def ask(self, model: nn.Module, trial: Trial) -> None:
        """What the cheap estimate asks, then what the whole one does."""
        self.by.ask(model, trial)
        self.estimator.ask(model, trial)

    def rehearse(self, model: nn.Module, run: Run) -> Collection[str] | None:
        """Those of both; the metrics are those of the whole estimate."""
        self.by.rehearse(self._network(model, run), run)
        return self.estimator.rehearse(model, run)

    def preview(self, model: nn.Module, run: Run) -> Preview:
        """That of the cheap estimate, which most trials end with, and what is wrong with the whole one."""
        cheap, whole = self.by.preview(self._network(model, run), run), self.estimator.preview(model, run)
        return Preview((*cheap.errors, *whole.errors), cheap.seconds, whole.batch_size, whole.metrics)

    @property
    def share_in_full(self) -> float:
        """As given."""
        return self._share

    @property
    def resumes(self) -> bool:
        """At least with the whole estimate, after the cheap one."""
        return True

    def finish(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Those of both."""
        self.by.finish(study, trial)
        self.estimator.finish(study, trial)

    def with_max_epochs(self, max_epochs: int) -> Estimator:
        """The whole estimate with another number of epochs."""
        return self.estimator.with_max_epochs(max_epochs)


class _Cheaply(Run):
    """The trial as its cheap estimate sees it: it reports nothing, is not pruned, and keeps no weights."""

    @classmethod
    def within(cls, run: Run) -> _Cheaply:
        """The same trial: what is asked or written here is of the trial."""
        cheaply = cls.__new__(cls)
        cheaply.__dict__ = {**run.__dict__, "in_passing": True, "_parts": itertools.count(_FIRST_PART)}
        return cheaply

    def report(self, value: float | int, step: int | Mapping[str, float]) -> None:
        """Nothing: a cheap score is no report of the whole estimate."""

    def should_prune(self) -> bool:
        """No: afterwards is asked."""
        return False


class _Measuring(Estimator):
    """A fact as an estimator; what the trial knows already is not measured again."""

    resumes, is_noisy = False, False

    def __init__(self, fact: Fact, beside: Estimator) -> None:
        if not fact.better:
            raise ValueError(
                f"Screening(by=Fact({fact.name!r})): the fact does not say which way is better; give it "
                "better='higher' or better='lower'."
            )
        self.fact, self._beside = fact, beside

    def __call__(self, model: nn.Module, run: Run, /) -> dict[str, float]:
        known = record.facts(run).get(self.fact.name)
        return {self.fact.name: self.fact.of(model, self._example(run)) if known is None else known}

    def _example(self, run: Run) -> Any:
        if not self._beside.has_example:
            raise ValueError(
                f"Screening cannot measure {self.fact.name!r}: the estimator ({self._beside.name}) does not "
                "say what its inputs look like. Give the fact to Objective(facts=[...]) too, which has an "
                "example."
            )
        return self._beside.example(run)

    @property
    def values(self) -> Mapping[str, Direction]:
        return {self.fact.name: "maximize" if self.fact.better == "higher" else "minimize"}

    @property
    def name(self) -> str:
        return self.fact.title or self.fact.name
