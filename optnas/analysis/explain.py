"""Why the best architecture is the best, how the search came there, what to search next: in plain words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from optnas import record
from optnas.analysis.importance import Importance, importance, several, too_few
from optnas.analysis.lineage import NOT_ASKED, Step, path_to_best
from optnas.analysis.narrow import Narrowed, negligible, smaller_space
from optnas.analysis.objectives import as_one
from optnas.analysis.trials import choices_of, maximizes, objective_names, objective_value, scored
from optnas.analysis.words import answer_in_words, as_markdown, shorten
from optnas.analysis.worth import Alternative, Worth, decision_worth, prediction_quality
from optnas.pareto import front_trials, knee, losses

_LARGEST = 1e150  # the squares of more are infinite
_LONGEST = 60  # characters of an answer
_MAX_CHANGES = 4  # named per step of the path; a random search changes everything at once


@dataclass(frozen=True)
class Explanation:
    """What a finished search says. Prints as text; `sections` has it as titled paragraphs.

    `worth`: each decision of the best trial, the most valuable first. `path`: from a first trial to the best.
    `negligible`: decisions that can be fixed. `space`: what to fix or leave out next time. `importance` is
    None of a study too small for it.

    `of`: the objective that it is about, where the study has several; "front" where it is about the distance
    to the front, on which are `n_front` trials: `best` is then the knee, and every `value` a distance. Of one
    objective among several nothing is recommended (`space`): what is bad for it may be good for another.

    Examples:
        >>> explanation = optnas.explain(study, n_bootstrap=10)
        >>> explanation.best == study.best_trial.number
        True
    """

    study: str
    maximize: bool
    n_trials: int
    best: int
    value: float
    params: Mapping[str, Any]
    worth: tuple[Worth, ...]
    path: tuple[Step, ...]
    negligible: tuple[str, ...]
    space: tuple[Narrowed, ...]
    importance: Importance | None
    notes: tuple[str, ...]
    of: str = ""
    n_front: int = 0

    def sections(self) -> dict[str, list[str]]:
        """Sentences by title, empty sections left out."""
        to_front = self.n_front > 0
        sections = {
            "The best": self._best_words(),
            "What its decisions are worth": [
                (_way_words(w) if to_front else _worth_words(w, self.maximize)) for w in self.worth
            ],
            "How the search came there": [_step_words(step, to_front) for step in self.path],
            "What does not matter": _negligible_words(self.negligible, self.of, to_front),
            "What to search next": [_narrowed_words(n) for n in self.space],
            "Read with care": list(self.notes),
        }
        return {title: sentences for title, sentences in sections.items() if sentences}

    def _best_words(self) -> list[str]:
        if not self.n_front:
            best = f"best {self.of or 'value'}"
            return [
                f"Trial {self.best} has the {best}, {self.value:.5g}, of {self.n_trials} finished trials."
            ]
        return [
            f"{self.n_front} of {self.n_trials} finished trials are on the front; trial {self.best} is its "
            "knee, after which a little more of one value costs most of the others.",
            "Explained is how far trials are from the front: by how much all their values must improve until "
            "no other trial dominates them, as shares of the spans of the values.",
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON, with the words."""
        return asdict(self) | {"sections": self.sections()}

    def _repr_markdown_(self) -> str:
        """What a notebook's cell that ends with it shows."""
        parts = [f"# {as_markdown(f'Explanation of {self.study}')}"]
        for title, sentences in self.sections().items():
            parts += [f"## {title}", "\n".join(f"- {as_markdown(sentence)}" for sentence in sentences)]
        return "\n\n".join(parts) + "\n"

    def __str__(self) -> str:
        parts = []
        for title, sentences in self.sections().items():
            parts.append("\n".join([title, *(f"  {sentence}" for sentence in sentences)]))
        return "\n\n".join(parts)


def explain(study: Study, *, of: str | None = None, n_bootstrap: int = 100) -> Explanation:
    """Explain the best trial of a study; of several objectives, the best in one, or what leads to the front.

    `of`, for several objectives: the name of one, or "front". `n_bootstrap`: resamples behind the intervals
    of importance. Takes COMPLETE, feasible trials with finite values; the surrogate, which predicts what was
    not tried, learns from pruned ones too.

    Raises:
        ValueError: fewer than two such trials, several objectives and no `of`, values beyond 1e150, or
            choices that a database does not keep: others than None, bool, int, float and str, or other ones
            in each trial.

    Examples:
        >>> optnas.explain(study, n_bootstrap=10).n_trials
        15
    """
    one = study if of is None else as_one(study, of)
    if words := why_unexplained(one):
        raise ValueError(words)
    value = objective_value(one, None)
    trials = scored(one)
    among = len(study.directions) > 1
    to_front = among and of not in objective_names(study)
    front = front_trials(study) if among else []
    leading = [front[knee(losses(study, front))]] if to_front else front
    numbers = {trial.number for trial in leading}
    # Of trials with an equal value, one that another beats in all else is not the best.
    candidates = [trial for trial in trials if trial.number in numbers] or trials
    best = (max if maximizes(one) else min)(candidates, key=value)
    few = too_few(one, len(trials))
    shares = None if few else importance(one, n_bootstrap=n_bootstrap)
    notes = shares.notes if shares else (few,)
    idle = negligible(one, shares) if shares else ()
    for name in objective_names(study) if idle and to_front else ():
        # What does not bring a trial closer to the front may still lead along it.
        other = as_one(study, name)
        also = negligible(other, importance(other, n_bootstrap=n_bootstrap))
        idle = tuple(decision for decision in idle if decision in also)
    return Explanation(
        study=study.study_name,
        maximize=maximizes(one),
        n_trials=len(trials),
        best=best.number,
        value=value(best),
        params=dict(best.params),
        worth=decision_worth(one, best),
        path=path_to_best(one, best),
        negligible=idle,
        space=smaller_space(one, best, shares, idle) if shares and (to_front or not among) else (),
        importance=shares,
        notes=(*notes, prediction_quality(one), *_caveats(study, of, best, trials)),
        of=of if of is not None and among else "",
        n_front=len(front) if to_front else 0,
    )


def why_unexplained(study: Study) -> str:
    """Why `explain` would raise, in words; "" where it explains."""
    if len(study.directions) > 1:
        return f"Study {study.study_name!r} has {several(study)}."
    if (n_trials := len(scored(study))) < 2:
        return (
            "An explanation compares at least two COMPLETE trials with a finite value; study "
            f"{study.study_name!r} has {n_trials}. Run more trials."
        )
    return _why_not_modeled(study)


def _why_not_modeled(study: Study) -> str:
    """The surrogate squares values, and knows the choices of a decision from any trial."""
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
    reports = [t.intermediate_values[t.last_step] for t in trials if t.last_step is not None and not t.values]
    values = [*reports, *(t.values[0] for t in trials if t.values)]
    if (largest := max(abs(value) for value in values if isfinite(value))) > _LARGEST:
        return (
            f"Values of study {study.study_name!r} reach {largest:.3g}, too much to be explained: return "
            f"their logarithm, or a multiple below {_LARGEST:.0g}, and report that too."
        )
    for name in dict.fromkeys(name for t in trials for name in t.distributions):
        asked = [t for t in trials if name in t.distributions]
        every = choices_of(asked, name)
        if every is None:
            continue
        for choice in every:
            if not (choice is None or isinstance(choice, str | int | float)):
                return (
                    f"Parameter {name!r} offers {choice!r}; an explanation needs choices that are None, "
                    "bool, int, float or str. Offer names and look the object up in a dict."
                )
        if any(_n_choices(t.distributions[name]) < len(every) for t in asked):
            return (
                f"Parameter {name!r} has other choices in some trials of study {study.study_name!r} than in "
                "others; an explanation needs trials of one space. Give the changed question another name."
            )
    return ""


def _n_choices(distribution: BaseDistribution) -> int:
    return len(distribution.choices) if isinstance(distribution, CategoricalDistribution) else 0


def _caveats(
    study: Study, of: str | None, best: FrozenTrial, trials: Sequence[FrozenTrial]
) -> tuple[str, ...]:
    names, exact = objective_names(study), record.facts(best)
    if all(name in exact for name in ([of] if of in names else names)):
        return ()  # training anew changes nothing about a fact
    if of is not None and of not in names:
        return (
            f"The front is of {len(trials)} measurements, so partly luck: train what you pick again before "
            "quoting it.",
        )
    return (
        f"Trial {best.number} is the best of {len(trials)} measurements, so its value is partly luck: "
        "train it again before quoting it.",
    )


def _worth_words(worth: Worth, maximize: bool) -> str:
    mildest = worth.alternatives[0]
    sign = 1 if maximize else -1
    change = f"{abs(mildest.predicted):.3g} ± {mildest.deviation:.2g}"
    verb = "gain" if sign * mildest.predicted > 0 else "lose"
    which = "the other answer" if len(worth.alternatives) == 1 else "the next best answer"
    words = f"{worth.name} = {_answer(worth.answer)}: {which}, {_answer(mildest.answer)},"
    words += f" is predicted to {verb} {change}, and to be better with a chance of {_percent(mildest.better)}"
    seen = [a for a in worth.alternatives if a.seen is not None]
    if seen:
        words += "; seen: " + ", ".join(_seen_words(a, sign) for a in seen)
    return words + "."


def _way_words(worth: Worth) -> str:
    """Of a trial on the front: no other answer brings it nearer."""
    mildest = worth.alternatives[0]
    which = "the other answer" if len(worth.alternatives) == 1 else "the next best answer"
    words = (
        f"{worth.name} = {_answer(worth.answer)}: {which}, {_answer(mildest.answer)}, is predicted to lie "
    )
    if mildest.predicted > 0:
        words += f"farther from the front by {mildest.predicted:.3g} ± {mildest.deviation:.2g}"
    else:
        words += f"no farther from the front (± {mildest.deviation:.2g})"
    seen = [
        f"{_answer(a.answer)} " + (f"farther by {a.seen:.3g}" if a.seen else "on it") + f" in trial {a.trial}"
        for a in worth.alternatives
        if a.seen is not None
    ]
    return words + (f"; seen: {', '.join(seen)}." if seen else ".")


def _percent(probability: float) -> str:
    if 0.01 <= probability <= 0.99:
        return f"{100 * probability:.0f} %"
    return "under 1 %" if probability < 0.5 else "over 99 %"


def _seen_words(alternative: Alternative, sign: int) -> str:
    gain = sign * (alternative.seen or 0.0)
    change = f"{'gained' if gain > 0 else 'lost'} {abs(gain):.3g}" if gain else "changed nothing"
    return f"{_answer(alternative.answer)} {change} in trial {alternative.trial}"


def _step_words(step: Step, to_front: bool) -> str:
    if not step.changed:
        return f"Trial {step.trial}: {step.value:.5g}."
    named = [_change_words(name, *pair) for name, pair in list(step.changed.items())[:_MAX_CHANGES]]
    if len(step.changed) > _MAX_CHANGES:
        named.append(f"{len(step.changed) - _MAX_CHANGES} more")
    how = "bred from it" if step.inherited else "drawn anew"
    better, worse = ("nearer", "farther") if to_front else ("better", "worse")
    outcome = f"{better if step.gain > 0 else worse} by {abs(step.gain):.3g}" if step.gain else f"no {better}"
    return f"Trial {step.trial}, {how}: {step.value:.5g}, {outcome}; changed {', '.join(named)}."


def _change_words(name: str, before: Any, now: Any) -> str:
    if before is NOT_ASKED:
        return f"{name} (new) {_answer(now)}"
    return f"{name} (gone)" if now is NOT_ASKED else f"{name} {_answer(before)} → {_answer(now)}"


def _negligible_words(names: Sequence[str], of: str, to_front: bool) -> list[str]:
    if not names:
        return []
    if of and not to_front:
        return [f"No effect on {of} was seen of {', '.join(names)}."]
    them = "it" if len(names) == 1 else "them"
    return [f"No effect worth searching was seen of {', '.join(names)}: fix {them}."]


def _narrowed_words(narrowed: Narrowed) -> str:
    if narrowed.fixed:
        answer = narrowed.choices[0] if narrowed.choices else narrowed.low
        return f"Fix {narrowed.name} at {_answer(answer)}: {narrowed.why}."
    if narrowed.choices is not None:
        return f"Of {narrowed.name}, keep {', '.join(map(_answer, narrowed.choices))}: {narrowed.why}."
    if narrowed.low == narrowed.high:
        return f"Keep {narrowed.name} at {_answer(narrowed.low)}: {narrowed.why}."
    return f"Keep {narrowed.name} within {_answer(narrowed.low)} to {_answer(narrowed.high)}: {narrowed.why}."


def _answer(value: Any) -> str:
    return shorten(answer_in_words(value), _LONGEST)
