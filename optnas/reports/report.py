"""A finished search on one page: what is best, why, how sure, and how to get it again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from optuna.study import Study
from optuna.trial import FrozenTrial

from optnas import plots
from optnas.analysis.explain import Explanation, explain
from optnas.analysis.front import best_trials
from optnas.analysis.importance import Importance, importance
from optnas.analysis.leaderboard import leaderboard
from optnas.analysis.trials import maximizes, objective_names, objective_target, scored
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
    explanation = _or_none(lambda: explain(study))
    best = study.get_trials(deepcopy=False)[rows[0].trial] if rows else None
    yield Section("Summary", [*summary.of_one(study, rows)])
    if best is not None:
        yield Section("Best architecture", summary.architecture(best, objective))
        yield Section("Leaderboard", [summary.leaders(rows, metric)])
    yield Section("Trained anew", [retrained] if retrained else [])
    yield Section("History", _plot(lambda: plots.plot_history(study)))
    yield Section("Learning curves", _plot(lambda: plots.plot_learning_curves(study)))
    yield Section("Cost", _plot(lambda: plots.plot_front(study)))
    shares = explanation.importance if explanation else _or_none(lambda: importance(study))
    yield Section("Decisions", _decisions(study, shares))
    yield Section("Importance", _importance(shares) if shares else [])
    yield Section("Timeline", _plot(lambda: plots.plot_timeline(study)))
    yield Section("Explanation", [*_explanation(explanation)] if explanation else [])
    yield Section("How to reproduce", summary.reproduce(study, best))


def _of_several(study: Study, objective: Objective | None) -> Iterator[Section]:
    names = objective_names(study)
    targets = [objective_target(i) for i in range(len(names))]
    front = best_trials(study)
    yield Section("Summary", [*summary.of_several(study, front)])
    if front:
        table = summary.front_table(study, front)
        yield Section("Front", [*_plot(lambda: plots.plot_front(study)), *table])
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
            for part in (Heading(f"Best in {' and '.join(leads)}"), *summary.architecture(trial, objective))
        ],
    )
    for title, make in (("History", _history), ("Importance", _importance_of)):
        parts = {name: make(study, t, name) for name, t in zip(names, targets, strict=True)}
        yield Section(title, [p for name, found in parts.items() if found for p in (Heading(name), *found)])
    yield Section("Timeline", _plot(lambda: plots.plot_timeline(study)))
    yield Section("How to reproduce", summary.reproduce(study, None))


def _history(study: Study, target: Target, name: str) -> list[Part]:
    return _plot(lambda: plots.plot_history(study, target=target, name=name))


def _importance_of(study: Study, target: Target, name: str) -> list[Part]:
    shares = _or_none(lambda: importance(study, target=target))
    return _importance(shares) if shares else []


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
    return [Sentences([said]), *_plot(lambda: plots.plot_importance(shares)), table]


def _decisions(study: Study, shares: Importance | None) -> list[Part]:
    asked = list(dict.fromkeys(name for t in study.get_trials(deepcopy=False) for name in t.params))
    top = [share.name for share in shares.decisions[:_AXES]] if shares else asked[:_AXES]
    # In the order asked, so that a decision stands below the one that it depends on.
    axes = [name for name in asked if name in top]
    return _plot(lambda: plots.plot_parallel(study, params=axes)) if axes else []


def _explanation(explanation: Explanation) -> Iterator[Part]:
    for title, sentences in list(explanation.sections().items())[1:]:  # the summary says the best
        yield Heading(title)
        yield Sentences(sentences, listed=len(sentences) > 1)


def _plot(make: Callable[[], Any]) -> list[Part]:
    figure = _or_none(make)
    return [Plot(figure)] if figure is not None and figure.data else []


def _or_none(make: Callable[[], _T]) -> _T | None:
    """None of a study that has too little for it, as the functions say."""
    try:
        return make()
    except ValueError:
        return None
