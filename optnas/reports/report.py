"""A finished search on one page: what is best, why, how sure, and how to get it again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from optuna.study import Study
from optuna.trial import FrozenTrial

from optnas import plots
from optnas.analysis.explain import Explanation, explain, why_unexplained
from optnas.analysis.front import best_trials, distance_to_front, has_points
from optnas.analysis.importance import MIN_TRIALS, Importance, importance
from optnas.analysis.leaderboard import leaderboard
from optnas.analysis.trials import maximizes, objective_names, objective_target, scored
from optnas.analysis.trust import COLUMNS, recorded_estimates
from optnas.errors import describe_error
from optnas.objective import Objective
from optnas.record import Target
from optnas.reports import summary
from optnas.reports.page import Heading, Part, Plot, Section, Sentences, Table, to_html, to_markdown

_T = TypeVar("_T")
_LEADERS = 10
_AXES = 8  # of parallel coordinates


def report(study: Study, path: str | Path, objective: Objective | None = None) -> Path:
    """Write what a search found to one file, and return its path.

    An `.html` file works without a network, in any browser, on a phone, light or dark. An `.md` file has the
    words and tables. Sections without data are left out; of several objectives, what explains one. The best
    network is drawn where the `objective` that builds it is given, a cell (decisions named `<from>-<to>`)
    always.

    Raises:
        ValueError: a path that ends in neither.
    """
    path = Path(path)
    if path.suffix not in (".html", ".md"):
        raise ValueError(f"path={str(path)!r} must end in .html or .md.")
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
    targets = [objective_target(i) for i in range(len(names))]
    front = best_trials(study)
    yield Section("Summary", [*summary.of_several(study, front)])
    if front:
        table = summary.front_table(study, front)
        volume = _shown(lambda: _plot(plots.plot_hypervolume(study)))
        yield Section("Front", [*_shown(lambda: _front(study)), *table, Heading("Hypervolume"), *volume])
    best: dict[int, tuple[FrozenTrial, list[str]]] = {}
    for i, (name, target) in enumerate(zip(names, targets, strict=True)):
        if trials := scored(study, target):
            trial = (max if maximizes(study, i) else min)(trials, key=target)
            best.setdefault(trial.number, (trial, []))[1].append(name)
    yield Section(
        "Best architectures",
        [
            part
            for trial, leads in best.values()
            for part in (
                Heading(f"Best in {' and '.join(leads)}"),
                *summary.architecture(study, trial, objective),
            )
        ],
    )
    for title, make in (("History", _history), ("Importance", _importance_of)):
        parts = {
            name: _shown(partial(make, study, target, name))
            for name, target in zip(names, targets, strict=True)
        }
        if title == "Importance":
            close = distance_to_front(study)
            parts["distance to the front"] = _shown(partial(make, study, close, "distance to the front"))
        yield Section(title, [p for name, found in parts.items() if found for p in (Heading(name), *found)])
    yield Section("Timeline", _shown(lambda: _plot(plots.plot_timeline(study))))
    yield Section("How to reproduce", summary.reproduce(study, None))


def _estimates(study: Study) -> list[Part]:
    found = recorded_estimates(study)
    if not found:
        return []
    floors = {floor.name: floor for one in found for floor in one.floors}
    rows = [row.cells for row in (*(one.estimate for one in found), *floors.values())]
    words = Sentences([one.words for one in found], listed=len(found) > 1)
    return [words, *_plot(plots.plot_rank_correlation(found)), Table(("estimate", *COLUMNS[1:]), rows)]


def _history(study: Study, target: Target, name: str) -> list[Part]:
    return _plot(plots.plot_history(study, target=target, name=name))


def _importance_of(study: Study, target: Target, name: str) -> list[Part]:
    shares, unweighed = _weigh(study, target)
    return _importance(shares) if shares else unweighed


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
    for title, sentences in list(explanation.sections().items())[1:]:  # the summary says the best
        yield Heading(title)
        yield Sentences(sentences, listed=len(sentences) > 1)


def _weigh(study: Study, target: Target | None = None) -> tuple[Importance | None, list[Part]]:
    """The importances of a study that has trials enough; an error, if any, in words."""
    if len(scored(study, target)) < MIN_TRIALS:
        return None, []
    return _tried(lambda: importance(study, target=target))


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
