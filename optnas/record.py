"""What trials and studies record: every name, what stands under it, and what it says.

A name of ours begins with `optnas:`, so that no attribute of the user's is taken for ours, whatever its name
and value. Where something else stands under a name of ours, it is read as if nothing stood there.

People read attributes in dashboards and in their own code. For them each fact (`n_params`, `flops`, ...)
stands a second time under its plain name, and the metrics under `metrics`; optnas reads neither.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from math import isfinite
from time import time
from typing import Any, Generic, Protocol, TypeVar

from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from optnas import private
from optnas.answers import widest
from optnas.limits import Limit

PREFIX = "optnas:"

T = TypeVar("T")


class Holder(Protocol):
    """A trial (stored or running) or a study.

    Examples:
        >>> isinstance(study.best_trial.user_attrs, dict)  # what a holder has
        True
    """

    @property
    def user_attrs(self) -> dict[str, Any]: ...


class Writer(Holder, Protocol):
    """A running trial or a study.

    Examples:
        >>> optnas.record.SEED.write(optuna.create_study(), 7)
    """

    def set_user_attr(self, key: str, value: Any) -> None: ...


@dataclass(frozen=True)
class Key(Generic[T]):
    """A user attribute that optnas writes: its name in the storage, and the type that JSON gives back.

    Examples:
        >>> optnas.record.SEED.of(study)
        0
    """

    name: str
    kind: type[T]

    def of(self, holder: Holder) -> T | None:
        """What a trial or a study recorded; None where there is nothing, or something else."""
        return self.within(holder.user_attrs)

    def within(self, attrs: Mapping[str, Any]) -> T | None:
        """The same, from the attributes themselves."""
        value = attrs.get(self.name)
        return value if type(value) is self.kind else None

    def write(self, holder: Writer, value: T) -> None:
        """Record it; of a trial, before the trial ends."""
        holder.set_user_attr(self.name, value)


@dataclass(frozen=True)
class SystemKey(Generic[T]):
    """A system attribute of a trial, which samplers write and people seldom see.

    Examples:
        >>> optnas.record.PLAN.of(study.best_trial)["how"]
        'drawn'
    """

    name: str
    kind: type[T]

    def of(self, trial: FrozenTrial) -> T | None:
        """What the trial recorded, or None."""
        value = trial.system_attrs.get(self.name)
        return value if self.kind is object or type(value) is self.kind else None

    def write(self, study: Study, trial: FrozenTrial, value: T) -> None:
        """Record it of a trial that runs."""
        private.set_system_attr(study, trial, self.name, value)


# ---- of a trial, by samplers ----

PLAN = SystemKey(f"{PREFIX}plan", dict)
"""What a sampler will answer: `params`, and how it came about (`how`, `redraws`). Other workers see it."""

PADDED = SystemKey(f"{PREFIX}padded", dict)
"""Answers to the questions that the trial was not asked."""

CMA = SystemKey(f"{PREFIX}cma", dict)
"""The point that CMA-ES drew, and of which generation."""

PARENT = SystemKey(f"{PREFIX}parent", int)
"""The number of the trial from which it was bred."""

BORN = SystemKey(f"{PREFIX}born", int)
"""In a population: the number of reports behind its parent and its ancestors when it took over."""

CHANGED = SystemKey(f"{PREFIX}changed", str)
"""The decision in which it differs from its parent."""

START = SystemKey(f"{PREFIX}start", int)
"""The number of the trial at which a local search began."""

TRIED = SystemKey(f"{PREFIX}tried", object)
"""The answer to the changed decision."""

# ---- of a trial, by a search ----

LET_GO_ON = SystemKey(f"{PREFIX}let_go_on", int)
"""How many reports it had made when the pruner let it go on, after it had been paused."""

# ---- of a study, among its system attributes ----

_HEARD = f"{PREFIX}heard"


@dataclass(frozen=True)
class Heard:
    """What a study learned from another study, on other data: answers with normal scores, lower is better.

    It is stored in the study that learned it, so that every worker has it, even when the other study is gone.

    Attributes:
        study: name of the other study.
        params: those of each of its trials, in the order of `scores`.
        distributions: how each name was asked there, as Optuna's JSON.
        objective: what the scores are of, where one of the two studies has several.

    Examples:
        >>> optnas.record.heard(study)
        []
    """

    study: str
    params: list[dict[str, Any]]
    scores: list[float]
    distributions: dict[str, str]
    objective: str = ""

    @classmethod
    def of(
        cls, study: str, trials: Sequence[FrozenTrial], scores: Sequence[float], objective: str = ""
    ) -> Heard:
        """What these trials say; a name whose range changed has the widest."""
        asked: dict[str, BaseDistribution] = {}
        for trial in trials:
            for name, distribution in trial.distributions.items():
                asked[name] = widest(asked.get(name, distribution), distribution)
        kept = {name: distribution_to_json(distribution) for name, distribution in asked.items()}
        return cls(study, [dict(trial.params) for trial in trials], list(scores), kept, objective)


def heard(study: Study) -> list[Heard]:
    """What a study learned from others when it began.

    Examples:
        >>> told = optnas.create_study(objective, learn_from=[study])
        >>> [one.study for one in optnas.record.heard(told)]
        ['space']
    """
    return [Heard(**told) for told in private.study_system_attrs(study).get(_HEARD, [])]


def write_heard(study: Study, told: Sequence[Heard]) -> None:
    """Record what a study learns from others.

    Examples:
        >>> other = optuna.create_study()
        >>> optnas.record.write_heard(other, [optnas.record.Heard("first", [{"width": 4}], [-0.5], {})])
        >>> optnas.record.heard(other)[0].study
        'first'
    """
    private.set_study_system_attr(study, _HEARD, [asdict(one) for one in told])


# ---- of a study, and SEED of a trial too ----

SEED = Key(f"{PREFIX}seed", int)
"""Of a study: where the seeds of its trials come from. Of a trial: what its training was seeded with."""

PROVENANCE = Key(f"{PREFIX}provenance", dict)
"""Versions, hash of the space's source, data, device: see `search.provenance`."""

BUDGET = Key(f"{PREFIX}budget", dict)
"""Of the search that began last: `n_trials`, `n_reports`, `began` and `ends` (seconds); see `spent`."""

FOLDER = Key(f"{PREFIX}folder", str)
"""Where its checkpoints lie: absolute, or relative to its database file (`estimation.folders` reads it)."""

IDENTITY = Key(f"{PREFIX}identity", str)
"""Tells it from every other study, except from its copies: made once, when it first needs a folder."""

DELETED = Key(f"{PREFIX}deleted_checkpoints", list)
"""Numbers of trials whose weights were deleted because others are better."""

RETRAINED = Key(f"{PREFIX}retrained", list)
"""Trainings anew: `{"who": number of a trial or hash, "max_epochs": n or null, "runs": [metrics, ...]}`."""

FACT_KINDS = Key(f"{PREFIX}facts", dict)
"""What the facts of its trials mean: name to `{"title": ..., "unit": ..., "better": ...}`."""

LIMITS = Key(f"{PREFIX}limits", dict)
"""What facts and metrics of its trials may be: name to the least and the most, either of them null."""

TWINS_DIFFER = Key(f"{PREFIX}twins_differ", str)
"""Why values are reused no more: two trials that were taken for one trained to different values."""

UNSCREENED = Key(f"{PREFIX}unscreened", str)
"""Why its trials are screened no more: cheap scores say nothing of whole ones."""

COMING = Key(f"{PREFIX}coming", dict)
"""From which study it is being made, and `how` ("extend" or "copy"); empty once it is whole."""

EXTENDED = Key(f"{PREFIX}extended", dict)
"""The `study` that it extends, its `provenance`, and which trials were left behind: number to why."""

# ---- of a trial ----

CARRIED = Key(f"{PREFIX}carried", dict)
"""Of a trial from a study that was extended: `study` and `number` there, `answers` to what that did not ask,
`unproven` (why nobody can tell that its network is the one that was trained), and `before`: the same, of that
trial."""

ORIGIN = Key(f"{PREFIX}origin", str)
"""Of a trial outside its study (trained anew): the `origin` of the study, which seeds its data."""

ATTEMPTS = Key(f"{PREFIX}attempts", list)
"""Who tried it: `{"host", "pid", "threads", "memory", "started"}` each, and once over `ended` and `how`."""

COUNTS = Key(f"{PREFIX}counts", bool)
"""False until its estimate begins. A finished trial counts toward `n_trials` unless this is False."""

REASON = Key(f"{PREFIX}reason", dict)
"""Why it ended as it did: a `Reason`."""

FACTS = Key(f"{PREFIX}facts", dict)
"""What is known of its network without training it: name to number."""

DETAILS = Key(f"{PREFIX}fact_details", dict)
"""How facts were measured: name to what was recorded of it, with `words` for people."""

MISSING = Key(f"{PREFIX}missing", dict)
"""Facts that could not be had: name to why."""

FINGERPRINT = Key(f"{PREFIX}fingerprint", str)
"""Equal for equal networks, see `facts.fingerprint`."""

SETTINGS = Key(f"{PREFIX}settings", str)
"""A hash of all that the estimate depends on beside the model and the trial's answers."""

ASKED = Key(f"{PREFIX}asked", dict)
"""Answers to what task, data and estimator asked: all that the space did not."""

METRICS = Key(f"{PREFIX}metrics", dict)
"""What the estimate measured: name to number."""

DURATION = Key(f"{PREFIX}duration", float)
"""Seconds that the estimate took."""

TWIN_OF = Key(f"{PREFIX}twin_of", int)
"""The number of the trial whose value it carries."""

AUDIT_OF = Key(f"{PREFIX}audit_of", int)
"""The number of the trial of which it is a twin that was trained all the same, from the same seed."""

INITIAL = Key(f"{PREFIX}initial", str)
"""A hash of the untrained network: its operations in their order, and its tensors, one after the other."""

WEIGHTS = Key(f"{PREFIX}weights", dict)
"""Of a trial that was not trained from scratch: `{"from": "shared"}`, the weights of a supernet, or `{"from":
number of a trial, "how": "exact", "shrink_perturb" or "net2net", "share": of its parameters, in 0..1}`. With
"net2net" also `difference`, the largest between its outputs and those of that trial, at first; where its
function could not be had, "how" is "exact", and `why` says why. In a population also `epochs`: after so many
it goes on with the training of that trial."""

PRETRAINED = Key(f"{PREFIX}pretrained", dict)
"""Of a trial whose training began with given weights: `{"from": their name, "digest", "share": of its
parameters, in 0..1, "loaded", "new", "unused": how many tensors, "new_names", "unused_names": the first}`."""

SCREENED = Key(f"{PREFIX}screened", dict)
"""Of a trial that was estimated cheaply first: `{"name": of the score, "value", "better": "higher" or
"lower", "reports": that the cheap estimate makes at most, "seconds"}`."""

EPOCHS = Key(f"{PREFIX}epochs", int)
"""The epochs that its weights have behind them, those of the trials from which they come included."""

REPORTS = Key(f"{PREFIX}reports", dict)
"""Of a study of several objectives: step to metrics, which Optuna does not keep then."""


def weights_in_words(trial: Holder) -> str:
    """Where its weights come from: `shared`, `of trial 3`, `of resnet18.pth`; "" where it began anew.

    Examples:
        >>> optnas.record.weights_in_words(study.best_trial)
        ''
    """
    source = (WEIGHTS.of(trial) or {}).get("from")
    if isinstance(source, int):
        return f"of trial {source}"
    given = (PRETRAINED.of(trial) or {}).get("from")
    return "shared" if source == "shared" else "" if given is None else f"of {given}"


def pretrained_in_words(told: Mapping[str, Any]) -> str:
    """What `PRETRAINED` holds: whose weights, how much of the network they are, and what did not fit.

    Examples:
        >>> told = {"from": "body.pt", "loaded": 2, "share": 0.5, "new": 1, "new_names": ["head.bias"]}
        >>> print(optnas.record.pretrained_in_words(told))  # doctest: +ELLIPSIS
        weights of body.pt: 2 tensors, 50.0% of its parameters; ...
    """

    def listed(which: str) -> str:
        names, n = told.get(f"{which}_names") or [], told.get(which, 0)
        shown = ", ".join(names[:3]) + (", ..." if n > 3 else "")
        return f"{n} ({shown})" if shown else f"{n}"

    return (
        f"weights of {told.get('from')}: {told.get('loaded')} tensors, {told.get('share', 0.0):.1%} of its "
        f"parameters; parameters that are new: {listed('new')}; weights that were not used: "
        f"{listed('unused')}"
    )


def origin(study: Study) -> int | str:
    """Where the seeds of a study come from: its seed, or its name where it has none.

    Examples:
        >>> optnas.record.origin(study)  # its seed
        0
    """
    seed = SEED.of(study)
    name: str = study.study_name
    return name if seed is None else seed


class End(StrEnum):
    """How a trial ended, finer than Optuna's states.

    Examples:
        >>> optnas.record.end(study.best_trial)
        <End.COMPLETE: 'complete'>
    """

    COMPLETE = "complete"
    TWIN = "twin"
    PRUNED = "pruned"
    INFEASIBLE = "infeasible"
    FAILED = "failed"
    OPEN = "open"


class Why(StrEnum):
    """The kind of a reason.

    Examples:
        >>> [why.value for why in optnas.record.Why]
        ['pruned', 'paused', 'diverged', 'limit', 'refused', 'time', 'stopped', 'error', 'gave up']
    """

    PRUNED = "pruned"  # the pruner stopped it
    PAUSED = "paused"  # the budget ended before the pruner let it go on; more budget may continue it
    DIVERGED = "diverged"  # a loss or a metric is not finite
    LIMIT = "limit"  # it breaks a limit, memory included
    REFUSED = "refused"  # the space or the estimator raised TrialPruned
    TIME = "time"  # its time was over; it has the value of what it reached
    STOPPED = "stopped"  # a callback ended it early; it has the value of what it reached
    ERROR = "error"  # an error in code
    GAVE_UP = "gave up"  # it cost several processes at the same point


@dataclass(frozen=True)
class Reason:
    """Why a trial ended as it did.

    `cause` is what is equal for the same reason in other trials (type and place of an error, the name of a
    limit); `words` say it all.

    Examples:
        >>> optnas.record.REASON.of(study.best_trial) is None
        True
    """

    kind: Why
    words: str
    cause: str = ""

    @classmethod
    def of(cls, trial: Holder) -> Reason | None:
        """What a trial recorded, or None."""
        kept = REASON.of(trial) or {}
        if kept.get("kind") not in set(Why) or not isinstance(kept.get("words"), str):
            return None
        return cls(Why(kept["kind"]), kept["words"], str(kept.get("cause", "")))

    def write(self, trial: Writer) -> None:
        """Record it, before the trial ends."""
        REASON.write(trial, self.as_attr())

    def as_attr(self) -> dict[str, str]:
        """What stands in the trial under `REASON`."""
        return asdict(self)


def why(trial: Holder) -> str:
    """The words of the trial's reason; "" where it recorded none.

    Examples:
        >>> optnas.record.why(study.best_trial)
        ''
    """
    reason = Reason.of(trial)
    return "" if reason is None else reason.words


def end(trial: FrozenTrial) -> End:
    """How a trial ended. A twin carries another trial's value; an infeasible trial breaks a limit.

    Examples:
        >>> optnas.record.end(study.best_trial).value
        'complete'
    """
    if not trial.state.is_finished():
        return End.OPEN
    if trial.state == TrialState.FAIL:
        return End.FAILED
    reason = Reason.of(trial)
    limited = reason is not None and reason.kind is Why.LIMIT
    if limited or broken(trial):
        return End.INFEASIBLE
    if trial.state == TrialState.PRUNED:
        return End.PRUNED
    return End.COMPLETE if TWIN_OF.of(trial) is None else End.TWIN


def counts(trial: FrozenTrial) -> bool:
    """Whether a trial counts toward `n_trials`: it is COMPLETE or PRUNED, and its estimate ran.

    So do trials that others than optnas ran, which say nothing of it, and trained ones that break a limit.
    The storage counts by the same rule (`claim`).

    Examples:
        >>> optnas.search.counts(study.best_trial)
        True
    """
    return trial.state in (TrialState.COMPLETE, TrialState.PRUNED) and COUNTS.of(trial) is not False


def amount(value: object) -> int | float | None:
    """A finite number as it is; None for anything else.

    Examples:
        >>> optnas.record.amount(3), optnas.record.amount(float("nan"))
        (3, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if isfinite(value) else None


def _numbers(found: Mapping[str, Any] | None) -> dict[str, int | float]:
    kept = {name: amount(value) for name, value in (found or {}).items()}
    return {name: value for name, value in kept.items() if value is not None}


def facts(trial: Holder) -> dict[str, int | float]:
    """What is known of the trial's network without training it, by name; finite numbers only.

    Examples:
        >>> optnas.record.facts(study.best_trial)
        {'n_params': 59, 'flops': 4632}
    """
    return _numbers(FACTS.of(trial))


def metrics(trial: Holder) -> dict[str, int | float]:
    """What the estimate measured, by name; finite numbers only.

    Examples:
        >>> optnas.record.metrics(study.best_trial)
        {'score': 0.99705}
    """
    return _numbers(METRICS.of(trial))


def write_facts(trial: Writer, found: Mapping[str, int | float]) -> None:
    """Record facts, and show each under its plain name where the user has no attribute of that name.

    Examples:
        >>> optnas.record.write_facts(trial, {"n_params": 15})
        >>> trial.user_attrs["n_params"]
        15
    """
    FACTS.write(trial, dict(found))
    theirs = trial.user_attrs.keys()
    for name, value in found.items():
        if name not in theirs:
            trial.set_user_attr(name, value)


def write_metrics(trial: Writer, found: Mapping[str, float]) -> None:
    """Record metrics, and show them as `metrics` where the user has no attribute of that name.

    Examples:
        >>> optnas.record.write_metrics(trial, {"val_acc": 0.9})
        >>> optnas.record.metrics(trial)
        {'val_acc': 0.9}
    """
    METRICS.write(trial, dict(found))
    if "metrics" not in trial.user_attrs:
        trial.set_user_attr("metrics", dict(found))


def attempts(trial: Holder) -> list[dict[str, Any]]:
    """Who worked on the trial since when, one after the other.

    Examples:
        >>> len(optnas.record.attempts(study.best_trial))
        1
    """
    kept = ATTEMPTS.of(trial) or []
    return [a for a in kept if isinstance(a, dict) and amount(a.get("started")) is not None]


def n_counted(trials: Sequence[FrozenTrial]) -> int:
    """How many of the trials count toward `n_trials`.

    Examples:
        >>> optnas.record.n_counted(study.trials)
        16
    """
    return sum(map(counts, trials))


def retrained(study: Holder, who: int | str, max_epochs: int | None) -> list[dict[str, float]]:
    """The metrics of each time that a network was trained anew, for `max_epochs` epochs (None: as in the
    search).

    `who`: the number of a trial, or the hash of the source of a network designed by hand.

    Examples:
        >>> optnas.record.retrained(study, study.best_trial.number, None)
        []
    """
    for kept in all_retrained(study):
        if (kept["who"], kept["max_epochs"]) == (who, max_epochs):
            return list(kept["runs"])
    return []


def all_retrained(study: Holder) -> list[dict[str, Any]]:
    """`{"who", "max_epochs", "runs"}` of every network that was trained anew: trials first, then by hand.

    Examples:
        >>> optnas.record.all_retrained(study)
        []
    """
    found = [kept for kept in RETRAINED.of(study) or [] if isinstance(kept, dict)]
    whole = [kept for kept in found if kept.keys() >= {"who", "max_epochs", "runs"}]
    return sorted(whole, key=lambda kept: (isinstance(kept["who"], str), str(kept["who"]).zfill(16)))


def write_retrained(
    study: Writer, who: int | str, max_epochs: int | None, runs: Sequence[Mapping[str, float]]
) -> None:
    """Record the metrics of a network that was trained anew, in place of those recorded for it before.

    Examples:
        >>> other = optuna.create_study()
        >>> optnas.record.write_retrained(other, 3, None, [{"val_acc": 0.9}])
        >>> optnas.record.retrained(other, 3, None)
        [{'val_acc': 0.9}]
    """
    others = [k for k in all_retrained(study) if (k["who"], k["max_epochs"]) != (who, max_epochs)]
    this = {"who": who, "max_epochs": max_epochs, "runs": [dict(run) for run in runs]}
    RETRAINED.write(study, [*others, this])


def write_budget(study: Writer, n_trials: int | None, n_reports: int | None, seconds: float | None) -> None:
    """Record what a search may spend: it begins now.

    Examples:
        >>> optnas.record.write_budget(optuna.create_study(), n_trials=50, n_reports=None, seconds=3600)
    """
    now = time()
    ends = None if seconds is None else now + seconds
    BUDGET.write(study, {"n_trials": n_trials, "n_reports": n_reports, "began": now, "ends": ends})


def spent(study: Holder, trials: Sequence[FrozenTrial]) -> float:
    """The share of its budget that a search has spent or is spending, of whichever budget ends first; 0.0:
    not known.

    `trials`: all of the study.

    Examples:
        >>> optnas.record.spent(study, study.trials[:3])
        0.2
    """
    budget = _numbers(BUDGET.of(study))
    begun = sum((not t.state.is_finished() and bool(t.params)) or counts(t) for t in trials)
    began, ends = budget.get("began", 0), budget.get("ends", 0)
    shares = (
        (begun, budget.get("n_trials", 0)),
        (n_reported(trials), budget.get("n_reports", 0)),
        (time() - began, ends - began),
    )
    return max(done / given if given > 0 else 0.0 for done, given in shares)


def n_reported(trials: Iterable[FrozenTrial]) -> int:
    """How many reports all trials have made: with one an epoch, what they cost in epochs.

    Those of cheap estimates (`SCREENED`) count.

    Examples:
        >>> optnas.record.n_reported(study.trials)
        0
    """
    return sum(n_reports(trial) + _n_cheap(trial) for trial in trials)


def _n_cheap(trial: Holder) -> int:
    return int(amount((SCREENED.of(trial) or {}).get("reports")) or 0)


def n_reports(trial: FrozenTrial) -> int:
    """How many reports a trial has made, of one objective or of several.

    Examples:
        >>> optnas.record.n_reports(study.best_trial)
        0
    """
    return len(REPORTS.of(trial) or trial.intermediate_values)


def number_in_words(number: int | float) -> str:
    """`1,234,567` of a count; five digits of anything else.

    Examples:
        >>> optnas.record.number_in_words(1234567), optnas.record.number_in_words(0.123456789)
        ('1,234,567', '0.12346')
    """
    return f"{number:,}" if isinstance(number, int) else f"{number:.5g}"


@dataclass(frozen=True)
class FactKind:
    """What a fact is to its reader: its title and unit; `better` is "lower", "higher" or "".

    Examples:
        >>> optnas.record.fact_kinds(study)["n_params"].title
        'parameters'
    """

    name: str
    title: str
    unit: str = ""
    better: str = ""

    @property
    def label(self) -> str:
        """The head of a column or an axis: `parameters`, `FLOPs per sample`, `energy (mJ)`."""
        if self._rate or not self.unit:
            return f"{self.title} {self.unit}".rstrip()
        return f"{self.title} ({self.unit})"

    def words(self, number: int | float) -> str:
        """A number of this kind: `1,000 FLOPs per sample`, `energy 12.5 mJ`."""
        shown = number_in_words(number)
        if isinstance(number, int) and (self._rate or not self.unit):
            return f"{shown} {self.label}"
        return f"{self.title} {shown} {self.unit}".rstrip()

    @property
    def _rate(self) -> bool:
        return self.unit.startswith("per ")


_USUAL = {
    "n_params": FactKind("n_params", "parameters", "", "lower"),
    "flops": FactKind("flops", "FLOPs", "per sample", "lower"),
}


def fact_kinds(study: Holder, trials: Iterable[Holder] = ()) -> dict[str, FactKind]:
    """What the facts of a study's trials mean, in the order in which they are shown.

    A study that says nothing (it began without `create_study`) has the usual two. Facts that `trials` have
    and the study says nothing of stand last, under their names.

    Examples:
        >>> list(optnas.record.fact_kinds(study))
        ['n_params', 'flops']
    """
    found = {}
    for name, about in (FACT_KINDS.of(study) or {}).items():
        if isinstance(about, dict) and all(isinstance(value, str) for value in about.values()):
            known = {key: about[key] for key in ("title", "unit", "better") if key in about}
            found[name] = FactKind(name, **{"title": name, **known})
    found = found or dict(_USUAL)
    for name in (name for trial in trials for name in facts(trial)):
        found.setdefault(name, FactKind(name, name))
    return found


def facts_in_words(study: Holder, trial: Holder) -> list[str]:
    """What is known of the trial's network, each with its title and unit, in the order of `fact_kinds`.

    Examples:
        >>> optnas.record.facts_in_words(study, study.best_trial)
        ['59 parameters', '4,632 FLOPs per sample']
    """
    found, how = facts(trial), DETAILS.of(trial) or {}

    def said(kind: FactKind) -> str:
        details = how.get(kind.name)
        words = details.get("words") if isinstance(details, dict) else None
        return kind.words(found[kind.name]) + (f" ({words})" if words and isinstance(words, str) else "")

    return [said(kind) for name, kind in fact_kinds(study, [trial]).items() if name in found]


def limits(study: Holder) -> list[Limit]:
    """What facts and metrics of the study's trials may be.

    Examples:
        >>> limited = optnas.Objective(
        ...     space, score, values={"score": "maximize"}, example=example, limits={"flops": 1e6}
        ... )
        >>> optnas.record.limits(optnas.create_study(limited))
        [Limit(name='flops', low=None, high=1000000.0)]
    """
    return [Limit.of(name, bound) for name, bound in (LIMITS.of(study) or {}).items()]


def limits_as_kept(limits: Iterable[Limit]) -> dict[str, list[float | None]]:
    """Limits in the form that is stored as `LIMITS`.

    Examples:
        >>> optnas.record.limits_as_kept(optnas.record.limits(study))
        {}
    """
    return {limit.name: [limit.low, limit.high] for limit in limits}


def broken(trial: FrozenTrial) -> dict[str, float]:
    """The names of the constraints that a trial breaks, and by how much.

    Examples:
        >>> optnas.record.broken(study.best_trial)
        {}
    """
    return {name: violation for name, violation in trial.constraints.items() if violation > 0}


def write_fact_kinds(study: Writer, kinds: Mapping[str, FactKind]) -> None:
    """Record what the facts of the study's trials mean.

    Examples:
        >>> kinds = {"ms": optnas.record.FactKind("ms", "latency", "ms", "lower")}
        >>> optnas.record.write_fact_kinds(optuna.create_study(), kinds)
    """
    about = {name: {"title": k.title, "unit": k.unit, "better": k.better} for name, k in kinds.items()}
    FACT_KINDS.write(study, about)


Target = Callable[[FrozenTrial], float]
"""A number of a COMPLETE trial: `lambda t: t.values[0]`, `lambda t: record.facts(t)["n_params"]`."""
