"""The conformance check: clean spaces pass, and each planted fault is caught by the check that is for it."""

import itertools
import random
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from optnas.errors import ConformanceError
from optnas.space import Chain, Choice, Repeat
from optnas.space.blocks import conv, head, mbconv, residual, separable_conv
from optnas.testing import check_space
from optnas.trial import Trial, replay, scope

EXAMPLE = (2, 4)


def fault(space: Any, example: Any = EXAMPLE, **options: Any) -> ConformanceError:
    with pytest.raises(ConformanceError) as caught:
        check_space(space, example, **options)
    assert str(caught.value).startswith(f"{caught.value.check}: ")
    assert f"[params: {caught.value.params}]" in str(caught.value)
    return caught.value


# Spaces without a fault.


def linear(trial: Trial) -> nn.Module:
    return nn.Linear(4, trial.suggest_int("width", 1, 8))


def blocks() -> Chain:
    ops = {
        "conv": partial(conv, stride=(1, 2)),
        "separable": separable_conv,
        "mbconv": mbconv,
        "residual": partial(residual, body=conv),
    }
    return Chain(body=Repeat("block", Choice("op", ops), 1, 3), head=partial(head, n_classes=3))


def loop(trial: Trial) -> nn.Module:
    layers: list[nn.Module] = []
    width = 4
    for i in range(trial.suggest_int("depth", 1, 3)):
        layer = scope(trial, "layer", i)
        previous, width = width, layer.suggest_int("width", 4, 16, log=True)
        layers += [nn.Linear(previous, width), nn.Dropout(layer.suggest_float("rate", 0.0, 0.5))]
    return nn.Sequential(*layers)


def shrinking(trial: Trial) -> nn.Module:
    """A range may depend on an answer; only choices may not."""
    return nn.Linear(4, trial.suggest_int("second", 1, trial.suggest_int("first", 1, 3)))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 4)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))


class DeadBranch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.used(x)


class LooksAtValues(nn.Module):
    """Runs on the CPU only."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = float(torch.ones(()).item())
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x) * self.scale if x.sum().item() >= 0 else x


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.linear = nn.Embedding(10, 4), nn.Linear(4, 4)

    def forward(self, tokens: Tensor, x: Tensor) -> dict[str, Tensor]:
        return {"sum": self.embedding(tokens).sum(1) + self.linear(x), "tokens": tokens}


TOKENS, X = torch.randint(10, (2, 3)), torch.randn(2, 4)


@pytest.mark.parametrize(
    ("space", "example"),
    [
        (linear, EXAMPLE),
        (linear, None),
        (blocks(), (2, 3, 9, 9)),
        (blocks(), (1, 3, 8, 8)),  # doubled, for BatchNorm
        (blocks(), None),
        (loop, EXAMPLE),
        (lambda trial: Tied(), EXAMPLE),
        (lambda trial: DeadBranch(), EXAMPLE),
        (lambda trial: LooksAtValues(), torch.ones(1, 4)),
        (lambda trial: TwoInputs(), (TOKENS, X)),
        (lambda trial: TwoInputs(), {"tokens": TOKENS, "x": X}),
        (lambda trial: nn.Identity(), EXAMPLE),
    ],
)
def test_a_clean_space_passes(space: Any, example: Any) -> None:
    check_space(space, example, n_samples=8)


def test_a_check_leaves_no_trace() -> None:
    x = -torch.ones(2, 4)
    before = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002  # meant
    check_space(lambda trial: nn.Sequential(nn.ReLU(inplace=True), LooksAtValues()), x)
    after = random.getstate(), np.random.get_state()[1], torch.get_rng_state()  # noqa: NPY002  # as above
    assert before[0] == after[0]
    assert (before[1] == after[1]).all()
    assert torch.equal(before[2], after[2])
    assert torch.equal(x, -torch.ones(2, 4))


# choices


@pytest.mark.parametrize("choices", [(nn.ReLU, nn.GELU), ((3, 3), (5, 5)), (float("nan"), 1.0)])
def test_a_choice_that_cannot_be_stored(choices: tuple[Any, ...]) -> None:
    def space(trial: Trial) -> nn.Module:
        trial.suggest_categorical("op", list(choices))
        return linear(trial)

    found = fault(space)
    assert found.check == "choices"
    assert f"'op' offers {choices[0]!r}, which Optuna cannot store" in str(found)


@pytest.mark.parametrize("choices", [(0, False), (1.0, 1), ("a", "a")])
def test_choices_that_optuna_confuses(choices: tuple[Any, ...]) -> None:
    found = fault(lambda trial: nn.Linear(4, len(str(trial.suggest_categorical("op", choices)))))
    assert found.check == "choices"
    assert f"'op' offers {choices[1]!r} and another" in str(found)


# names


def unscoped(trial: Trial) -> nn.Module:
    return nn.Sequential(*(nn.Linear(4, 4, bias=trial.suggest_int("bias", 0, 1) > 0) for _ in range(2)))


def test_a_name_asked_in_two_places() -> None:
    found = fault(unscoped)
    assert found.check == "shared names"
    assert "'bias' is asked twice in one build, so both places get one answer" in str(found)
    check_space(unscoped, EXAMPLE, shared_names=["bias"])


def test_a_name_asked_in_two_places_with_different_choices() -> None:
    def space(trial: Trial) -> nn.Module:
        width = trial.suggest_int("width", 1, 8)
        return nn.Sequential(nn.Linear(4, width), nn.Linear(width, trial.suggest_int("width", 1, 9)))

    for shared in ((), ("width",)):
        found = fault(space, shared_names=shared)
        assert found.check == "names"
        assert "high=8" in str(found)
        assert "high=9" in str(found)
        assert found.params.keys() == {"width"}


def test_a_name_that_the_database_cuts_off() -> None:
    found = fault(lambda trial: linear(scope(trial, *["block"] * 100)))
    assert found.check == "names"
    assert "more than 512 characters" in str(found)


# same choices


def test_choices_that_depend_on_an_answer() -> None:
    def space(trial: Trial) -> nn.Module:
        kernels = [3, 5] if trial.suggest_categorical("deep", [True, False]) else [3, 5, 7]
        return nn.Linear(4, trial.suggest_categorical("kernel", kernels))

    found = fault(space)
    assert found.check == "same choices"
    assert "(3, 5)" in str(found)
    assert "(3, 5, 7)" in str(found)
    assert "'deep': True" in str(found)
    assert "'deep': False" in str(found)


def test_a_question_that_changes_its_kind() -> None:
    def space(trial: Trial) -> nn.Module:
        if trial.suggest_categorical("fine", [True, False]):
            return nn.Dropout(trial.suggest_float("rate", 0.0, 0.9))
        return nn.Dropout(trial.suggest_categorical("rate", [0.0, 0.5]))

    assert fault(space).check == "same choices"


# build


def test_a_space_that_cannot_build_some_architecture() -> None:
    def space(trial: Trial) -> nn.Module:
        heads = trial.suggest_categorical("heads", [1, 2, 3])
        return nn.MultiheadAttention(4, heads)

    found = fault(space, None)
    assert found.check == "build"
    assert found.params == {"heads": 3}
    assert "embed_dim must be divisible by num_heads" in str(found)


def test_a_space_that_returns_no_model() -> None:
    found = fault(lambda trial: None)
    assert found.check == "build"
    assert "return a torch.nn.Module" in str(found)


# purity


@pytest.mark.parametrize(
    "toss",
    [
        lambda: random.random() < 0.5,
        lambda: np.random.rand() < 0.5,  # noqa: NPY002  # the global generator is the fault
        lambda: torch.rand(()).item() < 0.5,
        itertools.cycle([True, False]).__next__,
    ],
)
@pytest.mark.parametrize("random_part", ["width", "setting", "questions", "order"])
def test_a_space_that_answers_to_more_than_the_trial(toss: Callable[[], bool], random_part: str) -> None:
    def space(trial: Trial) -> nn.Module:
        match random_part:
            case "width":
                return nn.Linear(4, 2 if toss() else 3)
            case "setting":
                return nn.Dropout(0.1 if toss() else 0.2)
            case "questions":
                return nn.Linear(4, trial.suggest_int("width", 1, 3)) if toss() else nn.Linear(4, 2)
            case _:
                names = ["a", "b"] if toss() else ["b", "a"]
                return nn.Linear(4, sum(trial.suggest_int(name, 1, 3) for name in names))

    found = fault(space)
    assert found.check == "purity"
    assert "the same answers led to other" in str(found)


def test_a_space_whose_modules_differ_in_their_own_settings_only() -> None:
    class Scale(nn.Module):
        def __init__(self, by: int) -> None:
            super().__init__()
            self.by = by

        def forward(self, x: Tensor) -> Tensor:
            return x * self.by

    calls = itertools.count()
    assert fault(lambda trial: Scale(next(calls))).check == "purity"


# sharing

LAYER = nn.Linear(4, 4)
WEIGHT = nn.Parameter(torch.zeros(4, 4))
TABLE = torch.zeros(4)


class Borrows(nn.Module):
    def __init__(self, weight: nn.Parameter | None = None, table: Tensor | None = None) -> None:
        super().__init__()
        self.weight = weight
        self.register_buffer("table", table)

    def forward(self, x: Tensor) -> Tensor:
        return x


@pytest.mark.parametrize(
    ("space", "part"),
    [
        (lambda trial: LAYER, "Linear, the whole model,"),
        (lambda trial: nn.Sequential(nn.ReLU(), LAYER), "Linear '1'"),
        (lambda trial: Borrows(weight=WEIGHT), "Parameter 'weight'"),
        (lambda trial: nn.Sequential(Borrows(table=TABLE)), "Tensor '0.table'"),
    ],
)
def test_a_space_that_holds_modules(space: Any, part: str) -> None:
    found = fault(space)
    assert found.check == "sharing"
    assert f"{part} belongs to two builds" in str(found)


def test_a_candidate_that_is_one_module_for_everyone() -> None:
    """The classic: a dict of modules where a dict of functions was meant."""
    ready = {"conv": nn.Linear(4, 4), "skip": nn.Identity()}
    found = fault(Choice("op", {name: lambda trial, m=m: m for name, m in ready.items()}))
    assert found.check == "sharing"
    assert found.params["op"] in ready


def test_a_module_that_is_shared_between_architectures_only() -> None:
    made: dict[int, nn.Module] = {}
    turn = itertools.count()

    def space(trial: Trial) -> nn.Module:
        width = trial.suggest_int("width", 1, 3)
        fresh = nn.Linear(4, width)
        # Each architecture gets the layer that the one three builds ago got.
        key = next(turn) % 4
        made[key] = made.get(key) or nn.ReLU()
        return nn.Sequential(fresh, made[key])

    assert fault(space, None).check == "sharing"


def test_a_module_that_is_shared_from_the_first_forward_on() -> None:
    late = nn.Linear(4, 4)

    class Late(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            self.late = late
            return x

    assert fault(lambda trial: Late()).check == "sharing"


# forward and backward


def test_a_shape_error_names_the_architecture_that_has_it() -> None:
    def space(trial: Trial) -> nn.Module:
        layers = [nn.Linear(4, 8) for _ in range(trial.suggest_int("depth", 1, 2))]
        return nn.Sequential(*layers)

    found = fault(space)
    assert found.check == "forward"
    assert found.params == {"depth": 2}
    assert "in eval mode, in layer '1' (Linear): RuntimeError" in str(found)
    with pytest.raises(RuntimeError):
        space(replay(found.params))(torch.zeros(2, 4))


def test_an_error_of_one_mode_only() -> None:
    class Auxiliary(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.reshape(-1, 3) if self.training else x

    found = fault(lambda trial: Auxiliary())
    assert found.check == "forward"
    assert "in train mode" in str(found)


def test_a_gradient_that_cannot_be_computed() -> None:
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            y = self.linear(x).sigmoid()
            y += 1  # sigmoid needs its result for its gradient
            return y

    found = fault(lambda trial: InPlace())
    assert found.check == "backward"
    assert "inplace operation" in str(found)


def test_a_rare_fault_is_found_with_more_samples() -> None:
    def space(trial: Trial) -> nn.Module:
        width = trial.suggest_int("width", 1, 200)
        return nn.Linear(4 if width != 77 else 5, width)

    check_space(space, EXAMPLE, n_samples=3)
    assert fault(space, n_samples=1000).params == {"width": 77}


# Different answers, one network.


def test_answers_that_make_no_difference_are_listed() -> None:
    def space(trial: Trial) -> nn.Module:
        trial.suggest_categorical("schedule", ["step", "cosine"])
        return nn.Linear(4, trial.suggest_int("width", 1, 2))

    with pytest.warns(
        UserWarning, match=r"Of 4 architectures, 2 build .*\n  schedule: '(step|cosine)' or "
    ) as told:
        check_space(space, EXAMPLE)
    assert "width" not in str(told[0].message)
    assert told[0].filename == __file__


def test_an_answer_that_is_not_asked_elsewhere_is_listed_as_such() -> None:
    with pytest.warns(UserWarning, match=r"\n  first: \d or \d\n"):
        check_space(shrinking, EXAMPLE)

    def optional(trial: Trial) -> nn.Module:
        if trial.suggest_categorical("wide", [True, False]):
            trial.suggest_categorical("kernel", [3, 5])
        return nn.Linear(4, 2)

    with pytest.warns(UserWarning, match=r"wide: (True|False) or (True|False), kernel: .*not asked"):
        check_space(optional, EXAMPLE)


def test_without_inputs_there_is_nothing_to_compare() -> None:
    check_space(shrinking)


# Where something lies in memory is no setting of it.


class Named(nn.Module):
    """Prints the address of its function, and keeps its own id, as torch.compile does."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.own_id = id(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)

    def extra_repr(self) -> str:
        return f"function={self.function}"


def test_addresses_are_no_impurity() -> None:
    def space(trial: Trial) -> nn.Module:
        return nn.Sequential(nn.Linear(4, trial.suggest_int("width", 1, 8)), Named(lambda x: x + 1))

    check_space(space, EXAMPLE)


def test_a_compiled_layer_is_no_impurity() -> None:
    def space(trial: Trial) -> nn.Module:
        layer = torch.compile(nn.Linear(4, trial.suggest_int("width", 1, 8)), backend="eager")
        return nn.Sequential(layer, nn.LazyLinear(2))

    check_space(space, n_samples=3)
