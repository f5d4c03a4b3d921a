"""Go on in a space that has grown: a new study takes over the trials that still fit.

Optuna keeps one list of choices for each name of a study, so a further candidate needs a new study.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from optnas import private, record
from optnas.answers import contains, key
from optnas.errors import ChoicesError, OptnasError, ParamsMismatchError, describe_error, is_infrastructure
from optnas.estimation.folders import folder_of
from optnas.objective import Objective
from optnas.search import carry
from optnas.search.study import SamplerFactory, check_values, create_study
from optnas.space.explore import asked_by, walk
from optnas.training.checkpoints import clean
from optnas.trial import Draw


@dataclass(frozen=True)
class Extension:
    """The new study, and what became of the trials of the old one; prints as a summary.

    Attributes:
        study: goes on from what was carried over.
        carried: the number of each trial that was carried, in the old study, to its number in the new one.
        left: the others, with the reason of each.
        unproven: of what was carried, new numbers of trials of which nobody can tell whether the space still
            builds the network that was trained, with the reason.
        without_weights: of what was carried, new numbers of trials whose weights were kept and do not fit the
            network as the space makes it now, with the reason. They can be trained anew.
    """

    study: optuna.Study
    began: str
    carried: Mapping[int, int]
    left: Mapping[int, str]
    unproven: Mapping[int, str] = field(default_factory=dict)
    without_weights: Mapping[int, str] = field(default_factory=dict)

    def __str__(self) -> str:
        n = len(self.carried) + len(self.left)
        lines = [
            f"{len(self.carried)} of {n} trials of study {self.began!r} go on in study "
            f"{self.study.study_name!r}."
        ]
        for title, found in (
            ("Left behind", self.left),
            ("Carried, but nobody can tell whether it is the network that was trained", self.unproven),
            ("Carried without weights", self.without_weights),
        ):
            by_reason: dict[str, list[int]] = {}
            for number, why in found.items():
                by_reason.setdefault(why, []).append(number)
            lines += [f"{title}: trial {_listed(numbers)}: {why}" for why, numbers in by_reason.items()]
        return "\n".join(lines)


def extend(
    study: optuna.Study,
    objective: Objective,
    *,
    study_name: str,
    defaults: Mapping[str, Any] | None = None,
    other_settings: bool = False,
    sampler: BaseSampler | SamplerFactory | None = None,
    pruner: BasePruner | None = None,
) -> Extension:
    """Begin a new study in a space that has grown, with the trials of `study` that still fit.

    A finished trial is carried over, with values, reports, facts, kept weights and where it comes from, if
    the space of `objective` still builds its network from its answers: the fingerprint is computed anew and
    must be the recorded one. Candidates and decisions may have been added or dropped, and ranges changed.
    What is carried counts toward `n_trials` as before: after 200 trials, `optimize(..., n_trials=300)` runs
    100 more. The old study is not changed, and the new one has its seed, so that data are split alike.
    An extension that was interrupted is finished by the same call.

    Args:
        study: in any storage; the new one is in the same.
        objective: with the space as it is now; metrics, directions and limits are those of the study.
        study_name: of the new study.
        defaults: answers to what the space did not ask before, such as `{"block.0.act": "relu"}`, or for
            many names at once `{"block.*.act": "relu"}`: those that rebuild the old networks.
        other_settings: also carry over trials whose data, task or estimator has changed since, because you
            know that they would train to the same values. Such values are not reused for equal networks.
        sampler, pruner: as for `create_study`.

    Raises:
        ChoicesError: a decision has lost an answer and has a new one: it may have been renamed.
        ParamsMismatchError: the objective optimizes something else, or under other limits; there is a study
            of that name; or no trial can be carried over, with the reasons.
        ValueError: `defaults` names what the space does not ask.

    Examples:
        >>> saved = optnas.create_study(
        ...     objective, study_name="narrow", storage="sqlite:///nas.db", seed=0
        ... )
        >>> optnas.optimize(saved, objective, n_trials=2)
        >>> def wider(trial):
        ...     width = trial.suggest_categorical("width", [4, 8, 12, 16, 32])
        ...     layers = [
        ...         blocks.conv(optnas.scope(trial, "block", i), width=width, kernel=(3, 5))
        ...         for i in range(trial.suggest_int("depth", 1, 4))
        ...     ]
        ...     return nn.Sequential(*layers, blocks.head(trial, n_classes=3))
        >>> new = optnas.Objective(wider, score, values={"score": "maximize"}, example=example)
        >>> print(optnas.extend(saved, new, study_name="wider"))
        2 of 2 trials of study 'narrow' go on in study 'wider'.
    """
    check_values(study, objective)
    seed = record.SEED.of(study)
    if seed is None:
        raise ParamsMismatchError(
            f"Study {study.study_name!r} was not begun by optnas.create_study, so that another study "
            "cannot split its data in the same way. Go on with it, or begin a new one."
        )
    found = _Examined(study, objective, dict(defaults or {}), other_settings)
    new = _begin(study, objective, study_name, seed, sampler, pruner)
    numbers = found.numbers
    place = {"study": study.study_name, "identity": carry.place_of(study)}
    trials = [
        carry.renumbered(fitted.trial, numbers, {**place, "number": old, **fitted.about()})
        for old, fitted in found.fitted.items()
    ]
    there = carry.add(new, trials)
    without_weights = _carry_weights(study, objective, new, dict(zip(found.fitted, there, strict=True)))
    if gone := sorted({*carry.deleted(study, numbers), *without_weights}):
        record.DELETED.write(new, gone)
    if runs := carry.retrained(study, numbers):
        record.RETRAINED.write(new, runs)
    if (differ := record.TWINS_DIFFER.of(study)) is not None:
        record.TWINS_DIFFER.write(new, differ)
    left = {str(number): why for number, why in found.left.items()}
    extended = {"study": study.study_name, "provenance": record.PROVENANCE.of(study), "left": left}
    record.EXTENDED.write(new, extended)
    record.COMING.write(new, {})
    unproven = {numbers[old]: fitted.unproven for old, fitted in found.fitted.items() if fitted.unproven}
    return Extension(new, study.study_name, numbers, found.left, unproven, without_weights)


@dataclass(frozen=True)
class _Fitted:
    """A trial with the questions that the space asks now."""

    trial: FrozenTrial
    answers: Mapping[str, Any]
    unproven: str

    def about(self) -> dict[str, Any]:
        before = record.CARRIED.of(self.trial)
        return {
            **({"answers": dict(self.answers)} if self.answers else {}),
            **({"unproven": self.unproven} if self.unproven else {}),
            **({"before": before} if before else {}),
        }


class _Left(OptnasError):
    """Raised with the reason why a trial is not carried over."""


class _Examined:
    """Finds the trials of a study that fit a space, as they are in it, and why others do not."""

    def __init__(
        self, study: optuna.Study, objective: Objective, defaults: dict[str, Any], other_settings: bool
    ) -> None:
        self._objective = objective
        self._defaults = defaults
        self._settings = None if other_settings else objective.settings_hash
        self._differ = record.TWINS_DIFFER.of(study) is not None
        trials = study.get_trials(deepcopy=False)
        self._beyond = {name for trial in trials for name in record.ASKED.of(trial) or {}}
        self._asked = asked_by(objective.ask)
        self._used: set[str] = set()
        self.fitted: dict[int, _Fitted] = {}
        self.left: dict[int, str] = {}
        for trial in trials:
            try:
                self.fitted[trial.number] = self._fit(trial)
            except _Left as why:
                self.left[trial.number] = str(why)
        self._check_choices(trials)
        self._check_defaults()
        while lost := [
            old for old, fitted in self.fitted.items() if self._original(fitted.trial) is not None
        ]:
            for old in lost:
                number = self._original(self.fitted.pop(old).trial)
                self.left[old] = f"it has the value of trial {number}, which was left behind"
        self.left = dict(sorted(self.left.items()))
        self.numbers = {old: new for new, old in enumerate(self.fitted)}
        if not self.fitted:
            reasons = dict.fromkeys(self.left.values())
            raise ParamsMismatchError(
                f"Nothing of study {study.study_name!r} can be carried over; its {len(trials)} trials: "
                + ("; ".join(list(reasons)[:5]) or "there are none")
                + "."
            )

    def _original(self, trial: FrozenTrial) -> int | None:
        """The trial from which a trial took its value, if that one is not carried over."""
        twin_of = record.TWIN_OF.of(trial)
        return twin_of if twin_of is not None and twin_of not in self.fitted else None

    def _fit(self, trial: FrozenTrial) -> _Fitted:
        if not trial.state.is_finished():
            raise _Left("it has not finished")
        if trial.state == TrialState.FAIL:
            raise _Left("it failed")
        settings = record.SETTINGS.of(trial)
        if self._settings is not None and settings not in (None, self._settings):
            raise _Left(
                "its data, task or estimator differ from those of the objective; if you know that they "
                "train to the same values, say other_settings=True"
            )
        answers: dict[str, Any] = {}

        def pick(name: str, distribution: BaseDistribution) -> Any:
            if name in trial.params:
                if contains(distribution, trial.params[name]):
                    return trial.params[name]
                raise _Left(f"the space does not offer {name} = {trial.params[name]!r} any more")
            answers[name] = self._default(name, distribution)
            return answers[name]

        of_space = self._walk(self._objective.space, Draw(pick))
        everything = self._walk(self._objective.ask, Draw(pick))
        params, distributions = dict(everything.params), dict(everything.distributions)
        self._asked |= distributions
        dropped = []
        for name in trial.params.keys() - params.keys():
            if name in self._beyond:  # a plain function asks when it is called
                params[name], distributions[name] = trial.params[name], trial.distributions[name]
            else:
                dropped.append(name)
        unproven = self._unproven(trial, params, of_space, sorted(dropped))
        known = private.trial_id(trial)
        fitted = carry.altered(trial, trial_id=known, params=params, distributions=distributions)
        return _Fitted(fitted, answers, unproven)

    def _walk(self, space: Any, asked: Draw) -> Draw:
        error = walk(space, asked)
        if error is not None:
            raise _Left(f"the space raises for its answers now: {describe_error(error)}")
        return asked

    def _default(self, name: str, distribution: BaseDistribution) -> Any:
        matching = [n for n in self._defaults if n == name or fnmatchcase(name, n)]
        for given in sorted(matching, key=lambda n: n != name)[:1]:
            self._used.add(given)
            value = self._defaults[given]
            if not contains(distribution, value):
                raise ValueError(
                    f"defaults={{{given!r}: {value!r}}}: that is not a possible answer to {name!r}, "
                    f"which asks for {distribution}."
                )
            return value
        raise _Left(
            f"it was not asked {name!r}; name the answer that rebuilds the old networks, as "
            f"defaults={{{name!r}: ...}}"
        )

    def _unproven(
        self, trial: FrozenTrial, params: Mapping[str, Any], of_space: Draw, dropped: Sequence[str]
    ) -> str:
        """Why it cannot be told whether the space builds the trial's network; "" if it certainly does.

        Raises _Left if it builds another network, or if that cannot be told and a decision is gone.
        """
        before = record.FINGERPRINT.of(trial)
        gone = f" without {', '.join(map(repr, dropped))}" if dropped else ""
        if before is None:
            why = "it has no fingerprint"
        elif (now := self._fingerprint(params)) is None:
            why = "its network has no fingerprint now"
        elif now != before:
            raise _Left(
                f"the space builds another network from its answers{gone} now, or another version of optnas "
                "recorded it"
            )
        elif self._differ and of_space.params.keys() != trial.params.keys() - self._beyond:
            why = "equal networks trained to different values in its study"
        else:
            return ""
        if dropped:
            raise _Left(f"{why}, so nobody can tell whether it is the same network{gone}")
        return why

    def _fingerprint(self, params: Mapping[str, Any]) -> str | None:
        try:
            return self._objective.fingerprint_of(params)
        except Exception as error:
            if is_infrastructure(error):
                raise
            raise _Left(f"the space does not build its network now: {describe_error(error)}") from error

    def _check_choices(self, trials: Sequence[FrozenTrial]) -> None:
        before: dict[str, BaseDistribution] = {}
        for trial in trials:
            before = trial.distributions | before
        for name, old in before.items():
            new = self._asked.get(name)
            if isinstance(old, CategoricalDistribution) and isinstance(new, CategoricalDistribution):
                then, now = ({key(choice): choice for choice in d.choices} for d in (old, new))
                lost, added = ([a[k] for k in a.keys() - b.keys()] for a, b in ((then, now), (now, then)))
                if lost and added:
                    raise ChoicesError(
                        f"Parameter {name!r} offers {sorted(map(repr, lost))} no more, and "
                        f"{sorted(map(repr, added))} instead: optnas cannot tell whether a choice was "
                        "renamed or replaced. If it was renamed, keep its old name; if it was "
                        "replaced, extend twice, first without the choices that are gone, then with "
                        "the new ones."
                    )

    def _check_defaults(self) -> None:
        for name in self._defaults.keys() - self._used:
            asked = [n for n in self._asked if n == name or fnmatchcase(n, name)]
            why = "every trial was asked" if asked else "the space does not ask"
            raise ValueError(
                f"defaults names {name!r}, which {why}; it asks {', '.join(sorted(self._asked))}."
            )


def _begin(
    study: optuna.Study,
    objective: Objective,
    study_name: str,
    seed: int,
    sampler: BaseSampler | SamplerFactory | None,
    pruner: BasePruner | None,
) -> optuna.Study:
    """The new study, empty, or with the trials that an interrupted call carried over."""
    storage = private.storage(study)
    if study_name in optuna.get_all_study_names(storage):
        there = optuna.load_study(study_name=study_name, storage=storage)
        if carry.half_made(there) != study.study_name and there.get_trials(deepcopy=False):
            raise ParamsMismatchError(
                f"study_name={study_name!r}: there is a study of that name; choose another one."
            )
        record.COMING.write(there, {})
    options: Any = {"sampler": sampler, "pruner": pruner, "seed": seed}
    new = create_study(objective, study_name=study_name, storage=storage, **options)
    if record.SEED.of(new) != seed:
        raise ParamsMismatchError(f"study_name={study_name!r}: there is a study of that name.")
    record.COMING.write(new, {"from": study.study_name, "how": "extend"})
    return new


def _carry_weights(
    study: optuna.Study, objective: Objective, new: optuna.Study, trials: Mapping[int, FrozenTrial]
) -> dict[int, str]:
    """Copy the kept weights. Returns the numbers of trials whose weights do not fit, with the reasons."""
    estimator = objective.estimator
    if not estimator.keeps_weights:
        return {}
    before = {trial.number: trial for trial in study.get_trials(deepcopy=False)}
    unfit = {}
    for old, trial in trials.items():
        if not estimator.has_trained(study, before[old]):
            continue
        folder = estimator.settle(new)
        carry.copy_files(study, before[old], folder, trial)
        try:
            estimator.trained(objective.build(trial), new, trial)
        except FileNotFoundError:
            continue
        except ParamsMismatchError as error:
            clean(folder_of(folder, trial), keep_weights=False)
            unfit[trial.number] = str(error)
    return unfit


def _listed(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:10]))
    return f"{shown} and {len(numbers) - 10} more" if len(numbers) > 10 else shown
