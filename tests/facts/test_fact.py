import pytest
import torch
from torch import nn

from optnas import Fact, Objective, create_study, record
from optnas.facts import FLOPS, N_PARAMS, Measured, sketch
from optnas.facts.fact import preferred_device


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(0.5))


def test_the_usual_facts_are_the_same_with_and_without_a_recording() -> None:
    recorded = sketch(model, (2, 4)).facts
    assert recorded == {"n_params": 21, "flops": 2 * 4 * 3}
    assert {fact.name: fact.of(model(), (2, 4)) for fact in (N_PARAMS, FLOPS)} == recorded


@pytest.mark.parametrize("needs", ["batch", "device"])
def test_what_a_measure_does_to_the_model_and_to_random_states_does_not_last(needs) -> None:
    def careless(given: nn.Module, example: object) -> float:
        given[0].weight.data.zero_()
        given.eval()
        given(torch.rand(2, 4, device=given[0].weight.device)).sum().backward()
        return 1

    measured, state = model(), torch.get_rng_state()
    assert Fact("careless", careless, needs=needs).of(measured, (2, 4)) == 1
    assert measured.training
    assert measured[0].weight.abs().sum() > 0
    assert measured[0].weight.grad is None
    assert torch.equal(torch.get_rng_state(), state)


def test_a_device_fact_sees_the_model_where_torch_prefers_it() -> None:
    seen = []
    Fact("where", lambda m, example: seen.append(m[0].weight.device) or 0, needs="device").of(model(), (2, 4))
    assert [device.type for device in seen] == [preferred_device().type]
    available = torch.accelerator.is_available()
    assert available == (preferred_device().type != "cpu")


def test_bad_facts_say_what_to_give() -> None:
    with pytest.raises(ValueError, match="give a name of its own"):
        Fact("", lambda m, e: 0)
    with pytest.raises(ValueError, match="give a name of its own"):
        Fact("optnas:mine", lambda m, e: 0)
    with pytest.raises(ValueError, match="better='more'"):
        Fact("mine", lambda m, e: 0, better="more")  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(ValueError, match="needs='gpu'"):
        Fact("mine", lambda m, e: 0, needs="gpu")  # type: ignore[arg-type]  # as above
    with pytest.raises(TypeError, match="'mine': measure returned None"):
        Fact("mine", lambda m, e: None).of(model(), (2, 4))  # type: ignore[arg-type, return-value]  # as above


def test_a_fact_of_ones_own_is_measured_recorded_and_optimized() -> None:
    depth = Fact("depth", lambda m, example: sum(isinstance(x, nn.Linear) for x in m.modules()), needs="meta")
    metered = Measured(2.5, "by a meter", {"volts": 5})
    energy = Fact("energy", lambda m, example: metered, unit="mJ", needs="batch")
    objective = Objective(
        lambda trial: nn.Sequential(*(nn.Linear(4, 4) for _ in range(trial.suggest_int("n", 1, 3)))),
        lambda m, trial: {"score": 0.0},
        values={"depth": "minimize"},
        example=(2, 4),
        facts=[depth, energy],
    )
    study = create_study(objective, seed=0)
    trial = study.ask({})
    study.tell(trial, objective(trial))
    found = study.trials[0]
    facts = record.facts(found)
    assert found.values == [facts["depth"]] == [found.params["n"]]
    assert facts["energy"] == 2.5
    assert set(facts) == {"n_params", "flops", "depth", "energy"}
    assert record.DETAILS.of(found) == {"energy": {"words": "by a meter", "volts": 5}}
    assert "energy 2.5 mJ (by a meter)" in record.facts_in_words(study, found)


def test_a_fact_that_fails_is_missing_and_says_why() -> None:
    def broken(m: nn.Module, example: object) -> float:
        raise KeyError("mine")

    found = sketch(model, (2, 4), [Fact("broken", broken), N_PARAMS])
    assert found.facts == {"n_params": 21}
    assert found.missing == {"broken": "KeyError: 'mine'"}
    assert found.fingerprint is not None
