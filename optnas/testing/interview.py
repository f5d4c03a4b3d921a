"""A trial that listens to what a space asks."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NoReturn, TypeAlias

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    check_distribution_compatibility,
)

from optnas.errors import ConformanceError
from optnas.trial import Draw

Question: TypeAlias = tuple[str, BaseDistribution]
Known: TypeAlias = dict[str, tuple[BaseDistribution, Mapping[str, Any]]]


MAX_NAME = 512
"""Characters of a parameter's name that fit into Optuna's database schema."""


class Interview:
    """A trial that notes what it is asked, and refuses what a study would refuse or confuse."""

    def __init__(self, draw: Draw, known: Known, shared_names: Collection[str]) -> None:
        self._draw = draw
        self._known = known
        self._shared_names = shared_names
        self.params = draw.params
        self.asked: list[Question] = []

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        self._check_choices(name, choices)
        self._note(name, CategoricalDistribution(tuple(choices)))
        return self._draw.suggest_categorical(name, choices)

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        self._note(name, IntDistribution(low, high, log=log, step=step))
        return self._draw.suggest_int(name, low, high, step=step, log=log)

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        self._note(name, FloatDistribution(low, high, log=log, step=step))
        return self._draw.suggest_float(name, low, high, step=step, log=log)

    def _check_choices(self, name: str, choices: Sequence[Any]) -> None:
        for i, choice in enumerate(choices):
            if not (choice is None or isinstance(choice, bool | int | float | str)) or choice != choice:
                self._refuse(
                    "choices",
                    f"{name!r} offers {choice!r}, which Optuna cannot store. "
                    "Offer names and look the object up in a dict.",
                )
            if choice in choices[:i]:
                self._refuse(
                    "choices",
                    f"{name!r} offers {choice!r} and another choice that Python calls equal, so that Optuna "
                    "takes one for the other. Offer strings.",
                )

    def _note(self, name: str, distribution: BaseDistribution) -> None:
        if len(name) > MAX_NAME:
            self._refuse("names", f"{name[:40]!r}... has more than {MAX_NAME} characters; nest less deeply.")
        before = dict(self.asked).get(name)
        if before is not None and before != distribution:
            self._refuse(
                "names",
                f"{name!r} is asked twice in one build, as {before} and as {distribution}. "
                "Give the two places different names, for example with scope(trial, ...).",
            )
        if before is not None and name not in self._shared_names:
            self._refuse(
                "shared names",
                f"{name!r} is asked twice in one build, so both places get one answer. For two decisions use "
                "scope(trial, ...); for one, ask once and pass the answer on, "
                f"or say check_space(..., shared_names=[{name!r}]).",
            )
        known, params = self._known.setdefault(name, (distribution, self.params))
        try:
            check_distribution_compatibility(known, distribution)
        except ValueError as error:
            self._refuse(
                "same choices",
                f"{name!r} is asked as {distribution}, but with the params {dict(params)} it was asked as "
                f"{known}: {error} Put what the choices depend on into the name.",
            )
        self.asked.append((name, distribution))

    def _refuse(self, check: str, message: str) -> NoReturn:
        raise ConformanceError(check, message, self.params)
