import optuna

from optnas.analysis.padded import padded


def test_only_what_was_not_asked_is_filled(study: optuna.Study) -> None:
    before = [dict(trial.params) for trial in study.trials]
    filled = padded(study.trials)
    names = {name for params in before for name in params}
    for trial, params in zip(filled, before, strict=True):
        assert set(trial.params) == set(trial.distributions) == names
        assert params.items() <= trial.params.items()
        assert all(d._contains(d.to_internal_repr(trial.params[n])) for n, d in trial.distributions.items())
    assert [trial.params for trial in study.trials] == before


def test_the_seed_decides_the_answers(study: optuna.Study) -> None:
    trials = study.trials * 4
    assert padded(trials, 1) == padded(trials, 1)
    assert padded(trials, 1) != padded(trials, 2)
