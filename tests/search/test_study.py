import optuna
import pytest
from torch import nn

from optnas import record
from optnas.errors import ParamsMismatchError
from optnas.objective import Objective
from optnas.search.study import check_values, create_study
from optnas.space import Choice
from optnas.strategy import LocalSearchSampler, PredictorSampler
from optnas.tasks import Classification


def net(trial):
    return nn.Linear(4, trial.suggest_int("width", 1, 50))


def estimate(model, trial):
    return {"loss": float(trial.number)}


def objective_of(space=net):
    return Objective(space, estimate, values={"loss": "minimize"}, example=(2, 4))


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/s.db"


def test_it_is_an_optuna_study_named_after_the_space_with_directions_of_the_objective(url):
    study = create_study(objective_of(), storage=url)
    assert type(study) is optuna.Study
    assert study.study_name == "net"
    assert study.direction == optuna.study.StudyDirection.MINIMIZE
    assert optuna.load_study(study_name="net", storage=url).metric_names == ["loss"]


def test_a_second_call_goes_on_with_the_study_and_its_seed(url):
    first = create_study(objective_of(), storage=url, seed=5)
    first.optimize(objective_of(), n_trials=2)
    second = create_study(objective_of(), storage=url, seed=6)
    assert record.SEED.of(second) == 5
    assert len(second.trials) == 2


def test_a_resumed_seeded_study_does_not_repeat_its_first_points(url):
    for _ in range(2):
        create_study(objective_of(), storage=url, seed=5).optimize(objective_of(), n_trials=3)
    widths = [t.params["width"] for t in create_study(objective_of(), storage=url).trials]
    assert widths[:3] != widths[3:]


def test_equal_seeds_give_equal_searches():
    runs = []
    for _ in range(2):
        study = create_study(objective_of(), seed=3)
        study.optimize(objective_of(), n_trials=12)
        runs.append([t.params for t in study.trials])
    assert runs[0] == runs[1]


@pytest.mark.parametrize("values", [{"loss": "maximize"}, {"error": "minimize"}])
def test_another_value_needs_another_study(url, values):
    create_study(objective_of(), study_name="s", storage=url)
    other = Objective(net, estimate, values=values, example=(2, 4))
    with pytest.raises(ParamsMismatchError, match=r"'s' began in order to minimize loss, .* another name"):
        create_study(other, study_name="s", storage=url)


def test_a_study_that_an_older_optnas_began_is_refused_with_the_way_out(url):
    older = optuna.create_study(study_name="s", storage=url, direction="minimize")
    older.set_user_attr("seed", 3)
    older.set_user_attr("provenance", {"optnas": "0.1.0", "space": "abc"})
    with pytest.raises(ParamsMismatchError, match=r"'s' was begun by optnas 0\.1\.0, .* another name"):
        create_study(objective_of(), study_name="s", storage=url)
    assert older.user_attrs.keys() == {"seed", "provenance"}


def test_a_users_own_attributes_of_those_names_are_no_older_study(url):
    theirs = optuna.create_study(study_name="s", storage=url, direction="minimize")
    theirs.set_user_attr("seed", 3)
    theirs.set_user_attr("provenance", "the lab next door")
    assert record.SEED.of(create_study(objective_of(), study_name="s", storage=url, seed=5)) == 5


@pytest.mark.parametrize("directions", [["maximize"], ["minimize", "minimize"]])
def test_a_study_of_optuna_alone_that_optimizes_something_else_is_recognized(directions):
    study = optuna.create_study(directions=directions)
    with pytest.raises(
        ParamsMismatchError, match=r"a value, and .* minimize loss.*create_study\(objective\)"
    ):
        check_values(study, objective_of())


def test_a_study_of_optuna_alone_in_the_objectives_direction_will_do():
    check_values(optuna.create_study(direction="minimize"), objective_of())


def test_a_sampler_object_is_taken_as_it_is():
    sampler = optuna.samplers.RandomSampler()
    assert create_study(objective_of(), sampler=sampler).sampler is sampler


def test_what_our_samplers_learned_serves_the_next_trial():
    made = []

    def sampler(seed):
        made.append(LocalSearchSampler(seed=seed))
        return made[-1]

    study = create_study(objective_of(), sampler=sampler)
    study.optimize(objective_of(), n_trials=3)
    assert made == [study.sampler]


def test_by_default_it_is_the_sampler_that_measured_best():
    assert isinstance(create_study(objective_of()).sampler, PredictorSampler)


def test_by_default_a_bad_beginning_prunes_nothing_and_a_bad_eighth_does(url):
    curves = [[1.0] * 16] * 6 + [[9.0] * 2 + [0.5] * 14, [9.0] * 3 + [0.5] * 13]

    def estimate(model, trial):
        for step, value in enumerate(curves[trial.number]):
            trial.report(value, step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return {"loss": value}

    estimate.max_epochs = 16
    objective = Objective(net, estimate, values={"loss": "minimize"}, example=(1, 4), reuse_twins=False)
    study = create_study(objective, storage=url)
    study.optimize(objective, n_trials=8)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 7 + ["PRUNED"]
    assert study.trials[7].last_step == 2


def test_a_changed_space_is_told(url):
    create_study(objective_of(), study_name="s", storage=url)
    with pytest.warns(UserWarning, match=r"(?s)'s' began under other circumstances.*space: "):
        create_study(objective_of(Choice("op", {"a": net})), study_name="s", storage=url)


def test_a_study_that_goes_on_with_another_training_is_told_so(tmp_path, training, linear, url):
    def begin(**changes):
        objective = Objective(linear, training(tmp_path, **changes))
        return create_study(objective, study_name="s", storage=url)

    study = begin()
    begin()  # a warning would be an error
    for changes, words in [
        ({"max_epochs": 4}, "max_epochs: 3 when the study began, 4 now"),
        ({"task": Classification(2, label_smoothing=0.1)}, "task: [0-9a-f]+ when the study began"),
        ({"accumulate_grad_batches": 2}, "trainer: "),
    ]:
        with pytest.warns(UserWarning, match=words):
            begin(**changes)
    known = record.PROVENANCE.of(study)
    record.PROVENANCE.write(study, {name: known[name] for name in known if name != "max_epochs"})
    with pytest.warns(UserWarning, match="task: ") as told:  # of an optnas that did not record the epochs
        begin(max_epochs=4, task=Classification(3))
    assert "max_epochs" not in str(told[0].message)
