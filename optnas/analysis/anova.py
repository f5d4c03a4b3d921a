"""Main effects and interactions of conditional decisions, by analysis of variance among trials seen.

Model: metric = mean + sum of one effect per decision active in the trial + noise. Effects are estimated
together by backfitting (Breiman & Friedman, JASA 80, 1985), so that a decision is credited with what the
others leave, whatever the sampler preferred; each is shrunk by its own variance component (Searle, Casella &
McCulloch, Variance Components, 1992, section 3.6), so that more options than trials do no harm. The effect of
a decision has mean zero among the trials where the decision is active: what its mere presence changes belongs
to the decision that switched it on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray
from optuna.trial import FrozenTrial

from optnas.analysis.trials import choices_of
from optnas.answers import key

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LEVELS = 10
"""Classes of equal counts into which numbers with more values are cut."""

_SWEEPS = 20  # backfitting converges geometrically; later sweeps change shares by less than 1e-3


@dataclass(frozen=True)
class Table:
    """Trials as numbers: `codes` (n, decisions) holds the class of each answer, -1 where not asked; `y` (n,)
    are the values, in units that make all of them at most 1."""

    names: tuple[str, ...]
    codes: Ints
    y: Floats

    def n_answers(self, column: int) -> int:
        """How many classes of answers this decision got."""
        codes = self.codes[:, column]
        return len(np.unique(codes[codes >= 0]))

    def take(self, rows: Ints) -> Table:
        """The same table with these rows, repeats allowed."""
        return Table(self.names, self.codes[rows], self.y[rows])


@dataclass(frozen=True)
class Decomposition:
    """Per decision: `variances`, of its main effect among trials where it is active, and its `shares` of all
    that varies there. Per decision and trial: shrunken `effects` (0 where not active). `residual` (n,) is
    what they leave of the metric minus its mean."""

    variances: Floats
    shares: Floats
    effects: Floats
    residual: Floats


def tabulate(trials: Sequence[FrozenTrial], value: Callable[[FrozenTrial], float], levels: int) -> Table:
    """Code the answers of trials whose value is finite, decisions in the order first asked."""
    pairs = [(t, float(value(t))) for t in trials]
    pairs = [(t, y) for t, y in pairs if np.isfinite(y)]
    names = tuple(dict.fromkeys(name for t, _ in pairs for name in t.params))
    codes = np.full((len(pairs), len(names)), -1, dtype=np.int64)
    for column, name in enumerate(names):
        rows = [row for row, (t, _) in enumerate(pairs) if name in t.params]
        asked = [pairs[row][0] for row in rows]
        values = [t.params[name] for t in asked]
        named = choices_of(asked, name) is not None
        codes[rows, column] = _named_classes(values) if named else _number_classes(values, levels)
    y = np.array([y for _, y in pairs], dtype=np.float64)
    # By a power of two, which rounds nothing: the squares of 1e300 and of 1e-300 are out of range.
    _, exponent = np.frexp(np.abs(y).max(initial=0.0))
    return Table(names, codes, np.ldexp(y, -exponent))


def decompose(table: Table) -> Decomposition:
    """Main effects of all decisions at once."""
    n, n_decisions = table.codes.shape
    residual = table.y - table.y.mean() if n else table.y
    effects = np.zeros((n_decisions, n))
    variances = np.zeros(n_decisions)
    active = [np.flatnonzero(table.codes[:, j] >= 0) for j in range(n_decisions)]
    groups = [np.unique(table.codes[rows, j], return_inverse=True)[1] for j, rows in enumerate(active)]
    for _ in range(_SWEEPS):
        for j, (rows, group) in enumerate(zip(active, groups, strict=True)):
            partial = residual[rows] + effects[j, rows]
            effect, variances[j] = _effect(partial, group)
            residual[rows] = partial - effect
            effects[j, rows] = effect
    parts = Decomposition(variances, np.zeros(n_decisions), effects, residual)
    shares = np.array([joint_share(table, parts, [j]) for j in range(n_decisions)])
    return replace(parts, shares=shares)


def joint_share(table: Table, parts: Decomposition, members: Sequence[int]) -> float:
    """Share of what varies among trials where any of these decisions is active that is their own effects'."""
    active = table.codes >= 0
    rows = np.flatnonzero(active[:, members].any(axis=1))
    if not len(rows):
        return 0.0
    own = float(active[:, members].sum(axis=0) @ parts.variances[members]) / len(rows)
    others = np.delete(parts.effects[:, rows], members, axis=0)
    # Not var(y): in the few trials of a rare decision the others' effects correlate by chance.
    whole = own + others.var(axis=1).sum() + parts.residual[rows].var()
    return own / whole if whole > 0 else 0.0


@dataclass(frozen=True)
class Interaction:
    """`share`: of all variance among trials where both decisions are active, what only their combination
    explains. `p_value`: of the F-test of no interaction, 1 where too few trials share a combination."""

    share: float
    p_value: float


def interaction(table: Table, residual: Floats, first: int, second: int) -> Interaction:
    """Two-way analysis of variance of what the main effects left."""
    rows = np.flatnonzero((table.codes[:, first] >= 0) & (table.codes[:, second] >= 0))
    if not len(rows) or table.y[rows].var() == 0:
        return Interaction(0.0, 1.0)
    one, two = (np.unique(table.codes[rows, j], return_inverse=True)[1] for j in (first, second))
    cells = np.unique(one * (two.max() + 1) + two, return_inverse=True)[1]
    centered = residual[rows] - residual[rows].mean()
    # Shrinkage has left a part of the main effects in the residual; unshrunken ones take it out.
    additive = np.hstack([np.eye(one.max() + 1)[one], np.eye(two.max() + 1)[two]])
    solution, _, rank, _ = np.linalg.lstsq(additive, centered, rcond=None)
    left = centered - additive @ solution
    fitted = _means(left, cells)[cells]
    freedom, rest = int(cells.max()) + 1 - rank, len(rows) - int(cells.max()) - 1
    if freedom < 1 or rest < 1:
        return Interaction(0.0, 1.0)
    unexplained = float(((left - fitted) ** 2).sum())
    explained = float((left**2).sum()) - unexplained
    noise = unexplained / rest
    ratio = explained / freedom / noise if noise > 0 else np.inf
    share = (explained - freedom * noise) / len(rows) / float(table.y[rows].var())
    return Interaction(float(np.clip(share, 0, 1)), float(scipy.stats.f.sf(ratio, freedom, rest)))


def _effect(partial: Floats, group: Ints) -> tuple[Floats, float]:
    """Shrunken effect of each row's class, and the unbiased variance of the true effect over the rows."""
    n = len(partial)
    counts = np.bincount(group).astype(np.float64)
    if len(counts) < 2 or n <= len(counts):
        return np.zeros(n), 0.0
    centered = partial - partial.mean()
    means = _means(centered, group)
    noise = float(((centered - means[group]) ** 2).sum()) / (n - len(counts))
    between = float(counts @ means**2) - (len(counts) - 1) * noise
    if between <= 0:
        return np.zeros(n), 0.0
    component = between / (n - float(counts @ counts) / n)
    shrunken = means * (counts * component / (counts * component + noise))
    return shrunken[group], between / n


def _means(values: Floats, group: Ints) -> Floats:
    means: Floats = np.bincount(group, values) / np.bincount(group)
    return means


def _named_classes(values: Sequence[Any]) -> Ints:
    keys = {known: i for i, known in enumerate(dict.fromkeys(map(key, values)))}
    return np.array([keys[key(v)] for v in values], dtype=np.int64)


def _number_classes(values: Sequence[float], levels: int) -> Ints:
    numbers = np.array(values, dtype=np.float64)
    distinct = np.unique(numbers)
    if len(distinct) <= levels:
        return np.searchsorted(distinct, numbers)
    n_classes = min(levels, max(2, len(numbers) // 6))
    edges = np.quantile(numbers, np.linspace(0, 1, n_classes + 1)[1:-1])
    return np.searchsorted(edges, numbers, side="right")
