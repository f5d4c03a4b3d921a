"""A study's results in words: the leaders, the winner, and how well the winner does outside the search."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from optnas.cli.messages import say
from optnas.limits import in_words

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from optnas.cli.job import Job
    from optnas.objective import Objective
    from optnas.search.best import Best
    from optnas.storage.base import Outline, Storage


def best_values(study: optuna.Study, storage: Storage, rows: Sequence[Outline]) -> str:
    """The best value, or the values of a trial on the front where there are several objectives."""
    from optnas.pareto import leaders, losses  # not optnas.analysis, which imports scikit-learn
    from optnas.private import study_id
    from optnas.storage.base import complete

    front = leaders(study, complete(rows), partial(storage.trials_of, study_id(study)), 1)
    if not front:
        return ""
    first = front[int(losses(study, front)[:, 0].argmin())]
    values = "; ".join(map(in_words, first.values))
    return values if len(study.directions) == 1 else f"{values} and {len(front) - 1} more"


def show_trials(study: optuna.Study) -> bool:
    """Print how the trials ended, and the leaders. Returns whether there are any leaders."""
    from optnas import record
    from optnas.analysis.leaderboard import front_table, leaderboard, leaderboard_table
    from optnas.analysis.trust import screening
    from optnas.pareto import front_trials

    trials = study.get_trials(deepcopy=False)
    ends = Counter(_state(trial) for trial in trials)
    counted = ", ".join(f"{n} {words}" for words, n in ends.most_common())
    say(f"\n{len(trials)} trials" + (f": {counted}; " if counted else ", ") + _counting(trials))
    audited = [str(trial.number) for trial in trials if record.AUDIT_OF.of(trial) is not None]
    if audited:
        say(
            f"Networks that were known, but trained again to see whether equal networks get equal "
            "values: "
            f"trial {', '.join(audited)}."
        )
    for words in screening(study):
        say(words)
    if len(study.directions) > 1:
        front = front_trials(study)
        if front:
            say(front_table(study))
        return bool(front)
    rows = leaderboard(study)
    if rows:
        say(leaderboard_table(rows))
    return bool(rows)


def _state(trial: FrozenTrial) -> str:
    from optnas import record

    kind = record.end(trial)
    if kind is record.End.OPEN:
        return trial.state.name.lower()
    return "with a known network" if kind is record.End.TWIN else kind.value


def _counting(trials: Sequence[FrozenTrial]) -> str:
    from optnas import record

    return f"{record.n_counted(trials)} count toward --trials"


def show_best(job: Job, best: Best, n_seeds: int, max_epochs: int | None = None) -> None:
    """Print the winner's decisions, its score in the search, and its scores when tested and trained anew."""
    from optnas import record
    from optnas.analysis.words import answer_in_words
    from optnas.errors import UntestableError
    from optnas.search.front import in_figures

    several = len(job.objective.values) > 1
    scores = in_figures(best) if several else f"{', '.join(job.objective.values)} {best.value:.4f}"
    weights = record.weights_in_words(best.trial)
    how = f", with weights {weights}" if weights else ""
    say(f"\n{'Picked' if several else 'Best'}: trial {best.trial.number}, {scores} in the search{how}")
    if best.expected is not None and best.scatter is not None and best.near_best is not None:
        sure = "over 99%" if best.near_best > 0.99 else f"{best.near_best:.0%}"
        say(
            f"Expected when trained anew: {best.expected:.4f} ± {best.scatter:.4f}, since single trainings "
            f"differ. The probability is {sure} that no other of the search is better by more than that."
        )
    for name, value in best.params.items():
        say(f"  {name} = {answer_in_words(value)}")
    if job.objective.estimator.keeps_weights:
        try:
            say("\nTest data, which the search never saw:\n  as searched  " + _metrics([best.test()]))
        except FileNotFoundError as error:
            say(f"\nThe weights of the search cannot be tested: {error}")
        except UntestableError as error:
            say(f"\nThere is no test: {error}")
    if n_seeds:
        say(f"\nTrained anew from {n_seeds} seeds (mean ± standard deviation):")
        runs = best.retrain(n_seeds, max_epochs)
        say("  the winner   " + _metrics(runs))
        if job.baseline is not None:
            others = train_baseline(job, best, n_seeds, max_epochs)
            say("  by hand      " + _metrics(others))
            if n_seeds > 1:
                say("  difference   " + _differences(runs, others) + "  (95 % interval, pairs of one seed)")
            for words in _over_limits(job):
                say(f"               {words}")


def find_picked(study: optuna.Study, objective: Objective, words: Sequence[str]) -> Best:
    """The member of the front that `--pick` means: `knee`, the number of a trial, or limits (`flops<=2e6`).

    Raises:
        ValueError: it is none of these, or there is no such trial on the front.
    """
    from optnas.search.front import front, knee, pick

    members = front(study, objective)
    if list(words) in ([], ["knee"]):
        return knee(members)
    if len(words) == 1 and words[0].isdecimal():
        for member in members:
            if member.trial.number == int(words[0]):
                return member
        numbers = ", ".join(str(member.trial.number) for member in members)
        raise ValueError(f"--pick {words[0]}: the front has the trials {numbers}.")
    limits: dict[str, tuple[float | None, float | None]] = {}
    for word in words:
        found = re.fullmatch(r"\s*(.+?)\s*(<=|>=)\s*(\S+)\s*", word)
        try:
            name, sign, number = found.groups() if found else ("", "", "none")
            low, high = limits.get(name, (None, None))
            limits[name] = (low, float(number)) if sign == "<=" else (float(number), high)
        except ValueError:
            raise ValueError(
                f"--pick {word!r}: give knee, the number of a trial, or limits, such as --pick 'flops<=2e6'."
            ) from None
    return pick(members, limits)


def train_baseline(job: Job, best: Best, n_seeds: int, max_epochs: int | None) -> list[dict[str, float]]:
    """Metrics of the user's own network, trained as the winner is, from the same seeds; kept in the study."""
    from optnas import record
    from optnas.search.best import train
    from optnas.search.provenance import source_hash

    assert job.baseline is not None
    who = source_hash(job.baseline)
    by_hand = _by_hand(job)
    runs = record.retrained(best.study, who, max_epochs)
    for i in range(len(runs), n_seeds):
        seed, origin = best.seed_of(i), record.origin(best.study)
        runs.append(train(by_hand, best.params, seed, max_epochs, origin=origin))
        record.write_retrained(best.study, who, max_epochs, runs)
    return runs[:n_seeds]


def _by_hand(job: Job) -> Objective:
    from optnas.objective import Objective

    assert job.baseline is not None
    given = job.objective
    return Objective(
        job.baseline, given.estimator, values=given.values, example=given.example, facts=given.facts
    )


def _over_limits(job: Job) -> Iterator[str]:
    """The limits of the search that the user's own network breaks, as far as they can be computed."""
    facts = _by_hand(job).foresee({})
    for limit in job.objective.limits:
        if limit.name in facts and limit.violation(facts[limit.name]) > 0:
            yield f"is over a limit: {limit.name} is {in_words(facts[limit.name])}, and {limit}"


def _metrics(runs: Sequence[Mapping[str, float]]) -> str:
    from optnas.search.best import Mean

    return "  ".join(f"{name} {Mean.of([run[name] for run in runs])}" for name in runs[0])


def _differences(runs: Sequence[Mapping[str, float]], others: Sequence[Mapping[str, float]]) -> str:
    """What the first have more than the second, of the pairs of one seed, with its interval by Student."""
    import numpy as np
    from scipy import stats

    words = []
    for name in runs[0]:
        if name not in others[0]:
            continue
        pairs = np.array([run[name] - other[name] for run, other in zip(runs, others, strict=True)])
        half = stats.t.ppf(0.975, len(pairs) - 1) * pairs.std(ddof=1) / len(pairs) ** 0.5
        mean = pairs.mean()
        words.append(f"{name} {mean:+.4f} ({mean - half:+.4f} to {mean + half:+.4f})")
    return "  ".join(words)


def export_best(best: Best, path: Path) -> Path:
    """Write the winner with its weights, as ONNX (`.onnx`) or a torch.export program (`.pt2`)."""
    from optuna.trial import FixedTrial

    from optnas.export import to_onnx, to_torch_export

    write = {".onnx": to_onnx, ".pt2": to_torch_export}[path.suffix]
    return write(best.model(), best.objective.example_for(FixedTrial(best.params)), path)
