"""What a search tells other programs while it runs: JSON objects, one a line."""

from __future__ import annotations

import json
import math
import sys
import time
from collections import Counter
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from optnas import record
from optnas.pareto import front_trials
from optnas.progress.table import best, ending


class JsonLines:
    """One JSON object per line on the standard output. All have `event` and `time` (seconds since 1970).

    - `start`: `study`, `n_trials` (the budget, or null), `n_counted` (trials that count already), and, where
      the study has any, `limits` (name to the least and the most, either of them null).
    - `trial`, when one has finished: `number`, `state` (complete, twin, pruned, infeasible or failed),
      `values` (null where there are none), `seconds`, `params`, and, where known, `facts` (name to number;
      `n_params` and `flops` stand beside it, too), `metrics`, `twin_of`, `audit_of` (a twin that was trained
      all the same), `reason` (in words) and `reason_kind` (see `record.Why`), `violations` (limit to by how
      much it is broken, as a share of the bound), and `worker` (host and process).
    - `best`, when a trial is better than all before: `number`, `value`; with several objectives `front`, when
      a trial joins it: `number`, `values`, and `size`, how many are on it now.
    - `end`: `status` (done, interrupted or failed), `reason` (why not done), `seconds`, how many trials of
      the study are `complete`, `twin`, `pruned`, `infeasible` and `failed`, and `best` (number and value, or
      null) or, with several objectives, `front` (a list of number and values). Where the storage answers no
      more, without these.

    Numbers that JSON does not have (NaN, infinity) are null.
    """

    def __init__(self, study: optuna.Study, n_trials: int | None) -> None:
        self._study, self._n_trials = study, n_trials
        self._best: FrozenTrial | None = None

    def begin(self) -> None:
        self._started = time.perf_counter()
        trials = self._study.get_trials(deepcopy=False)
        self._best = best(self._study, trials)
        n_counted = record.n_counted(trials)
        limits = record.limits_as_kept(record.limits(self._study))
        known = {"limits": limits} if limits else {}
        self._write(
            "start", study=self._study.study_name, n_trials=self._n_trials, n_counted=n_counted, **known
        )

    def show(self, trial: FrozenTrial) -> None:
        known: dict[str, Any] = {}
        if facts := record.facts(trial):
            known["facts"] = facts
            known |= {name: facts[name] for name in ("n_params", "flops") if name in facts}
        if metrics := record.METRICS.of(trial):
            known["metrics"] = metrics
        if (twin := record.TWIN_OF.of(trial)) is not None:
            known["twin_of"] = twin
        if (audited := record.AUDIT_OF.of(trial)) is not None:
            known["audit_of"] = audited
        if (reason := record.Reason.of(trial)) is not None:
            known |= {"reason": reason.words, "reason_kind": reason.kind.value}
        if violations := record.broken(trial):
            known["violations"] = violations
        if attempts := record.attempts(trial):
            known["worker"] = {key: attempts[-1].get(key) for key in ("host", "pid")}
        seconds = trial.duration.total_seconds() if trial.duration else 0.0
        self._write(
            "trial",
            number=trial.number,
            state=ending(trial),
            values=trial.values,
            seconds=round(seconds, 3),
            params=trial.params,
            **known,
        )
        if len(self._study.directions) > 1:
            front = front_trials(self._study)
            if trial.number in [member.number for member in front]:
                self._write("front", number=trial.number, values=trial.values, size=len(front))
            return
        now = best(self._study, self._study.get_trials(deepcopy=False))
        if now is not None and (self._best is None or now.number != self._best.number):
            self._best = now
            self._write("best", number=now.number, value=now.values[0])

    def finish(self, error: BaseException | None) -> None:
        status, reason = "done", {}
        if error is not None:
            status = "failed" if isinstance(error, Exception) else "interrupted"
            reason = {"reason": str(error)}
        found: dict[str, Any] = {}
        try:
            found = self._found()
        finally:
            seconds = round(time.perf_counter() - self._started, 3)
            self._write("end", status=status, **reason, seconds=seconds, **found)

    def _found(self) -> dict[str, Any]:
        trials = self._study.get_trials(deepcopy=False)
        ends = Counter(ending(trial) for trial in trials if trial.state.is_finished())
        counted = {name: ends[name] for name in ("complete", "twin", "pruned", "infeasible", "failed")}
        if len(self._study.directions) > 1:
            front = front_trials(self._study)
            return {**counted, "front": [{"number": t.number, "values": t.values} for t in front]}
        first = best(self._study, trials)
        found = None if first is None else {"number": first.number, "value": first.values[0]}
        return {**counted, "best": found}

    def _write(self, event: str, **fields: Any) -> None:
        line = _finite({"event": event, "time": round(time.time(), 3), **fields})
        print(json.dumps(line, allow_nan=False), file=sys.stdout, flush=True)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
