"""A finished search on one page: what is best, why, how sure, and how to get it again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from optuna.study import Study
from optuna.trial import FrozenTrial

from optnas import pareto, plots
from optnas.analysis.explain import Explanation, explain, why_unexplained
from optnas.analysis.front import best_trials, has_points
from optnas.analysis.importance import MIN_TRIALS, Importance, importance
from optnas.analysis.leaderboard import leaderboard
from optnas.analysis.objectives import FRONT, as_one
from optnas.analysis.sample import sampled_study
from optnas.analysis.trials import maximizes, objective_names, objective_target, scored
from optnas.analysis.trust import COLUMNS, recorded_estimates
from optnas.errors import describe_error
from optnas.objective import Objective
from optnas.reports import summary
from optnas.reports.page import Heading, Part, Plot, Section, Sentences, Table, to_html, to_markdown

_T = TypeVar("_T")
_LEADERS = 10
_AXES = 8  # of parallel coordinates
_DISTANCE = "distance to the front"


def report(study: Study, path: str | Path, objective: Objective | None = None) -> Path:
    """Write what a search found to one file, and return its path.

    An `.html` file works without a network, in any browser, on a phone, light or dark. An `.md` file has the
    words and tables. Sections without data are left out. Of several objectives each is explained, and what
    brings trials close to the front. The best network is drawn where the `objective` that builds it is given,
    a cell (decisions named `<from>-<to>`) always. Of a study of more than 3,000 trials the best and some
    of the others, drawn at random, are shown; the page says so.

    Raises:
        ValueError: a path that ends in neither.

    Examples:
        >>> optnas.report(study, "report.md", objective).name
        'report.md'
    """
    path = Path(path)
    if path.suffix not in (".html", ".md"):
        raise ValueError(f"path={str(path)!r} must end in .html or .md.")
    study = sampled_study(study)
    write = to_html if path.suffix == ".html" else to_markdown
    sections = _of_several if len(study.directions) > 1 else _of_one
    filled = [section for section in sections(study, objective) if section.parts]
    path.write_text(write(f"Search {study.study_name}", filled), encoding="utf-8")
    return path


def _of_one(study: Study, objective: Objective | None) -> Iterator[Section]:
    [metric] = objective_names(study)
    rows = leaderboard(study, _LEADERS)
    retrained = summary.retrained(study)
    trials = {trial.number: trial for trial in study.get_trials(deepcopy=False)}
    best = trials[rows[0].trial] if rows else None
    # Importance is much of an explanation, and computed once; an error of either is told in its section.
    unexplained = why_unexplained(study)
    explanation, broken = (None, []) if unexplained else _tried(lambda: explain(study))
    shares, unweighed = (explanation.importance, []) if explanation else _weigh(study)
    yield Section("Summary", [*summary.of_one(study, rows)])
    if best is not None:
        yield Section("Best architecture", summary.architecture(study, best, objective))
        yield Section("Leaderboard", [summary.leaders(rows, metric)])
    yield Section("Trained anew", [retrained] if retrained else [])
    yield Section("History", _shown(lambda: _plot(plots.plot_history(study))))
    yield Section("Learning curves", _shown(lambda: _plot(plots.plot_learning_curves(study))))
    yield Section("Cost", _shown(lambda: _plot(plots.plot_front(study))) if has_points(study) else [])
    yield Section("Cheap estimates", _shown(lambda: _estimates(study)))
    yield Section("Decisions", _shown(lambda: _decisions(study, shares)))
    yield Section("Importance", unweighed or _shown(lambda: _importance(shares) if shares else []))
    yield Section("Timeline", _shown(lambda: _plot(plots.plot_timeline(study))))
    if explanation is not None:
        yield Section("Explanation", [*_explanation(explanation)])
    elif len(scored(study)) > 1:
        yield Section("Explanation", broken or [Sentences([unexplained])])
    yield Section("How to reproduce", summary.reproduce(study, best))


def _of_several(study: Study, objective: Objective | None) -> Iterator[Section]:
    names = objective_names(study)
    front = best_trials(study)
    yield Section("Summary", [*summary.of_several(study, front)])
    if front:
        table = summary.front_table(study, front)
        volume = _shown(lambda: _plot(plots.plot_hypervolume(study)))
        yield Section("Front", [*_shown(lambda: _front(study)), *table, Heading("Hypervolume"), *volume])
    yield Section("Best architectures", _best_of_several(study, front, objective))
    retrained = summary.retrained(study)
    yield Section("Trained anew", [retrained] if retrained else [])
    # Of one value each: what shows and explains a study does so of these.
    ones, close = {name: as_one(study, name) for name in names}, as_one(study, FRONT)
    found = {name: _explained(study, name, one) for name, one in ones.items()}
    found[_DISTANCE] = _explained(study, FRONT, close)
    yield Section("History", _each({n: _shown(partial(_history, one, n)) for n, one in ones.items()}))
    yield Section("Learning curves", _each({n: _shown(partial(_curves, one, n)) for n, one in ones.items()}))
    yield Section("Decisions", _shown(lambda: _decisions(close, found[_DISTANCE].shares)))
    yield Section("Importance", _each({name: one.importance for name, one in found.items()}))
    yield Section("Timeline", _shown(lambda: _plot(plots.plot_timeline(study))))
    for name in (_DISTANCE, *names):
        yield Section(f"Explanation: {name}", found[name].explanation)
    yield Section("How to reproduce", summary.reproduce(study, None))


def _best_of_several(study: Study, front: Sequence[FrozenTrial], objective: Objective | None) -> list[Part]:
    """The best on the front in each objective, and its knee."""
    on_front = {trial.number for trial in front}
    best: dict[int, tuple[FrozenTrial, list[str]]] = {}
    for i, name in enumerate(objective_names(study)):
        target = objective_target(i)
        if trials := [trial for trial in scored(study, target) if trial.number in on_front]:
            trial = (max if maximizes(study, i) else min)(trials, key=target)
            best.setdefault(trial.number, (trial, []))[1].append(f"Best in {name}")
    if front:
        trial = front[pareto.knee(pareto.losses(study, front))]
        best.setdefault(trial.number, (trial, []))[1].append("Knee of the front")
    return [
        part
        for trial, ranks in best.values()
        for part in (
            Heading(" and ".join(ranks)),
            *summary.architecture(study, trial, objective),
        )
    ]


@dataclass(frozen=True)
class _Explained:
    """What explains one value of a study with several."""

    shares: Importance | None
    importance: list[Part]
    explanation: list[Part]


def _explained(study: Study, of: str, one: Study) -> _Explained:
    if len(scored(one)) < 2:
        return _Explained(None, [], [])
    if unexplained := why_unexplained(one):
        shares, unweighed = _weigh(one)
        words: list[Part] = [Sentences([unexplained])]
    else:
        explanation, words = _tried(lambda: explain(study, of=of))
        shares, unweighed = (explanation.importance, []) if explanation else _weigh(one)
        words = [*_explanation(explanation)] if explanation else words
    return _Explained(shares, unweighed or _shown(lambda: _importance(shares) if shares else []), words)


def _each(parts: Mapping[str, list[Part]]) -> list[Part]:
    """What there is, each below its name."""
    return [part for name, found in parts.items() if found for part in (Heading(name), *found)]


def _estimates(study: Study) -> list[Part]:
    found = recorded_estimates(study)
    if not found:
        return []
    floors = {floor.name: floor for one in found for floor in one.floors}
    rows = [row.cells for row in (*(one.estimate for one in found), *floors.values())]
    words = Sentences([one.words for one in found], listed=len(found) > 1)
    return [words, *_plot(plots.plot_rank_correlation(found)), Table(("estimate", *COLUMNS[1:]), rows)]


def _history(one: Study, name: str) -> list[Part]:
    return _plot(plots.plot_history(one, name=name))


def _curves(one: Study, name: str) -> list[Part]:
    return _plot(plots.plot_learning_curves(one, name=name))


def _front(study: Study) -> list[Part]:
    return _plot(plots.plot_front(study)) if has_points(study) else []


def _importance(shares: Importance) -> list[Part]:
    if not shares.decisions:
        return []
    # Groups and pairs after the decisions, which are plotted already.
    top = [*shares.decisions[:_LEADERS], *shares.positions[:5], *shares.kinds[:5], *shares.pairs[:5]]
    rows = [
        (s.name, f"{s.value:.3f}", f"{s.low:.3f}\u00a0to\u00a0{s.high:.3f}", str(s.n_trials)) for s in top
    ]
    said = "The share of the variance that a decision explains, among the trials where it is active."
    table = Table(("decision", "share", "95 %", "trials"), rows)
    return [Sentences([said]), *_plot(plots.plot_importance(shares)), table]


def _decisions(study: Study, shares: Importance | None) -> list[Part]:
    asked = list(dict.fromkeys(name for trial in scored(study) for name in trial.params))
    top = [share.name for share in shares.decisions[:_AXES]] if shares else asked[:_AXES]
    # In the order asked, so that a decision stands below the one that it depends on.
    axes = [name for name in asked if name in top]
    return _plot(plots.plot_parallel(study, params=axes)) if axes else []


def _explanation(explanation: Explanation) -> Iterator[Part]:
    for title, sentences in explanation.sections().items():
        if title == "The best" and not explanation.of:
            continue  # the summary says it
        yield Heading(title)
        yield Sentences(sentences, listed=len(sentences) > 1)


def _weigh(study: Study) -> tuple[Importance | None, list[Part]]:
    """The importances of a study that has trials enough; an error, if any, in words."""
    if len(scored(study)) < MIN_TRIALS:
        return None, []
    return _tried(lambda: importance(study))


def _plot(figure: Any) -> list[Part]:
    return [Plot(figure)] if figure.data else []


def _shown(make: Callable[[], list[Part]]) -> list[Part]:
    """The parts of a section, or a sentence with the error in their place: the rest of the report stands."""
    parts, broken = _tried(make)
    return broken if parts is None else parts


def _tried(make: Callable[[], _T]) -> tuple[_T | None, list[Part]]:
    """What it made, or None and a sentence with the error."""
    try:
        return make(), []
    except Exception as error:
        return None, [Sentences([f"This could not be shown: {describe_error(error)}"])]
