import json

import optuna
import pytest
from optuna.trial import create_trial
from rich.console import Console

from optnas import record
from optnas.analysis.leaderboard import fact_columns, leaderboard, leaderboard_table, params_in_words


def test_best_first_twins_not_repeated(study: optuna.Study) -> None:
    rows = leaderboard(study, k=3)
    assert [(r.rank, r.trial, r.value) for r in rows] == [(1, 3, 0.9), (2, 1, 0.7), (3, 7, 0.6)]
    assert rows[1].twins == (2,)
    assert rows[0].facts == {"n_params": 400, "flops": 1000}
    assert rows[0].params == "depth=2, block.0.op=conv, block.1.op=pool, lr=0.001"
    told = json.loads(json.dumps(rows[0].to_dict()))
    assert set(told) == {"rank", "trial", "value", "facts", "params", "twins", "weights"}
    assert told["facts"] == rows[0].facts


def test_scores_of_weights_that_others_trained_are_told_apart(study: optuna.Study) -> None:
    sources = [{"from": 3, "how": "exact", "share": 0.5}, {"from": "shared"}, None]
    for value, source in zip((0.97, 0.96, 0.95), sources, strict=True):
        attrs = {} if source is None else {record.WEIGHTS.name: source}
        study.add_trial(create_trial(value=value, user_attrs=attrs))
    assert fact_columns(leaderboard(study, 3))["weights"] == ["of trial 3", "shared", "its own"]
    assert "weights" not in fact_columns(leaderboard(study, 5)[2:])


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
    assert rows[0].facts == {}


def test_by_another_number(study: optuna.Study) -> None:
    assert leaderboard(study, k=1, target=lambda t: -record.facts(t)["n_params"])[0].trial == 0
    several = optuna.create_study(directions=["minimize", "minimize"])
    with pytest.raises(ValueError, match="2 objectives"):
        leaderboard(several)


def test_table_reads_as_words(study: optuna.Study) -> None:
    console = Console(width=120)
    with console.capture() as capture:
        console.print(leaderboard_table(leaderboard(study)))
    assert "block.0.op=conv" in capture.get()
    assert "1,000" in capture.get()


def test_whatever_facts_a_study_has_are_shown_by_title_and_unit(study: optuna.Study) -> None:
    record.write_fact_kinds(study, {"n_params": record.FactKind("n_params", "weights", "per [net]")})
    study.add_trial(create_trial(value=0.95, user_attrs={record.FACTS.name: {"other": 2.5}}))
    rows = leaderboard(study, 2)
    assert fact_columns(rows) == {
        "weights per [net]": ["", "400"],
        "flops": ["", "1,000"],  # of which the study says nothing
        "other": ["2.5", ""],
    }
    console = Console(width=160)
    with console.capture() as capture:
        console.print(leaderboard_table(rows))
    assert "weights per [net]" in capture.get()


def test_names_that_would_command_a_terminal_are_told_as_escapes() -> None:
    study = optuna.create_study()
    study.optimize(lambda trial: trial.suggest_int("a\x1b[31m", 1, 1), n_trials=1)
    console = Console(width=120)
    with console.capture() as capture:
        console.print(leaderboard_table(leaderboard(study)))
    assert "a\\x1b[31m=1" in capture.get()
    assert "\x1b[31m" not in capture.get()


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


def test_limits_stand_in_the_title(study: optuna.Study) -> None:
    study.set_user_attr(record.LIMITS.name, {"flops": [None, 2e6], "n_params": [10, 500]})
    rows = leaderboard(study, 2)
    title = leaderboard_table(rows).title
    assert title == "Best architectures within flops <= 2,000,000, 10 <= n_params <= 500"
    assert "limits" not in rows[0].to_dict()
