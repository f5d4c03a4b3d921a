"""Whether one strategy, or one space, is better than another, and how sure that is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray
from optuna.study import Study
from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from optnas import record
from optnas.analysis.shown import Shown
from optnas.analysis.trials import maximizes
from optnas.record import End, end

Floats = NDArray[np.float64]
Groups = Mapping[str, Sequence[Study]] | Sequence[Study]


@dataclass(frozen=True)
class Summary:
    """The scores of one group's studies: mean, standard deviation (None of a single study), count."""

    name: str
    mean: float
    deviation: float | None
    n_studies: int


@dataclass(frozen=True)
class Difference:
    """Mean score of `first` minus that of `second`, with its interval, None where it cannot be known.

    `probability`: that `first` is the better one in the long run (of its mean, from a flat prior).
    """

    first: str
    second: str
    mean: float
    low: float | None
    high: float | None
    probability: float | None
    n_studies: tuple[int, int]
    paired: bool

    @property
    def sure(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)

    @property
    def words(self) -> str:
        """A sentence that says what can be said."""
        basis = f"{self.n_studies[0]} and {self.n_studies[1]} studies"
        if self.low is None or self.high is None or self.probability is None:
            return (
                f"{self.first} and {self.second} differ by {self.mean:+.4g} in {basis}. Whether that is more "
                "than luck cannot be said: repeat each search with at least two, better five, seeds."
            )
        if self.paired:
            basis = f"{self.n_studies[0]} pairs of studies"
        if self.mean == self.low == self.high == 0:
            return f"{self.first} and {self.second} have the same scores ({basis})."
        interval = f"95 % interval {self.low:+.4g} to {self.high:+.4g}"
        figures = f"difference {self.mean:+.4g}, {interval}, {basis}"
        if self.sure:
            return f"{self.first} is better than {self.second} ({figures})."
        return (
            f"{self.first} looks better than {self.second} with probability {self.probability:.2f}, but that "
            f"is not sure ({figures}). More seeds would tell."
        )


@dataclass(frozen=True)
class Comparison(Shown):
    """Groups from best to worst, and each pair of them. Prints as tables and sentences.

    Examples:
        >>> found = optnas.compare({"first": [study, study], "second": [study, study]}, n_trials=10)
        >>> [group.name for group in found.groups]
        ['first', 'second']
    """

    groups: tuple[Summary, ...]
    differences: tuple[Difference, ...]
    n_trials: int | None
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        sentences = [{"sure": d.sure, "words": d.words} for d in self.differences]
        plain = asdict(self)
        return plain | {"differences": [a | b for a, b in zip(plain["differences"], sentences, strict=True)]}

    def _table(self) -> Group:
        budget = "" if self.n_trials is None else f", best of {self.n_trials} trials"
        table = Table(title=f"Comparison of studies{budget}")
        table.add_column("")
        for title in ("mean", "standard deviation", "studies"):
            table.add_column(title, justify="right")
        for g in self.groups:
            spread = "unknown" if g.deviation is None else f"{g.deviation:.4g}"
            table.add_row(Text(g.name), f"{g.mean:.5g}", spread, str(g.n_studies))
        return Group(table, *(escape(d.words) for d in self.differences), *self.notes)


def compare(
    groups: Groups,
    *,
    n_trials: int | None = None,
    score: Callable[[Study], float] | None = None,
    paired: bool | None = None,
) -> Comparison:
    """Compare groups of studies, each group the same search repeated with other seeds.

    `groups`: studies by name, or a plain list of studies, each its own group. Compared is the best value of
    the first `n_trials` trials that count (default: as many as the shortest study has, so that budgets are
    equal), or `score(study)`, better in the studies' direction.

    Two groups are paired by their studies' seeds where both have the same distinct seeds, by
    position where `paired` is True, and otherwise compared by Welch's test. Intervals are Student's, and hold
    with 95 % for all pairs of groups together (Bonferroni). A bootstrap would be far too narrow with the few
    seeds that searches get.

    Raises:
        ValueError: fewer than two groups, an empty group, several objectives, different directions, a study
            without a COMPLETE trial in the budget, or `paired` with groups of different sizes.

    Examples:
        >>> found = optnas.compare({"first": [study, study], "second": [study, study]}, n_trials=10)
        >>> found.differences[0].mean
        0.0
    """
    named = named_groups(groups)
    studies = [study for group in named.values() for study in group]
    up = maximizes(studies[0])
    budget = None
    if score is None:
        budget = min(len(best_so_far(study)) for study in studies) if n_trials is None else n_trials
        score = _best_within(budget)
    scores = {name: np.array([score(study) for study in group]) for name, group in named.items()}
    names = sorted(named, key=lambda name: -scores[name].mean() if up else scores[name].mean())
    pairs = list(combinations(names, 2))
    differences = tuple(
        _difference(a, b, _scores_in_pairs(a, b, named, scores, paired), up, len(pairs)) for a, b in pairs
    )
    return Comparison(
        groups=tuple(_summary(name, scores[name]) for name in names),
        differences=differences,
        n_trials=budget,
        notes=_notes(named),
    )


def best_so_far(study: Study) -> Floats:
    """Best value after each trial that counts toward `n_trials` (`record.counts`); NaN until the first
    COMPLETE and feasible one with a finite value."""
    values = [
        trial.value
        if end(trial) is End.COMPLETE and trial.value is not None and np.isfinite(trial.value)
        else np.nan
        for trial in study.get_trials(deepcopy=False)
        if record.counts(trial)
    ]
    best = np.fmax if maximizes(study) else np.fmin
    result: Floats = best.accumulate(np.array(values, dtype=np.float64))
    return result


def named_groups(groups: Groups) -> dict[str, Sequence[Study]]:
    """Groups of studies by name, checked to be comparable.

    Raises:
        ValueError: fewer than two groups, an empty group, several objectives or different directions.
    """
    if isinstance(groups, Mapping):
        named = dict(groups)
    else:
        named = {study.study_name: [study] for study in groups}
        if len(named) < len(groups):
            raise ValueError("Two studies have the same name; give names: compare({'a': [...], 'b': [...]}).")
    if len(named) < 2:
        raise ValueError(f"A comparison needs at least two groups of studies, got {len(named)}.")
    for name, group in named.items():
        if not group:
            raise ValueError(f"Group {name!r} has no studies.")
    studies = [study for group in named.values() for study in group]
    found = {", ".join(d.name.lower() for d in study.directions): study.study_name for study in studies}
    if len(found) > 1 or len(studies[0].directions) > 1:
        listed = "; ".join(f"{directions} in {name!r}" for directions, name in found.items())
        raise ValueError(f"Compared studies must all have the same one objective; there is {listed}.")
    return named


def _best_within(n_trials: int) -> Callable[[Study], float]:
    def best(study: Study) -> float:
        curve = best_so_far(study)
        if not len(curve):
            raise ValueError(f"Study {study.study_name!r} has no trial that counts yet. Run it first.")
        if len(curve) < n_trials or n_trials < 1:
            raise ValueError(
                f"Study {study.study_name!r} has {len(curve)} trials that count, which does not fit "
                f"n_trials={n_trials}. Run it further or compare fewer trials."
            )
        if np.isnan(curve[n_trials - 1]):
            raise ValueError(
                f"Study {study.study_name!r} has no COMPLETE trial with a finite value among its first "
                f"{n_trials}. Compare more trials, or run it further."
            )
        return float(curve[n_trials - 1])

    return best


def _scores_in_pairs(
    a: str,
    b: str,
    named: Mapping[str, Sequence[Study]],
    scores: Mapping[str, Floats],
    paired: bool | None,
) -> tuple[Floats, Floats, bool]:
    """The scores of both groups in the same order, and whether they are pairs."""
    if paired:
        if len(scores[a]) != len(scores[b]):
            raise ValueError(
                f"paired=True needs groups of one size, but {a!r} has {len(scores[a])} studies and {b!r} has "
                f"{len(scores[b])}."
            )
        return scores[a], scores[b], True
    seeds = [[record.SEED.of(study) for study in named[name]] for name in (a, b)]
    usable = all(None not in s and len(set(s)) == len(s) for s in seeds) and set(seeds[0]) == set(seeds[1])
    if paired is False or not usable:
        return scores[a], scores[b], False
    order = [seeds[1].index(seed) for seed in seeds[0]]
    return scores[a], scores[b][order], True


def _difference(
    first: str, second: str, data: tuple[Floats, Floats, bool], up: bool, n_pairs: int
) -> Difference:
    a, b, paired = data
    mean = float(a.mean() - b.mean())
    error, freedom = _standard_error(a, b, paired)
    low = high = probability = None
    if error is not None:
        reach = scipy.stats.t.ppf(1 - 0.025 / n_pairs, freedom) * error if error > 0 else 0.0
        low, high = float(mean - reach), float(mean + reach)
        gain = mean if up else -mean
        probability = (
            float(scipy.stats.t.cdf(gain / error, freedom)) if error > 0 else 0.5 + 0.5 * float(np.sign(gain))
        )
    return Difference(first, second, mean, low, high, probability, (len(a), len(b)), paired)


def _standard_error(a: Floats, b: Floats, paired: bool) -> tuple[float | None, float]:
    """Of the difference of means, and the degrees of freedom; None where spread cannot be known."""
    if min(len(a), len(b)) < 2:
        return None, 0
    if paired:
        return float(deviation(a - b)) / np.sqrt(len(a)), len(a) - 1
    error_a, error_b = float(deviation(a)) / np.sqrt(len(a)), float(deviation(b)) / np.sqrt(len(b))
    error = np.hypot(error_a, error_b)
    if error == 0:
        return 0.0, len(a) + len(b) - 2
    share_a, share_b = (error_a / error) ** 2, (error_b / error) ** 2
    return error, 1 / (share_a**2 / (len(a) - 1) + share_b**2 / (len(b) - 1))


def deviation(scores: Floats) -> Floats:
    """Standard deviation over the first axis, exactly zero of equal scores, whose mean is rounded."""
    # In units of a power of two, which rounds nothing: squares of 1e200 and of 1e-200 are out of range.
    _, exponent = np.frexp(np.abs(scores).max(axis=0))
    scaled = np.ldexp(scores, -exponent)
    spread = np.where(np.ptp(scaled, axis=0) > 0, scaled.std(axis=0, ddof=1), 0.0)
    return np.asarray(np.ldexp(spread, exponent))


def _summary(name: str, scores: Floats) -> Summary:
    spread = float(deviation(scores)) if len(scores) > 1 else None
    return Summary(name, float(scores.mean()), spread, len(scores))


def _notes(named: Mapping[str, Sequence[Study]]) -> tuple[str, ...]:
    smallest = min(len(group) for group in named.values())
    if 1 < smallest < 5:
        return (f"Only {smallest} studies in a group: intervals rest on scores being close to normal.",)
    return ()
