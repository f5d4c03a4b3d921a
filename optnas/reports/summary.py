"""The parts of a report in words and tables: what ended how, what is best, how sure, how to get it again."""

from __future__ import annotations

import math
import shlex
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from optuna.study import Study
from optuna.trial import FixedTrial, FrozenTrial, TrialState

from optnas import record
from optnas.analysis.cells import cells
from optnas.analysis.leaderboard import Row, fact_columns, params_in_words
from optnas.analysis.sample import n_counted, what_is_shown
from optnas.analysis.trials import maximizes, objective_names, scored
from optnas.analysis.trust import screening
from optnas.analysis.words import answer_in_words
from optnas.drawing.draw import draw
from optnas.drawing.draw_cell import draw_cell
from optnas.errors import describe_error
from optnas.facts import flops_by_operator
from optnas.limits import in_words
from optnas.objective import Objective
from optnas.record import End, Reason, Why, end
from optnas.reports.page import Code, Drawing, Heading, Part, Sentences, Table

_AGAIN = (
    "One worker and the versions, data and threads above give the same trials. If the study file names "
    "a sampler or a pruner, give them to create_study too."
)
_REASONS = 3  # named in the summary
_ON_FRONT = 20  # trials in a table
_WORDS = {
    End.COMPLETE: "complete",
    End.TWIN: "with a known network (not scored again)",
    End.PRUNED: "pruned",
    End.INFEASIBLE: "infeasible",
    End.FAILED: "failed",
    End.OPEN: "not finished",
}


def of_one(study: Study, rows: Sequence[Row]) -> Iterator[Part]:
    """What happened, and what is best; of a study with one objective."""
    sentences = [*_ended(study)]
    if not rows:
        yield Sentences([*sentences, _nothing(study)])
    else:
        [metric] = objective_names(study)
        best = rows[0]
        goal = "largest" if maximizes(study) else "smallest"
        sentences.append(f"The {goal} {metric} is {in_words(best.value)}, of trial {best.trial}.")
        if len(rows) > 1:
            sentences.append(f"The runner-up, trial {rows[1].trial}, has {in_words(rows[1].value)}.")
        yield Sentences(sentences)
        n_measured = sum(record.TWIN_OF.of(trial) is None for trial in scored(study))
        sure = f"How sure: the best of {_several(n_measured, 'measurement')} is partly luck. "
        sure += _anew(study, best.trial, metric)
        yield Sentences([sure])
    yield from _failures(study)


def _anew(study: Study, number: int, metric: str) -> str:
    again = [(how, runs) for who, how, runs in _trainings(study) if who == number]
    scores = [
        f"{_mean([run[metric] for run in runs])} ({how}, {_several(len(runs), 'seed')})"
        for how, runs in again
        if all(metric in run for run in runs)
    ]
    if scores:
        return f"Trained anew it reached {' and '.join(scores)}."
    if again:
        return "What it reached when it was trained anew is below."
    if not _is_ours(study):
        return "Train it from other seeds before quoting it."
    return "How it does from other seeds, optnas best STUDY.py --retrain 5 will show."


def _is_ours(study: Study) -> bool:
    """Whether a study file can go on with it: optnas created the study, or scored its trials."""
    trials = study.get_trials(deepcopy=False)
    return record.PROVENANCE.of(study) is not None or any(record.metrics(trial) for trial in trials)


def _nothing(study: Study) -> str:
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return "No feasible trial has a finite value." if complete else "No trial has a value yet."


def of_several(study: Study, front: Sequence[FrozenTrial]) -> Iterator[Part]:
    """What happened; of a study with several objectives."""
    names = " and ".join(
        f"{name} ({'larger' if maximizes(study, i) else 'smaller'} is better)"
        for i, name in enumerate(objective_names(study))
    )
    sentences = [*_ended(study), f"Its objectives are {names}."]
    if front:
        sentences.append(
            f"{_several(len(front), 'trial')} on the front: no other trial is as good in all and better "
            "in one."
        )
    else:
        sentences.append(_nothing(study))
    yield Sentences(sentences)
    yield from _failures(study)


def _ended(study: Study) -> Iterator[str]:
    trials = study.get_trials(deepcopy=False)
    ends = Counter(end(trial) for trial in trials)
    counted = ", ".join(f"{ends[kind]} {words}" for kind, words in _WORDS.items() if ends[kind])
    some = what_is_shown(study)
    if some:
        yield some
    who = "These are" if some else "The study has"
    yield f"{who} {_several(len(trials), 'trial')}" + (f": {counted}." if counted else ".")
    if audited := [trial.number for trial in trials if record.AUDIT_OF.of(trial) is not None]:
        yield (
            f"Of networks that were known, {_several(len(audited), 'trial')} ({_listed(audited)}) trained "
            "all the same, to see whether equal networks get equal values; they do not count toward n_trials."
        )
    if differ := record.TWINS_DIFFER.of(study):
        yield differ
    yield from screening(study)
    if limits := record.limits(study):
        yield f"Its limits: {', '.join(map(str, limits))}. {_over_limits(trials)}"
    if seconds := sum(record.DURATION.of(trial) or 0.0 for trial in trials):
        yield f"Their estimates took {_duration(seconds)} of one worker's time."


def _over_limits(trials: Sequence[FrozenTrial]) -> str:
    """How many trials broke which limit; those that no sampler proposed have no trial."""
    broken = Counter(name for trial in trials for name in record.broken(trial))
    if not broken:
        return "No trial broke one."
    return ", ".join(f"{_several(n, 'trial')} broke that of {name}" for name, n in broken.items()) + "."


def _failures(study: Study) -> Iterator[Part]:
    """The most frequent reasons, if a trial failed: one of each kind in full."""
    failed = [trial for trial in study.get_trials(deepcopy=False) if end(trial) is End.FAILED]
    reasons = [Reason.of(trial) or Reason(Why.ERROR, "not recorded why") for trial in failed]
    words = {reason.cause or reason.words: reason.words for reason in reversed(reasons)}
    frequent = Counter(reason.cause or reason.words for reason in reasons).most_common(_REASONS)
    if frequent:
        yield Sentences([f"{n} failed: {words[cause]}" for cause, n in frequent], listed=True)


def architecture(study: Study, trial: FrozenTrial, objective: Objective | None) -> list[Part]:
    """Its facts, its drawing where the objective that builds it is given, its cells, its decisions."""
    known = record.facts_in_words(study, trial)
    said = Sentences([", ".join([f"Trial {trial.number}", *known]) + "."])
    found = cells(trial.params).items()
    drawings: list[Part] = [Drawing(draw_cell(edges), f"The cell {name}") for name, edges in found]
    if objective is not None:
        drawings += _built(trial, objective)
    decisions = [(name, answer_in_words(answer)) for name, answer in trial.params.items()]
    return [said, *drawings, Table(("decision", "answer"), decisions, numbers=False)]


def _built(trial: FrozenTrial, objective: Objective) -> list[Part]:
    """The network's drawing, and where its FLOPs go."""
    try:
        example = objective.example_for(FixedTrial(trial.params))
        with torch.device("meta"):
            model = objective.build(FixedTrial(trial.params))
            drawing = Drawing(draw(model, example), "The network")
        flops = flops_by_operator(model, example)
    except Exception as error:  # the objective may have changed since: the rest of the report stands
        return [Sentences([f"It could not be drawn: {describe_error(error)}"])]
    total = sum(flops.values())
    rows = [(name, f"{n / total:.1%}") for name, n in flops.items()]
    return [drawing, *([Table(("operator", "share of FLOPs"), rows)] if rows else [])]


def leaders(rows: Sequence[Row], metric: str) -> Table:
    """The best trials, a row each; facts that none of them has are left out."""
    columns = fact_columns(rows)
    numbers = ((str(r.trial) for r in rows), (in_words(r.value) for r in rows), *columns.values())
    cells = list(zip(*numbers, strict=True))
    return Table(("trial", metric, *columns), cells, below=[row.params for row in rows])


def front_table(study: Study, front: Sequence[FrozenTrial]) -> list[Part]:
    """The trials of the front, in the order of the first objective."""
    shown = sorted(front, key=lambda trial: trial.values[0], reverse=maximizes(study))[:_ON_FRONT]
    rows = [(str(trial.number), *map(in_words, trial.values)) for trial in shown]
    table = Table(
        ("trial", *objective_names(study)), rows, below=[params_in_words(trial.params) for trial in shown]
    )
    more = len(front) - len(shown)
    return [table, Sentences([f"And {more} more."])] if more else [table]


def retrained(study: Study) -> Table | None:
    """Every retraining beside the score of the search: mean ± standard deviation, a row per metric."""
    found: dict[str, list[dict[str, float]]] = {}
    trials = {trial.number: trial for trial in study.get_trials(deepcopy=False)}
    for who, how, runs in _trainings(study):
        if who in trials and (searched := record.metrics(trials[who])):
            found.setdefault(f"trial {who}, in the search", [searched])
        name = "by hand" if who is None else f"trial {who}, anew"
        found[f"{name}, {how}, {_several(len(runs), 'seed')}"] = runs
    if not found:
        return None
    names = dict.fromkeys(name for runs in found.values() for run in runs for name in run)
    rows = [(m, *(_mean([run[m] for run in runs if m in run]) for runs in found.values())) for m in names]
    return Table(("metric", *found), rows)


def _trainings(study: Study) -> Iterator[tuple[int | None, str, list[dict[str, float]]]]:
    """Which trial was trained anew, None for the design by hand; for how long; the metrics of each seed."""
    for kept in record.all_retrained(study):
        who, epochs, runs = kept["who"], kept["max_epochs"], kept["runs"]
        if runs:
            how = "as searched" if epochs is None else f"{epochs} epochs"
            yield who if isinstance(who, int) else None, how, runs


def _mean(values: Sequence[float]) -> str:
    finite = [value for value in values if math.isfinite(value)]
    mean = f"{statistics.fmean(finite):.4f}" if finite else ""
    if len(finite) > 1:
        mean += f" ± {statistics.stdev(finite):.4f}"
    n_lost = len(values) - len(finite)
    return f"{mean} ({n_lost} of {len(values)} not finite)".strip() if n_lost else mean


def reproduce(study: Study, best: FrozenTrial | None) -> list[Part]:
    """What the results depend on, and what to type to get them again."""
    provenance = record.PROVENANCE.of(study) or {}
    seed = record.SEED.of(study)
    facts: dict[str, Any] = {"study": study.study_name, "seed": seed}
    if best is not None:
        facts[f"seed of trial {best.number}"] = record.SEED.of(best)
    shown = [(name, str(fact)) for name, fact in {**facts, **provenance}.items() if fact is not None]
    name = shlex.quote(study.study_name)
    commands = f"optnas resume STUDY.py --study-name {name}\n"
    commands += f"optnas best STUDY.py --study-name {name} --retrain 5"
    parts: list[Part] = [Table(("what", "was"), shown, numbers=False)]
    if not _is_ours(study):
        return parts
    parts += [Heading("Go on, and train anew"), Code(commands)]
    if seed is not None:
        parts += [Heading("The same search again"), Sentences([_AGAIN]), Code(_again(study, seed))]
    if best is not None:
        parts += [
            Heading("The best network, untrained"),
            Code(f"from optnas.trial import replay\n\nmodel = space(replay({best.params!r}))"),
        ]
    return parts


def _again(study: Study, seed: int) -> str:
    n_trials = n_counted(study)
    name = f"{study.study_name}-again"
    return (
        "import optnas\n\n"
        f"study = optnas.create_study(objective, study_name={name!r}, seed={seed})\n"
        f"optnas.optimize(study, objective, n_trials={n_trials})"
    )


def _several(n: int, what: str) -> str:
    """`1 trial`, `2 trials`."""
    return f"{n:,} {what}" + ("" if n == 1 else "s")


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def _duration(seconds: float) -> str:
    for unit, size in (("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
