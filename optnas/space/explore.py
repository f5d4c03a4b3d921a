"""Walk a space without a study, by calling it again with other answers.

Everything here works on any function of a trial, conditional ones included; what the function returns is
ignored. Modules are built on the meta device, which costs neither memory nor initialization; a space that
needs numbers to build (`tensor.item()`) is built on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np
import torch
from optuna.distributions import BaseDistribution
from torch import Tensor
from torch.nn import init
from torch.utils._device import DeviceContext

from optnas.answers import contains, draw, is_continuous, keep_or_draw, options, others
from optnas.trial import Draw, Space, replay

T = TypeVar("T")

_FILLS = {Tensor.zero_, Tensor.fill_, Tensor.uniform_, Tensor.normal_, Tensor.copy_}
_FILLS |= {init.uniform_, init.normal_, init.constant_, init.kaiming_uniform_}  # those that ask the context


def on_meta(build: Callable[[], T]) -> T:
    """What `build()` returns, built on the meta device, or on the CPU where the code needs numbers.

    On the CPU it may call `build` a second time; global random states of torch stay as they are.
    """
    try:
        with _Blueprint("meta"):
            return build()
    except Exception as error:
        if not is_of_meta(error):
            raise
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        return build()


def asked_by(space: Space[Any], n_samples: int = 20) -> dict[str, BaseDistribution]:
    """What random architectures are asked, by name: enough to see which names a space knows, not proof."""
    asked: dict[str, BaseDistribution] = {}
    for seed in range(n_samples):
        draw = Draw(keep_or_draw({}, np.random.default_rng(seed)))
        walk(space, draw)
        asked |= draw.distributions
    return asked


class _Blueprint(DeviceContext):
    """`torch.device("meta")`, which does not fill what has no values: half of the time of a build."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in _FILLS:
            filled = args[0] if args else kwargs["tensor"]
            if filled.is_meta:
                return filled
        return super().__torch_function__(func, types, args, kwargs)  # type: ignore[no-untyped-call]  # torch's


def is_of_meta(error: BaseException) -> bool:
    """Whether torch, perhaps through the user's own words, complains of tensors that have no numbers."""
    seen = []
    at: BaseException | None = error
    while at is not None and at not in seen:
        if "meta" in str(at).lower():
            return True
        seen.append(at)
        at = at.__cause__ or at.__context__
    return False


def walk(space: Space[Any], asked: Draw) -> Exception | None:
    """Let a space put its questions to `asked`; what it builds is dropped.

    A space that raises has asked what it asked; its error is returned. What `asked` raises goes on upward.
    """
    try:
        on_meta(lambda: space(asked))
    except Exception as error:
        if asked.refusal is not None:
            raise
        return error
    return None


def _ask(space: Space[Any], asked: Draw) -> Draw:
    """`walk`, but an error of the space goes on upward, too."""
    error = walk(space, asked)
    if error is not None:
        raise error
    return asked


def sample(space: Space[Any], rng: np.random.Generator | int) -> dict[str, Any]:
    """Draw one architecture, each decision uniformly (in the logarithm where the decision says so).

    `rng` is a generator or a seed. Returns its params, in the order asked.

    Examples:
        >>> optnas.sample(space, 0)
        {'width': 16, 'depth': 2, 'block.0.kernel': 5, 'block.1.kernel': 3}
    """
    rng = np.random.default_rng(rng)
    return _ask(space, Draw(keep_or_draw({}, rng))).params


def enumerate_params(space: Space[Any]) -> Iterator[dict[str, Any]]:
    """Every architecture's params once, in the order of an odometer whose last decision turns fastest.

    Raises:
        ValueError: a decision is continuous; the message names it.

    Examples:
        >>> next(optnas.enumerate_params(space))
        {'width': 4, 'depth': 1, 'block.0.kernel': 3}
    """
    return _odometer(space, {})


def neighbors(
    space: Space[Any], params: Mapping[str, Any], rng: np.random.Generator | int | None = None
) -> Iterator[dict[str, Any]]:
    """Architectures that differ from `params` in one decision and in what depends on it.

    Each decision is changed to each of its other answers; decisions that still appear keep theirs. Those
    that newly appear take every combination of answers, or, when `rng` (a generator or a seed) is given, one
    random answer each; then a continuous decision may be changed too, to one random value. Answers of other
    callers in `params`, such as a task's learning rate, are ignored.

    Raises:
        ParamsMismatchError: `params` are not those of an architecture of this space.
        ValueError: `rng` is None and a decision is continuous; the message names it.

    Examples:
        >>> near = optnas.neighbors(space, study.best_params)
        >>> len(list(near)) > 5
        True
    """
    if rng is not None:
        rng = np.random.default_rng(rng)
    asked = _ask(space, replay(params))
    for name, distribution in asked.distributions.items():
        if rng is not None and is_continuous(distribution):
            left = [draw(distribution, rng)]
        else:
            left = others(name, distribution, asked.params[name])
        for other in left:
            changed = {**asked.params, name: other}
            if rng is None:
                yield from _odometer(space, changed)
            else:
                yield _ask(space, Draw(keep_or_draw(changed, rng))).params


def _odometer(space: Space[Any], fixed: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """All answers in which every decision named in `fixed` (and still possible) keeps its value."""
    position: list[int] = []  # per free decision, in the order asked: which option is up
    sizes: list[int] = []  # how many it has

    def pick(name: str, distribution: BaseDistribution) -> Any:
        if name in fixed and contains(distribution, fixed[name]):
            return fixed[name]
        values = options(name, distribution)
        if len(sizes) == len(position):
            position.append(0)
        sizes.append(len(values))
        return values[position[len(sizes) - 1]]

    while True:
        sizes.clear()
        yield _ask(space, Draw(pick)).params
        del position[len(sizes) :]
        while position and position[-1] + 1 == sizes[len(position) - 1]:
            position.pop()
        if not position:
            return
        position[-1] += 1
