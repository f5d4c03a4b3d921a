"""A finished search on one page: what is best, why, how sure, and how to get it again."""

from __future__ import annotations

import shlex
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from optuna.study import Study
from optuna.trial import FixedTrial, FrozenTrial

from optnas.analysis.explain import Explanation, explain
from optnas.analysis.leaderboard import Row, leaderboard
from optnas.analysis.page import (
    Code,
    Drawing,
    Heading,
    Part,
    Plot,
    Section,
    Sentences,
    Table,
    to_html,
    to_markdown,
)
from optnas.analysis.trials import End, end, maximizes
from optnas.facts.draw import draw
from optnas.objective import Objective, describe_error

_LEADERS = 10
_AXES = 8  # of parallel coordinates
_REASONS = 3  # named in the summary
_WORDS = {
    End.COMPLETE: "complete",
    End.TWIN: "repeats of a known network, which were not scored again",
    End.PRUNED: "pruned",
    End.INFEASIBLE: "infeasible",
    End.FAILED: "failed",
    End.OPEN: "not finished",
}


def report(study: Study, path: str | Path, objective: Objective | None = None) -> Path:
    """Write what a search found to one file, and return its path.

    An `.html` file works without a network, in any browser, on a phone, light or dark. An `.md` file has the
    words and tables. Sections without data are left out. The best network is drawn where the `objective`
    that builds it is given.

    Raises:
        ValueError: several objectives, or a path that ends in neither.
    """
    path = Path(path)
    if path.suffix not in (".html", ".md"):
        raise ValueError(f"path={str(path)!r} must end in .html or .md.")
    if len(study.directions) > 1:
        raise ValueError(f"Study {study.study_name!r} has several objectives; a report explains one.")
    write = to_html if path.suffix == ".html" else to_markdown
    sections = [section for section in _sections(study, objective) if section.parts]
    path.write_text(write(f"Search {study.study_name}", sections), encoding="utf-8")
    return path


def _sections(study: Study, objective: Objective | None) -> Iterator[Section]:
    metric = next(iter(study.metric_names or ["value"]))
    rows = leaderboard(study, _LEADERS)
    retrained = _retrained(study)
    explanation: Explanation | None = None
    if len(rows) > 1:
        explanation = explain(study)
    yield Section("Summary", [*_summary(study, metric, rows, retrained)])
    if rows:
        yield Section("Best architecture", _best(study.trials[rows[0].trial], objective))
        yield Section("Leaderboard", [_leaders(rows, metric)])
    yield Section("Trained anew", [retrained] if retrained else [])
    yield from _plots(study, metric, explanation)
    if explanation is not None:
        parts: list[Part] = []
        for title, sentences in list(explanation.sections().items())[1:]:  # the summary says the best
            parts += [Heading(title), Sentences(sentences, listed=len(sentences) > 1)]
        yield Section("Explanation", parts)
    yield Section("How to reproduce", _reproduce(study, rows))


def _summary(study: Study, metric: str, rows: list[Row], retrained: Table | None) -> Iterator[Part]:
    trials = study.get_trials(deepcopy=False)
    ends = Counter(end(trial) for trial in trials)
    counted = ", ".join(f"{ends[kind]} {words}" for kind, words in _WORDS.items() if ends[kind])
    sentences = [f"The study has {_several(len(trials), 'trial')}" + (f": {counted}." if counted else ".")]
    seconds = sum(float(t.user_attrs.get("duration", 0.0)) for t in trials)
    if seconds:
        sentences.append(f"Their estimates took {_duration(seconds)} of one worker's time.")
    if not rows:
        yield Sentences([*sentences, "No trial has a value yet."])
    else:
        best = rows[0]
        goal = "largest" if maximizes(study) else "smallest"
        sentences.append(f"The {goal} {metric} is {best.value:.5g}, of trial {best.trial}.")
        if len(rows) > 1:
            sentences.append(f"The runner-up, trial {rows[1].trial}, has {rows[1].value:.5g}.")
        yield Sentences(sentences)
        sure = f"How sure: the best of {_several(ends[End.COMPLETE], 'measurement')} is partly luck. "
        if retrained:
            sure += "What it reached when it was trained anew from other seeds is below."
        else:
            sure += "How it does from other seeds, optnas best STUDY.py --retrain 5 will show."
        yield Sentences([sure])
    reasons = Counter(str(t.user_attrs.get("reason", "unknown")) for t in trials if end(t) is End.FAILED)
    if reasons:
        named = [f"{n} failed: {reason}" for reason, n in reasons.most_common(_REASONS)]
        yield Sentences(named, listed=True)


def _best(trial: FrozenTrial, objective: Objective | None) -> list[Part]:
    facts = {
        "parameters": trial.user_attrs.get("n_params"),
        "FLOPs per sample": trial.user_attrs.get("flops"),
    }
    known = [f"{n:,} {name}" for name, n in facts.items() if isinstance(n, int)]
    parts: list[Part] = [
        Sentences([f"Trial {trial.number}" + "".join(f", {words}" for words in known) + "."])
    ]
    if objective is not None:
        parts.append(_drawing(trial, objective))
    decisions = [(name, f"{v:.4g}" if isinstance(v, float) else str(v)) for name, v in trial.params.items()]
    parts.append(Table(("decision", "answer"), decisions, numbers=False))
    return parts


def _drawing(trial: FrozenTrial, objective: Objective) -> Part:
    try:
        with torch.device("meta"):
            model = objective.build(FixedTrial(trial.params))
            return Drawing(draw(model, objective.example_for(FixedTrial(trial.params))))
    except Exception as error:  # the objective may have changed since: the rest of the report stands
        return Sentences([f"It could not be drawn: {describe_error(error)}"])


def _leaders(rows: Sequence[Row], metric: str) -> Table:
    def number(n: int | None) -> str:
        return "" if n is None else f"{n:,}"

    cells = [(str(r.trial), f"{r.value:.5g}", number(r.n_params), number(r.flops)) for r in rows]
    return Table(("trial", metric, "parameters", "FLOPs"), cells, below=[row.params for row in rows])


def _retrained(study: Study) -> Table | None:
    """Every retraining beside the score of the search: mean ± standard deviation."""
    found: dict[str, list[dict[str, float]]] = {}
    for key, runs in study.user_attrs.items():
        kind, _, rest = key.partition(":")
        who, _, epochs = rest.partition(":")
        if runs and kind in ("retrained", "baseline"):
            trained = "as searched" if epochs == "as searched" else f"{epochs} epochs"
            n = f"{trained}, {_several(len(runs), 'seed')}"
            found[f"trial {who}, {n}" if kind == "retrained" else f"by hand, {n}"] = runs
            if kind == "retrained" and (scored := study.trials[int(who)].user_attrs.get("metrics")):
                found.setdefault(f"trial {who}, in the search", [scored])
    found = dict(sorted(found.items(), reverse=True))
    if not found:
        return None
    metrics = list(dict.fromkeys(name for runs in found.values() for run in runs for name in run))
    rows = [
        (name, *(_mean([run[m] for run in runs if m in run]) for m in metrics))
        for name, runs in found.items()
    ]
    return Table(("trained", *metrics), rows)


def _mean(values: Sequence[float]) -> str:
    if not values:
        return ""
    mean = f"{statistics.fmean(values):.4f}"
    return f"{mean} ± {statistics.stdev(values):.4f}" if len(values) > 1 else mean


def _plots(study: Study, metric: str, explanation: Explanation | None) -> Iterator[Section]:
    from optnas.analysis import plots

    shares = explanation.importance if explanation else None
    asked = dict.fromkeys(name for t in study.get_trials(deepcopy=False) for name in t.params)
    top = {share.name for share in shares.decisions[:_AXES]} if shares else set(list(asked)[:_AXES])
    # In the order asked, so that a decision stands below the one that it depends on.
    axes = [name for name in asked if name in top]
    yield _plot("History", lambda: plots.plot_history(study, name=metric))
    yield _plot("Learning curves", lambda: plots.plot_learning_curves(study))
    yield _plot("Cost", lambda: plots.plot_front(study))
    if axes:
        yield _plot("Decisions", lambda: plots.plot_parallel(study, params=axes))
    if shares is not None and shares.decisions:
        table = Table(
            ("decision", "share", "95 %", "trials"),
            [
                (s.name, f"{s.value:.3f}", f"{s.low:.3f} to {s.high:.3f}", str(s.n_trials))
                for s in _top(shares)
            ],
        )
        said = Sentences(
            ["The share of the variance that a decision explains, among the trials where it is active."]
        )
        drawn = _plot("Importance", lambda: plots.plot_importance(shares))
        yield Section("Importance", [said, *drawn.parts, table])
    yield _plot("Timeline", lambda: plots.plot_timeline(study))


def _top(shares: Any) -> list[Any]:
    """Groups and pairs after the decisions, which are plotted already."""
    return [*shares.decisions[:_LEADERS], *shares.positions[:5], *shares.kinds[:5], *shares.pairs[:5]]


def _plot(title: str, make: Callable[[], Any]) -> Section:
    try:
        figure = make()
    except ValueError:  # nothing to plot, as the functions say
        return Section(title, [])
    return Section(title, [Plot(figure)] if figure.data else [])


def _reproduce(study: Study, rows: Sequence[Row]) -> list[Part]:
    provenance: Mapping[str, Any] = study.user_attrs.get("provenance", {})
    facts = {"study": study.study_name, "seed": study.user_attrs.get("seed"), **provenance}
    shown = [(name, str(fact)) for name, fact in facts.items() if fact is not None]
    name = shlex.quote(study.study_name)
    parts: list[Part] = [Table(("what", "was"), shown, numbers=False)]
    parts.append(
        Code(f"optnas resume STUDY.py --study-name {name}\noptnas best STUDY.py --study-name {name}")
    )
    if rows:
        params = study.trials[rows[0].trial].params
        parts.append(Sentences(["The best network, built anew (untrained):"]))
        parts.append(Code(f"from optnas.trial import replay\n\nmodel = space(replay({params!r}))"))
    return parts


def _several(n: int, what: str) -> str:
    return f"{n:,} {what}" + ("" if n == 1 else "s")


def _duration(seconds: float) -> str:
    for unit, size in (("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
