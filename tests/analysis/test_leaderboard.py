import json

import optuna
import pytest
from rich.console import Console

from optnas.analysis.leaderboard import leaderboard, leaderboard_table, params_in_words


def test_best_first_twins_not_repeated(study: optuna.Study) -> None:
    rows = leaderboard(study, k=3)
    assert [(r.rank, r.trial, r.value) for r in rows] == [(1, 3, 0.9), (2, 1, 0.7), (3, 7, 0.6)]
    assert rows[1].twins == (2,)
    assert (rows[0].n_params, rows[0].flops) == (400, 1000)
    assert rows[0].params == "depth=2, block.0.op=conv, block.1.op=pool, lr=0.001"
    assert json.loads(json.dumps(rows[0].to_dict()))["trial"] == 3


def test_more_rows_than_trials(study: optuna.Study) -> None:
    assert len(leaderboard(study, k=100)) == 4
    assert leaderboard(optuna.create_study()) == []
    with pytest.raises(ValueError, match="k=-1"):
        leaderboard(study, k=-1)


def test_minimizing_and_missing_facts() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=4)
    rows = leaderboard(study)
    assert [r.value for r in rows] == sorted(t.value for t in study.trials)
    assert rows[0].n_params is None


def test_by_another_number(study: optuna.Study) -> None:
    assert leaderboard(study, k=1, target=lambda t: -t.user_attrs["n_params"])[0].trial == 0
    several = optuna.create_study(directions=["minimize", "minimize"])
    with pytest.raises(ValueError, match="2 objectives"):
        leaderboard(several)


def test_table_reads_as_words(study: optuna.Study) -> None:
    console = Console(width=120)
    with console.capture() as capture:
        console.print(leaderboard_table(leaderboard(study)))
    assert "block.0.op=conv" in capture.get()
    assert "1,000" in capture.get()


def test_params_in_words() -> None:
    assert (
        params_in_words({"lr": 0.00123456, "act": None, "bias": True}) == "lr=0.001235, act=None, bias=True"
    )


def test_decisions_are_no_markup() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(
        lambda trial: trial.suggest_int("a[b]", 1, 1) + trial.suggest_int("[/x]", 1, 1), n_trials=1
    )
    console = Console(width=120)
    with console.capture() as capture:
        console.print(leaderboard_table(leaderboard(study)))
    assert "a[b]=1, [/x]=1" in capture.get()
