"""A decision of a block: one value is fixed, several are asked of the trial."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, TypeVar, cast

from torch import nn

from optnas.trial import Trial

T = TypeVar("T")
OneOf: TypeAlias = T | tuple[T, ...] | list[T] | range | Mapping[str, T]
"""One value, or several for a trial to choose from; see `decide`.

Examples:
    >>> blocks.decide(trial, "width", 32), blocks.decide(trial, "depth", range(2, 6)) in range(2, 6)
    (32, True)
"""

Activation: TypeAlias = Callable[[], nn.Module]
"""A function without arguments that makes an activation, such as the class `nn.ReLU`.

Examples:
    >>> layer = blocks.conv(trial, width=8, kernel=3, activation={"relu": nn.ReLU, "elu": nn.ELU})
    >>> trial.params["activation"] in ("relu", "elu")
    True
"""

ACTIVATIONS: Mapping[str, Activation] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "hardswish": nn.Hardswish,
    "tanh": nn.Tanh,
}
"""The usual activations by name, for an argument `activation=ACTIVATIONS`.

Examples:
    >>> layer = blocks.conv(trial, width=8, kernel=3, activation=blocks.ACTIVATIONS)
    >>> list(trial.params)
    ['activation']
"""


def decide(trial: Trial, name: str, value: OneOf[T]) -> T:
    """The value of a decision: asked of the trial under `name` where there are several, else `value` itself.

    - `32`: fixed, nothing is asked
    - `(16, 32, 64)`, a tuple or list: one of them, without an order
    - `range(16, 65, 16)`: an integer on that grid, in order; the end is excluded, as ever in Python
    - `{"relu": nn.ReLU, "silu": nn.SiLU}`: one of the dict's values, stored under its key

    Raises:
        ValueError: there is nothing to choose from.
        TypeError: a tuple or list holds what a study cannot store (use a dict).

    Examples:
        >>> blocks.decide(trial, "act", {"relu": nn.ReLU, "silu": nn.SiLU}) in (nn.ReLU, nn.SiLU)
        True
    """
    options: Any = value
    if not isinstance(options, tuple | list | range | Mapping):
        return cast(T, options)
    if not options:
        raise ValueError(f"{name}={options!r} offers nothing to choose from; give one value, or several.")
    if isinstance(options, Mapping):
        return cast(T, options[trial.suggest_categorical(name, list(options))])
    if isinstance(options, range):
        return cast(T, trial.suggest_int(name, min(options), max(options), step=abs(options.step)))
    for choice in options:
        if not (choice is None or isinstance(choice, bool | int | float | str)):
            raise TypeError(
                f"{name} offers {choice!r}, which a study cannot store. "
                f"Give a dict of names: {name}={{'some_name': {choice!r}}}."
            )
    return cast(T, trial.suggest_categorical(name, options))
