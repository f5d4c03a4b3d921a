"""One trial, from its questions to its value: seed, build, sketch, twin, estimate, record."""

from __future__ import annotations

import hashlib
import json
import math
import os
import socket
import time
from collections.abc import Callable, Hashable, Mapping
from types import MappingProxyType
from typing import Any, Literal, Protocol

import optuna
import torch
from optuna.trial import FrozenTrial, TrialState
from torch import nn

from optnas.errors import ParamsMismatchError, SpaceError, describe_error, failing_layer, is_infrastructure
from optnas.facts import materialize, sketch
from optnas.seeds import derive_seed, same_threads, seed_everything
from optnas.storage.open import storage_of
from optnas.trial import Draw, Space, Trial, ask, replay

Direction = Literal["maximize", "minimize"]


class Estimator(Protocol):
    """Scores a model: `estimate(model, trial) -> metrics`, where a metric is a name and a number.

    It may report to the trial, ask the trial for what it needs (a learning rate), and raise
    `optuna.TrialPruned`. Where it has them, these attributes are used too: `values` (the metric to optimize
    and its direction), `example(trial)` (a small batch of inputs), `settings` (anything JSON can hold that
    identifies how it scores: results are reused between trials only under equal settings), `max_epochs` (how
    many values it reports at most: the default pruner waits for an eighth of them), and `ask(model, trial)`,
    which asks the trial what the call would ask, and no more.
    """

    def __call__(self, model: nn.Module, trial: optuna.Trial, /) -> Mapping[str, float]: ...


class Objective:
    """What a study optimizes: `objective(trial)` builds `space(trial)`, scores it and returns the value.

    It works with `optnas.optimize` and with plain `study.optimize`. Before training it records what is known
    of the model without training it (parameters, FLOPs, fingerprint) as user attributes of the trial, and
    when the study already has the same network with the same answers to everything else, takes over that
    trial's value (`twin_of`) instead of training again.

    Args:
        space: a function of a trial that returns a model.
        estimator: scores a model, for example `optnas.Training`.
        values: the one metric, or fact (`n_params`, `flops`), to optimize and its direction, such as
            `{"val_acc": "maximize"}`. By default the estimator says.
        example: inputs of the model: a shape with the batch dimension, a tensor, a tuple of tensors, or a
            dict of keyword tensors. By default the estimator's `example(trial)`, a batch of its data.
        reuse_twins: set it False to train a repeated architecture again (training noise is information).

    Raises:
        TypeError: `space` is a model, not a function that builds one.
        ValueError: `values` is not one metric with a direction, or there is no example to be had.
    """

    def __init__(
        self,
        space: Space[nn.Module],
        estimator: Estimator,
        *,
        values: Mapping[str, Direction] | None = None,
        example: Any = None,
        reuse_twins: bool = True,
    ) -> None:
        if isinstance(space, nn.Module):
            raise TypeError("space is a model; pass the function of a trial that builds it.")
        values = values or getattr(estimator, "values", None)
        if not values or len(values) != 1 or not set(values.values()) <= {"maximize", "minimize"}:
            raise ValueError(
                f"values={values!r} must name one metric and its direction, "
                "for example values={'val_acc': 'maximize'}."
            )
        if example is None and not hasattr(estimator, "example"):
            raise ValueError(
                "The estimator does not say what its inputs look like; pass example=, a shape with the batch "
                "dimension such as (2, 3, 32, 32), a tensor, a tuple or a dict of tensors."
            )
        self.space = space
        self.estimator = estimator
        self.values = MappingProxyType(dict(values))
        self.example = example
        self.reuse_twins = reuse_twins

    @property
    def directions(self) -> list[Direction]:
        """One direction per optimized value, as `optuna.create_study` takes them."""
        return list(self.values.values())

    def __call__(self, trial: optuna.Trial) -> float:
        """The value of one trial.

        Raises:
            optuna.TrialPruned: stopped early, diverged, or out of memory.
            SpaceError: the model does not run.
            ParamsMismatchError: the trial's stored answers do not fit the space.
        """
        with same_threads(trial.user_attrs.get("attempts", [])):
            self._begin(trial)
            try:
                return self._value(trial)
            except optuna.TrialPruned as pruned:
                if "reason" not in trial.user_attrs:
                    trial.set_user_attr("reason", str(pruned) or "pruned")
                raise
            except Exception as error:
                # A finished trial is immutable: the reason is written while the trial still runs.
                if not is_infrastructure(error):  # that ends an attempt, not the trial
                    trial.set_user_attr("reason", describe_error(error))
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
        return self.example if self.example is not None else self.estimator.example(trial)  # type: ignore[attr-defined]  # checked in __init__

    def ask(self, trial: Trial) -> None:
        """Ask everything that tells two trials apart, in the order of a real trial, without estimating.

        An estimator with `ask(model, trial)` says what it asks; any other is taken to ask nothing. The model
        is built on the meta device by those who walk spaces.
        """
        self.example_for(trial)
        model = self.space(trial)
        if hasattr(self.estimator, "ask"):
            self.estimator.ask(model, trial)

    def identity(self, params: Mapping[str, Any]) -> Hashable:
        """What two trials share exactly if they are twins, from their complete params (`ask`).

        The fingerprint of the network, or the answers that shape it where it has none, with all answers that
        were asked beyond the space.
        """
        beyond_space = _Recorder(replay(params))
        example = self.example_for(beyond_space)
        of_space = replay(params)
        fingerprint = self._facts(lambda: self.space(of_space), example).get("fingerprint")
        if hasattr(self.estimator, "ask"):
            with torch.device("meta"):
                self.estimator.ask(self.space(replay(params)), beyond_space)
        return _identity(fingerprint, of_space.params, beyond_space.answers)

    def recorded_identity(self, trial: FrozenTrial) -> Hashable | None:
        """`identity` of a finished trial, from what it recorded; None where it did not get so far.

        It holds what an estimator without `ask` asked, too: such a trial forbids no other.
        """
        if "asked" not in trial.user_attrs:
            return None
        asked = trial.user_attrs["asked"]
        of_space = {name: value for name, value in trial.params.items() if name not in asked}
        return _identity(trial.user_attrs.get("fingerprint"), of_space, asked)

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
            raise SpaceError(f"{describe_error(error)}{layer} [parameters: {dict(trial.params)}]") from error

    def _begin(self, trial: optuna.Trial) -> None:
        if "seed" not in trial.user_attrs:  # a later attempt at the same trial inherits it
            study_seed = trial.study.user_attrs.get("seed", trial.study.study_name)
            trial.set_user_attr("seed", derive_seed(study_seed, trial.number))
        attempt = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "threads": torch.get_num_threads(),  # results are equal bit for bit only under equal numbers
            "started": time.time(),
        }
        trial.set_user_attr("attempts", [*trial.user_attrs.get("attempts", []), attempt])

    def _value(self, trial: optuna.Trial) -> float:
        beyond_space: Any = _Recorder(trial)
        example = self.example_for(beyond_space)
        answers = Draw(lambda name, distribution: ask(trial, name, distribution))
        facts = self._facts(lambda: self.space(answers), example)
        facts["settings"] = self._settings_hash()
        for name, fact in facts.items():
            trial.set_user_attr(name, fact)

        twin = self._find_twin(trial, facts) if self.reuse_twins else None
        if twin is not None:
            for name in ("metrics", "asked"):
                trial.set_user_attr(name, twin.user_attrs[name])
            trial.set_user_attr("twin_of", twin.number)
            return float(twin.values[0])

        seed_everything(trial.user_attrs["seed"])
        model = self._build(answers, example)
        storage_of(trial.study).flush(trial._trial_id)  # what is known survives a crash of the training
        started = time.perf_counter()
        estimate: Any = self.estimator(model, beyond_space)
        if not isinstance(estimate, Mapping):
            name = next(iter(self.values))
            raise TypeError(
                f"the estimator returned {type(estimate).__name__}, not metrics by name; "
                f"return {{{name!r}: value}}."
            )
        metrics = {k: float(v) for k, v in estimate.items()}
        trial.set_user_attr("duration", time.perf_counter() - started)
        trial.set_user_attr("metrics", metrics)
        trial.set_user_attr("asked", beyond_space.answers)
        return self._pick_value({**facts, **metrics})

    def _facts(self, build: Callable[[], nn.Module], example: Any) -> dict[str, Any]:
        try:
            facts = sketch(build, example)
        except (optuna.TrialPruned, ParamsMismatchError):
            raise
        except Exception as error:
            if is_infrastructure(error):
                raise
            # It may still build and run on a real device, which is tried next and judges.
            return {"missing": {"sketch": describe_error(error)}}
        known = {"n_params": facts.n_params, "flops": facts.flops, "fingerprint": facts.fingerprint}
        known = {name: fact for name, fact in known.items() if fact is not None}
        return {**known, "missing": facts.missing} if facts.missing else known

    def _settings_hash(self) -> str:
        settings = getattr(self.estimator, "settings", None)
        return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:16]

    def _find_twin(self, trial: optuna.Trial, facts: Mapping[str, Any]) -> FrozenTrial | None:
        """A COMPLETE trial of an equal network whose estimate got the answers that this one gets."""
        if "fingerprint" not in facts:
            return None
        metric = next(iter(self.values))
        for other in trial.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
            attrs = other.user_attrs
            if (
                "twin_of" not in attrs
                and "asked" in attrs  # or somebody told it while it ran
                and attrs.get("fingerprint") == facts["fingerprint"]
                and attrs.get("settings") == facts["settings"]
                and metric in {**attrs, **attrs.get("metrics", {})}
                # The estimate of an equal network starts with the same question as the other's did, and goes
                # on with the same as long as the answers agree: asking here commits to nothing new.
                and all(
                    ask(trial, name, other.distributions[name]) == answer
                    for name, answer in attrs["asked"].items()
                )
            ):
                return other
        return None

    def _pick_value(self, measured: Mapping[str, Any]) -> float:
        name = next(iter(self.values))
        if name not in measured:
            numbers = [k for k, v in measured.items() if isinstance(v, int | float)]
            raise ValueError(
                f"values names {name!r}, which the estimate did not return; it returned {', '.join(numbers)}."
            )
        value = float(measured[name])
        if not math.isfinite(value):
            raise optuna.TrialPruned(f"diverged: {name} is {value}")
        return value


def _identity(fingerprint: str | None, of_space: Mapping[str, Any], beyond: Mapping[str, Any]) -> Hashable:
    return fingerprint or tuple(sorted(of_space.items())), tuple(sorted(beyond.items()))


class _Recorder:
    """Passes everything on to a trial and keeps the answers to what was asked through it."""

    def __init__(self, trial: Any) -> None:
        self._trial = trial
        self.answers: dict[str, Any] = {}

    def __getattr__(self, attribute: str) -> Any:
        value = getattr(self._trial, attribute)
        if not attribute.startswith("suggest_"):
            return value

        def suggest(name: str, *args: Any, **kwargs: Any) -> Any:
            self.answers[name] = value(name, *args, **kwargs)
            return self.answers[name]

        return suggest
