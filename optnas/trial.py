"""What a space asks and who answers: the one interface between a search space and a search strategy.

A search space is a function of a trial. A trial answers three questions; who answers (a sampler of a
study, a stored trial, a random generator, an enumeration) is no business of the space.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from optnas.answers import Pick, contains, settle
from optnas.errors import ParamsMismatchError

T_co = TypeVar("T_co", covariant=True)

_STORABLE = (str, int, float, bool, type(None))
_CHANGED = "The space has changed since; start a study of another name, or use the old space."


class Trial(Protocol):
    """Answers questions. `optuna.Trial`, `optuna.trial.FrozenTrial` and `Draw` are trials.

    Examples:
        >>> def width(trial: optnas.Trial) -> int:
        ...     return trial.suggest_int("width", 1, 8)
        >>> width(replay({"width": 3})), width(trial) in range(1, 9)
        (3, True)
    """

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """One of `choices` (each None, bool, int, float or str: what Optuna stores)."""

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """An integer in `low..high`, both included."""

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """A number in `low..high`, both included."""


class Space(Protocol[T_co]):
    """A function of a trial, usually one that builds a model.

    Examples:
        >>> def linear(trial: optnas.Trial) -> nn.Module:
        ...     return nn.Linear(4, trial.suggest_int("width", 1, 8))
        >>> make: optnas.trial.Space[nn.Module] = linear
    """

    def __call__(self, trial: Trial, /) -> T_co: ...


def scope(trial: Trial, *path: str | int) -> Trial:
    """The same trial with `path` put before every name: `scope(trial, "block", 0)` asks `block.0.<name>`.

    Scopes nest. Names stay unique, and results read as paths.

    Examples:
        >>> layer = blocks.conv(optnas.scope(trial, "block", 0), width=8)
        >>> list(trial.params)
        ['block.0.kernel']
    """
    return _Scoped(trial, "".join(f"{part}." for part in path))


class _Scoped:
    def __init__(self, trial: Trial, prefix: str) -> None:
        self._trial = trial
        self._prefix = prefix

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return self._trial.suggest_categorical(self._prefix + name, choices)

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        return self._trial.suggest_int(self._prefix + name, low, high, step=step, log=log)

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        return self._trial.suggest_float(self._prefix + name, low, high, step=step, log=log)


class Draw:
    """A trial whose every answer comes from `pick(name, distribution)`.

    `params` and `distributions` hold what was asked so far, in the order of the questions, with answers as a
    storage would give them back; `last` is the name that was asked last, and `refusal` the exception that was
    raised instead of an answer, if any.

    Raises:
        ValueError: one name is asked with two different distributions.
        ParamsMismatchError: `pick` answers with a value that the distribution does not contain.
        TypeError: a choice that Optuna cannot store.

    Examples:
        >>> smallest = optnas.Draw(
        ...     lambda name, distribution: getattr(distribution, "low", None) or distribution.choices[0]
        ... )
        >>> network = space(smallest)
        >>> smallest.params
        {'width': 4, 'depth': 1, 'block.0.kernel': 3}
    """

    def __init__(self, pick: Pick) -> None:
        self._pick = pick
        self.params: dict[str, Any] = {}
        self.distributions: dict[str, BaseDistribution] = {}
        self.last: str | None = None
        self.refusal: Exception | None = None

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        for choice in choices:
            if not isinstance(choice, _STORABLE):
                raise TypeError(
                    f"Parameter {name!r} offers {choice!r}; a choice must be None, bool, int, float or str. "
                    "Offer names and look the object up in a dict."
                )
        return self._ask(name, CategoricalDistribution(tuple(choices)))

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        answer: int = self._ask(name, IntDistribution(low, high, log=log, step=step))
        return answer

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        answer: float = self._ask(name, FloatDistribution(low, high, log=log, step=step))
        return answer

    def _ask(self, name: str, distribution: BaseDistribution) -> Any:
        self.last = name
        if name in self.distributions:
            if self.distributions[name] != distribution:
                raise ValueError(
                    f"Parameter {name!r} is asked twice with different distributions: "
                    f"{self.distributions[name]} and {distribution}. Give the two places different names, "
                    "for example with scope(trial, ...)."
                )
            return self.params[name]
        try:
            value = self._pick(name, distribution)
            if not contains(distribution, value):
                raise ParamsMismatchError(
                    f"Parameter {name!r} is {value!r}, but the space asks for {distribution}. {_CHANGED}"
                )
        except Exception as error:
            self.refusal = error
            raise
        self.params[name] = value = settle(distribution, value)
        self.distributions[name] = distribution
        return value


def ask(trial: Trial, name: str, distribution: BaseDistribution) -> Any:
    """Ask a trial a question that is given as a distribution.

    Examples:
        >>> optnas.trial.ask(replay({"width": 3}), "width", optuna.distributions.IntDistribution(1, 8))
        3
    """
    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(name, distribution.choices)
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    low, high, step, log = distribution.low, distribution.high, distribution.step, distribution.log
    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(name, int(low), int(high), step=int(step or 1), log=log)
    return trial.suggest_float(name, low, high, step=step, log=log)


def name_of(space: Space[Any]) -> str:
    """What a space is called: the user's function by its own name, anything else by that of its class.

    Examples:
        >>> optnas.trial.name_of(space)
        'space'
    """
    name: str = getattr(space, "__name__", type(space).__name__)
    return name


def replay(params: Mapping[str, Any]) -> Draw:
    """A trial that answers from `params`, for example `frozen_trial.params`; like every Draw it checks.

    Optuna's FrozenTrial answers with its stored value even where that is outside the range asked for.

    Raises:
        ParamsMismatchError: a question has no stored answer, or its stored answer is not possible today.

    Examples:
        >>> rebuilt = space(replay(study.best_params))
    """

    def pick(name: str, distribution: BaseDistribution) -> Any:
        if name not in params:
            raise ParamsMismatchError(
                f"The space asks for {name!r}, which is not among the stored parameters "
                f"({', '.join(params) or 'none'}). {_CHANGED}"
            )
        return params[name]

    return Draw(pick)
