"""One trial, from its questions to its value: seed, build, facts, twin, estimate, record."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import socket
import time
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from types import MappingProxyType
from typing import Any
from weakref import WeakValueDictionary

import optuna
import torch
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial
from torch import Tensor, nn

from optnas import private, record, twins
from optnas.answers import ParamsKey, params_key
from optnas.errors import (
    ParamsMismatchError,
    SpaceError,
    SpaceExhausted,
    TrialPaused,
    cause_of,
    describe_error,
    failing_layer,
    is_infrastructure,
)
from optnas.estimation.estimator import Direction, Estimator, as_estimator
from optnas.estimation.glances import Glances
from optnas.estimation.run import Run
from optnas.estimation.settings import contents
from optnas.estimation.shared import is_shared, shared_weights_refused
from optnas.facts import Sketch, materialize, sketch, untraced
from optnas.facts.cost import count_params, other_numbers
from optnas.facts.fact import N_PARAMS, USUAL, Fact
from optnas.facts.memory import memory_of_device
from optnas.limits import Bound, Limit, Within, in_words
from optnas.record import Reason, Why
from optnas.seeds import derive_seed, same_threads, seed_everything, seeded
from optnas.space.explore import on_meta
from optnas.storage.open import storage_of
from optnas.trial import Draw, Space, Trial, replay

MOST_FORESEEN = 20_000
"""Of so many architectures it is remembered what was computed."""

ANOTHER_NETWORK = (
    "The space builds another network from the same answers, so no winner could be built again. Let it ask "
    "the trial (trial.suggest_int, ...) for what it draws at random."
)

KEPT_PARTS = (
    "The space puts the same layer into several networks ({}), so a trial would begin with what others have "
    "trained. Make all layers inside the function of the space; give weights that all begin with to "
    "Training(pretrained=...); or freeze the layer (requires_grad_(False), and eval())."
)

NAMED_LIKE_A_FACT = (
    "facts and the metrics of the estimate both have {!r}, so values and limits could mean either. Return "
    "the metric under another name, or leave it out: the fact is recorded anyway."
)

logger = logging.getLogger(__name__)


class Objective:
    """What a study optimizes: `objective(trial)` builds `space(trial)`, scores it and returns the value.

    It works with `optnas.optimize` and with plain `study.optimize`. Before training it records what is known
    of the model without training it (parameters, FLOPs, fingerprint, facts of your own). When the study
    already has the same network with the same answers to everything else, it takes over that trial's value
    (a twin) instead of training again; the first twins of a study are trained all the same, and where the
    values differ no value of the study is reused any more.

    Args:
        space: a function of a trial that returns a model.
        estimator: scores a model: `optnas.Training`, another `optnas.Estimator`, or a plain function
            `(model, trial) -> metrics`.
        values: the metric, or fact (`n_params`, `flops`), to optimize and its direction, such as
            `{"val_acc": "maximize"}`, or several: `{"val_acc": "maximize", "flops": "minimize"}`. By default
            the estimator says.
        example: inputs of the model: a shape with the batch dimension, a tensor, a tuple of arguments, a dict
            of keyword arguments, or `optnas.Arguments(...)` with all that the model is called with: batches
            of graphs, lists of images, flags. By default the estimator's `example(trial)`, of its data.
        facts: what else to measure of every network before it is trained; `n_params` and `flops` always are.
        limits: the most that facts and metrics may be, such as `{"flops": 2e6, "latency": 5}`, or the least
            and the most, `{"val_acc": (0.9, None)}`. A network that breaks the limit of a fact is not trained
            and does not count toward `n_trials`; the sampler learns of it through a constraint. With
            `create_study` and `optimize`, samplers propose no network that breaks a limit which can be
            computed on the meta device. A trial that breaks the limit of a metric, which is known only after
            training, is COMPLETE with a constraint and cannot be the best.
        reuse_twins: set it False to train a repeated architecture again (training noise is information).

    Raises:
        TypeError: `space` is a model, not a function that builds one; or the estimator cannot be called.
        ValueError: `values` names no metric or no direction, no example is known, two facts have the same
            name, or a limit is not a number or a pair of numbers.

    Examples:
        >>> limited = optnas.Objective(
        ...     space,
        ...     training,
        ...     values={"val_acc": "maximize", "flops": "minimize"},
        ...     limits={"n_params": 10_000},
        ... )
    """

    def __init__(
        self,
        space: Space[nn.Module],
        estimator: Estimator | Callable[..., Mapping[str, float]],
        *,
        values: Mapping[str, Direction] | None = None,
        example: Any = None,
        facts: Sequence[Fact] = (),
        limits: Mapping[str, Bound] | None = None,
        reuse_twins: bool = True,
    ) -> None:
        if isinstance(space, nn.Module):
            raise TypeError("space is a model; pass the function of a trial that builds it.")
        self.estimator = as_estimator(estimator)
        values = values or self.estimator.values
        if not values or not set(values.values()) <= {"maximize", "minimize"}:
            raise ValueError(
                f"values={values!r} must name a metric and its direction, for example "
                "values={'val_acc': 'maximize'}, or several."
            )
        for name, direction in values.items():
            if self.estimator.values.get(name, direction) != direction:
                raise ValueError(
                    f"values={dict(values)!r} would {direction} {name!r}, and the estimator "
                    f"({self.estimator.name}) would {self.estimator.values[name]} it. Say the same in both."
                )
        if example is None and not self.estimator.has_example:
            raise ValueError(
                "The estimator does not say what its inputs look like; pass example=, a shape with the batch "
                "dimension such as (2, 3, 32, 32), a tensor, or optnas.Arguments(...)."
            )
        names = [fact.name for fact in (*USUAL, *facts)]
        if len(set(names)) < len(names):
            raise ValueError(f"facts: {', '.join(names)} share a name; give each its own.")
        self.space = space
        self.values = MappingProxyType(dict(values))
        self.example = example
        self.facts = tuple(facts)
        self.limits = tuple(Limit.of(name, bound) for name, bound in (limits or {}).items())
        self.reuse_twins = reuse_twins
        self._foreseen: dict[ParamsKey, tuple[Sketch, dict[str, Any]]] = {}
        self._trained: WeakValueDictionary[int, Tensor] = WeakValueDictionary()
        self._glances = self._looks()

    def __getstate__(self) -> dict[str, Any]:
        """Another process looks at architectures by itself."""
        return {**self.__dict__, "_foreseen": {}, "_glances": None, "_trained": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """See `__getstate__`."""
        self.__dict__.update(state)
        self._trained = WeakValueDictionary()
        self._glances = self._looks()

    def _looks(self) -> Glances:
        wanted = {*self.values, *(limit.name for limit in self.limits)}
        facts = [f for f in (*USUAL, *self.facts) if f.needs == "meta" and f.name in wanted]
        return Glances(self.space, self.example_for, facts, self.foresee)

    @property
    def directions(self) -> list[Direction]:
        """One direction per optimized value, as `optuna.create_study` takes them."""
        return list(self.values.values())

    def __call__(self, trial: optuna.Trial) -> float | tuple[float, ...]:
        """The value of one trial; of several objectives its values, in the order of `values`.

        Raises:
            optuna.TrialPruned: stopped early, diverged, or out of memory.
            SpaceError: the model does not run.
            ParamsMismatchError: the trial's stored answers do not fit the space.
        """
        run = Run.of(trial)
        run.rebuild = self.build
        with same_threads(record.attempts(run)):
            self._begin(run)
            try:
                values = self._values(run)
                return values[0] if len(values) == 1 else values
            except optuna.TrialPruned as pruned:
                if Reason.of(run) is None:
                    kind = Why.PRUNED if run.told_to_prune else Why.REFUSED
                    Reason(kind, str(pruned) or "pruned").write(run)
                raise
            except TrialPaused:
                raise
            except Exception as error:
                # A finished trial is immutable: the reason is written while the trial still runs.
                if not is_infrastructure(error):  # that ends an attempt, not the trial
                    Reason(Why.ERROR, describe_error(error), cause=cause_of(error)).write(run)
                raise

    def build(self, trial: Any) -> nn.Module:
        """The untrained model of any trial: a stored one, a running one, or `optnas.trial.replay(params)`.

        Shapes that depend on the input are settled by one forward pass on the example.

        Raises:
            SpaceError: the model cannot be built or does not run on the example.
            ParamsMismatchError: stored answers that do not fit the space.
        """
        if isinstance(trial, FrozenTrial):
            trial = replay(trial.params)
        return self._build(trial, self.example_for(trial))

    def example_for(self, trial: Any) -> Any:
        """Inputs that the trial's model takes: `example`, or what the estimator says."""
        return self.example if self.example is not None else self.estimator.example(trial)

    def ask(self, trial: Trial) -> None:
        """Ask everything that tells two trials apart, in the order of a real trial, without estimating.

        The model is built on the meta device by those who walk spaces.
        """
        self.example_for(trial)
        self.estimator.ask(self.space(trial), trial)

    # ---- what can be known before a trial ----

    def foresee(self, params: Mapping[str, Any]) -> Mapping[str, float]:
        """The facts of a network that need no real one (`Fact.needs` is "meta"), from its complete params.

        Nothing where it cannot be built; what was computed once is remembered.
        """
        try:
            return self._foresee(params)[0].facts
        except Exception as error:
            if is_infrastructure(error):
                raise
            return {}

    def costs(self, params: Mapping[str, Any]) -> Mapping[str, float]:
        """Of what `foresee` has, the values to optimize and what has a limit, in a fraction of its time.

        They are of a `glance`. Of the first architectures, and of every trial, a sketch computes them as
        well; once the two differ, that is said, and all costs are those of sketches.
        """
        return self._glances(params)

    def seen(self, trial: Any) -> nn.Module:
        """The space, as samplers call it: what it builds is looked at, so that its `costs` are known."""
        model = self.space(trial)
        self._glances.see(model, trial)
        return model

    @property
    def within(self) -> Within | None:
        """Which params keep the limits on facts that `costs` has; None where there are no such limits."""
        computable = {fact.name for fact in (*USUAL, *self.facts) if fact.needs == "meta"}
        limits = [limit for limit in self.limits if limit.name in computable]
        return Within(self.costs, limits) if limits else None

    def fingerprint_of(self, params: Mapping[str, Any]) -> str | None:
        """That of the network which the space builds from complete params; None where it has none.

        Raises:
            ParamsMismatchError: the params do not fit the space.
            Exception: whatever the space raises.
        """
        return self._foresee(params)[0].fingerprint

    def misnamed(self, metrics: Collection[str]) -> list[str]:
        """What is wrong with the names of an estimate's metrics, a sentence each.

        A value or a limit that is neither a fact nor one of them; a metric that has the name of a fact.
        """
        facts = [fact.name for fact in (*USUAL, *self.facts)]
        known = {*facts, *metrics}
        named = [("values", name) for name in self.values]
        named += [("limits", limit.name) for limit in self.limits]
        unknown = [
            f"{argument} names {name!r}, which is neither a fact nor a metric of the estimate; there are "
            f"{', '.join(sorted(known))}."
            for argument, name in named
            if name not in known
        ]
        return unknown + [NAMED_LIKE_A_FACT.format(name) for name in facts if name in metrics]

    @property
    def settings_hash(self) -> str:
        """What every trial records under `record.SETTINGS`."""
        settings = self.estimator.settings
        return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:16]

    def _foresee(self, params: Mapping[str, Any]) -> tuple[Sketch, dict[str, Any]]:
        """The sketch of the network of `params`, and the answers among them that the space asks for."""
        key = params_key(params)
        if key not in self._foreseen:
            example, of_space = self.example_for(replay(params)), replay(params)
            found = self._sketch(lambda: self.space(of_space), example, (*USUAL, *self.facts))
            if len(self._foreseen) >= MOST_FORESEEN:
                self._foreseen.clear()
            self._foreseen[key] = found, of_space.params
        return self._foreseen[key]

    # ---- what two trials share ----

    def identity(self, params: Mapping[str, Any]) -> Hashable:
        """What two trials share exactly if they are twins, from their complete params (`ask`).

        The fingerprint of the network, or the answers that shape it where it has none or comes with weights
        that count, with all answers that were asked beyond the space.
        """
        found, of_space = self._foresee(params)
        beyond_space = replay(params)
        self.example_for(beyond_space)
        on_meta(lambda: self.estimator.ask(self.space(replay(params)), beyond_space))
        fingerprint = None if self.estimator.scores_given_weights else found.fingerprint
        return _identity(fingerprint, of_space, beyond_space.params)

    def recorded_identity(self, trial: FrozenTrial) -> Hashable | None:
        """`identity` of a finished trial, from what it recorded; None where it did not get so far.

        It holds what a plain function asked, too, which `ask` does not know: such a trial forbids no other.
        """
        asked = record.ASKED.of(trial)
        if asked is None:
            return None
        of_space = {name: value for name, value in trial.params.items() if name not in asked}
        fingerprint = None if self.estimator.scores_given_weights else record.FINGERPRINT.of(trial)
        return _identity(fingerprint, of_space, asked)

    def trusts_twins(self, study: optuna.Study) -> bool:
        """Whether equal networks of the study are known to train to equal values.

        Until `AUDITS` twins were trained all the same they are not, nor once two values differed.
        """
        return self.reuse_twins and twins.trusted(study)

    # ---- one trial ----

    def _build(self, trial: Any, example: Any) -> nn.Module:
        model = None
        try:
            built = self.space(trial)
            if not isinstance(built, nn.Module):
                raise TypeError(
                    f"the space returned {type(built).__name__}, not a torch.nn.Module; does it end with "
                    "`return model`?"
                )
            model = built
            return materialize(model, example)
        except (optuna.TrialPruned, ParamsMismatchError):
            raise
        except Exception as error:
            if is_infrastructure(error):
                raise
            layer = f" in {where}" if (where := failing_layer(model, error)) else ""
            hint = "" if model is None else other_numbers(model, example)
            raise SpaceError(
                f"{describe_error(error)}{layer}{hint and '; '}{hint} [parameters: {dict(trial.params)}]"
            ) from error

    def _begin(self, run: Run) -> None:
        if run.seed is None:  # a later attempt at the same trial inherits it
            record.SEED.write(run, derive_seed(record.origin(run.study), run.number))
        if record.COUNTS.of(run) is None:
            record.COUNTS.write(run, False)
        attempt = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "threads": torch.get_num_threads(),  # results are equal bit for bit only under equal numbers
            "memory": memory_of_device(),
            "started": time.time(),
        }
        record.ATTEMPTS.write(run, [*record.attempts(run), attempt])

    def _values(self, run: Run) -> tuple[float, ...]:
        example = self.example_for(run)

        def answer(name: str, distribution: BaseDistribution) -> Any:
            with untraced():  # a sampler that computes with torch is no part of the network
                return run.answer(name, distribution)

        answers = Draw(answer)
        facts_of = (*USUAL, *self.facts)
        known = self._sketch(lambda: self.space(answers), example, facts_of, ordered=True)
        facts, missing = dict(known.facts), dict(known.missing)
        self._glances.check(run.params, facts)
        if known.fingerprint is not None:
            record.FINGERPRINT.write(run, known.fingerprint)
        record.SETTINGS.write(run, self.settings_hash)
        self._record(run, facts, missing)
        self._keep_limits(run, facts)

        def build() -> nn.Module:
            seed_everything(_seed(run))
            model = self._build(answers, example)
            trains = self.estimator.keeps_weights
            own = its_own(model, self._trained if trains else {})
            self._trained.update(own if trains else {})
            record.INITIAL.write(run, _digest(model, known.sequence))
            if is_shared(model):
                if not self.estimator.scores_given_weights:
                    raise SpaceError(shared_weights_refused(self.estimator.name))
                record.WEIGHTS.write(run, {"from": "shared"})
            return model

        # Where weights count, who is a twin shows only when they are there.
        given = build() if self.estimator.scores_given_weights else None
        twin = self._find_twin(run)
        if twin is not None and not twins.begin_audit(run, twin):
            return self._take_over(run, twin)

        model = given or build()
        self._check_params(run, model, answers, example, facts)
        self._measure(run, model, example, facts, missing)
        self._keep_limits(run, facts)
        self._know_limits(run, facts, missing)
        metrics = self._estimate(run, model, counts=twin is None)
        values = self._pick_values(run, {**facts, **metrics})
        self._judge_limits(run, {**facts, **metrics})
        if twin is not None:
            twins.end_audit(run, twin, values)
        return values

    def _estimate(self, run: Run, model: nn.Module, counts: bool) -> dict[str, float]:
        record.COUNTS.write(run, counts)
        # Write the facts now, so that they are kept if the training crashes.
        storage_of(run.study).flush(private.trial_id(run))
        started = time.perf_counter()
        estimate: Any = self.estimator(model, run)
        if not isinstance(estimate, Mapping):
            known = {fact.name for fact in (*USUAL, *self.facts)}
            wanted = ", ".join(f"{name!r}: value" for name in self.values if name not in known)
            raise TypeError(
                f"the estimator returned {type(estimate).__name__}, not metrics by name; return {{{wanted}}}."
            )
        metrics = {k: float(v) for k, v in estimate.items()}
        for fact in (*USUAL, *self.facts):
            if fact.name in metrics:
                raise ValueError(NAMED_LIKE_A_FACT.format(fact.name))
        record.DURATION.write(run, time.perf_counter() - started)
        record.write_metrics(run, metrics)
        record.ASKED.write(run, dict(run.asked))
        return metrics

    def _sketch(
        self, build: Callable[[], nn.Module], example: Any, facts: Sequence[Fact], *, ordered: bool = False
    ) -> Sketch:
        """Fingerprint, facts that need no real model, and why others are missing."""
        try:
            return sketch(build, example, facts, ordered=ordered)
        except (optuna.TrialPruned, ParamsMismatchError, SpaceExhausted):
            raise
        except Exception as error:
            if is_infrastructure(error):
                raise
            # It may still build and run on a real device, which is tried next and judges.
            return Sketch(missing={"sketch": describe_error(error)})

    def _measure(
        self, run: Run, model: nn.Module, example: Any, facts: dict[str, float], missing: dict[str, str]
    ) -> None:
        """Add to `facts` those that need the initialized model."""
        wanted = [fact for fact in self.facts if fact.needs != "meta"]
        details = {}
        for fact in wanted:
            try:
                found = fact.measured(model, example)
            except Exception as error:
                if is_infrastructure(error):
                    raise
                missing[fact.name] = describe_error(error)
                continue
            facts[fact.name] = found.value
            if found.words or found.details:
                details[fact.name] = {"words": found.words, **found.details}
        if details:
            record.DETAILS.write(run, details)
        if wanted:
            self._record(run, facts, missing)

    def _check_params(
        self, run: Run, model: nn.Module, answers: Trial, example: Any, facts: dict[str, float]
    ) -> None:
        """Correct the number of parameters where the sketch, which knows no device, had another one.

        Raises:
            SpaceError: the space builds networks of different sizes from the same answers.
        """
        if N_PARAMS.name not in facts or facts[N_PARAMS.name] == (n_params := count_params(model)):
            return
        again = set()
        for i in range(3):
            with seeded(derive_seed("again", i)):
                again.add(count_params(self._build(answers, example)))
        if again != {n_params}:
            sizes = ", ".join(map(in_words, sorted({n_params, *again})))
            raise SpaceError(f"{ANOTHER_NETWORK} It built networks of {sizes} parameters.")
        facts[N_PARAMS.name] = n_params
        record.write_facts(run, facts)

    def _record(self, run: Run, facts: Mapping[str, float], missing: Mapping[str, str]) -> None:
        record.write_facts(run, facts)
        if missing:
            record.MISSING.write(run, dict(missing))

    def _keep_limits(self, run: Run, facts: Mapping[str, float]) -> None:
        """End the trial where a fact breaks its limit."""
        for limit in self._broken(run, facts):
            run.refuse(limit.name, _violation(limit, facts), _over(limit, facts))

    def _know_limits(self, run: Run, facts: Mapping[str, float], missing: Mapping[str, str]) -> None:
        """End the trial where a fact that has a limit could not be had: nobody can tell."""
        names = {fact.name for fact in (*USUAL, *self.facts)}
        for limit in self.limits:
            if limit.name in names and limit.name not in facts:
                why = missing.get(limit.name) or missing.get("sketch", "nothing was measured")
                run.refuse(limit.name, 1.0, f"it is unknown whether {limit}: {why}")

    def _judge_limits(self, run: Run, measured: Mapping[str, float]) -> None:
        """Say of a network that has its value which limits it breaks.

        Raises:
            ValueError: a limit is on what is neither a fact nor a metric.
        """
        if absent := [limit.name for limit in self.limits if limit.name not in measured]:
            raise ValueError(
                f"limits names {absent[0]!r}, which is neither a fact nor a metric; there are "
                f"{', '.join(measured)}."
            )
        if broken := self._broken(run, measured):
            for limit in broken:
                run.set_constraint(limit.name, _violation(limit, measured))
            words = "; ".join(_over(limit, measured) for limit in broken)
            Reason(Why.LIMIT, words, cause=broken[0].name).write(run)

    def _broken(self, run: Run, measured: Mapping[str, float]) -> list[Limit]:
        """The limits that what was measured breaks. Of those that it keeps, the sampler is told.

        What an earlier attempt has found to be kept is not judged again.
        """
        judged = run.constraints
        due = [limit for limit in self.limits if limit.name in measured and limit.name not in judged]
        kept = [limit for limit in due if _violation(limit, measured) <= 0]
        for limit in kept:
            run.set_constraint(limit.name, _violation(limit, measured))
        return [limit for limit in due if limit not in kept]

    def _pick_values(self, run: Run, measured: Mapping[str, Any]) -> tuple[float, ...]:
        for name in self.values:
            if name not in measured:
                numbers = [k for k, v in measured.items() if isinstance(v, int | float)]
                why = f" ({words})" if (words := (record.MISSING.of(run) or {}).get(name)) else ""
                raise ValueError(
                    f"values names {name!r}, which the estimate did not return{why}; it returned "
                    f"{', '.join(numbers)}."
                )
            if not math.isfinite(value := float(measured[name])):
                run.stop(Reason(Why.DIVERGED, f"diverged: {name} is {value}"))
        return tuple(float(measured[name]) for name in self.values)

    def _find_twin(self, run: Run) -> FrozenTrial | None:
        if not self.reuse_twins:
            return None
        return twins.find_twin(run, self.values, weights_count=self.estimator.scores_given_weights)

    def _take_over(self, run: Run, twin: FrozenTrial) -> tuple[float, ...]:
        record.write_facts(run, {**record.facts(twin), **record.facts(run)})
        record.write_metrics(run, record.METRICS.of(twin) or {})
        record.ASKED.write(run, record.ASKED.of(twin) or {})
        record.TWIN_OF.write(run, twin.number)
        record.COUNTS.write(run, False)  # whatever an interrupted attempt had begun
        self._judge_limits(run, {**record.facts(run), **record.metrics(run)})
        return tuple(twin.values)


def its_own(model: nn.Module, others: Mapping[int, Tensor]) -> dict[int, Tensor]:
    """What a training changes of a new network, by `id`; nothing of one with shared weights.

    Args:
        others: Of networks that were built before.

    Raises:
        SpaceError: one of them is among the others, or is left from a network on the meta device.
    """
    if is_shared(model):
        return {}
    changed: dict[str, Tensor] = {name: p for name, p in model.named_parameters() if p.requires_grad}
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._NormBase) and module.training:
            mean = module.running_mean  # every batch changes it, though no gradient does
            changed |= {} if mean is None else {f"{name}.running_mean": mean}
    for name, tensor in changed.items():
        if tensor.is_meta or others.get(id(tensor)) is tensor:
            raise SpaceError(KEPT_PARTS.format(name))
    return {id(tensor): tensor for tensor in changed.values()}


def _violation(limit: Limit, measured: Mapping[str, float]) -> float:
    """As a constraint: a number that is none breaks every limit."""
    violation = limit.violation(measured[limit.name])
    return violation if math.isfinite(violation) else 1.0


def _over(limit: Limit, measured: Mapping[str, float]) -> str:
    return f"over a limit: {limit.name} is {in_words(measured[limit.name])}, and {limit}"


def _identity(fingerprint: str | None, of_space: Mapping[str, Any], beyond: Mapping[str, Any]) -> Hashable:
    return fingerprint or params_key(of_space), params_key(beyond)


def _seed(trial: record.Holder) -> int:
    seed = record.SEED.of(trial)
    assert seed is not None, "every trial of an objective has one"
    return seed


def _digest(model: nn.Module, sequence: str | None) -> str:
    """Equal where a training does the same from the same weights."""
    digest = hashlib.sha256(str(sequence).encode())
    for tensor in (*model.parameters(), *model.buffers()):
        digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        for part in contents(tensor):
            digest.update(part)
    return digest.hexdigest()[:16]
