"""What runs, in order, with the shapes and parameters that torch itself reports."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from optnas.drawing.outline import SUM, Call, outline
from optnas.facts import materialize


class Block(nn.Module):
    """Modules are registered in another order than they run in; one is never called."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.unused = nn.Linear(3, 3)
        self.last = nn.ReLU()
        self.shortcut = nn.Linear(width, out) if out != width else nn.Identity()
        self.body = nn.Linear(width, out)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.body(x) + self.shortcut(x))


def kinds(call: Call) -> list[str]:
    return [inner.kind for inner in call.calls]


def test_calls_are_listed_as_they_run_with_real_shapes() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, groups=1), nn.Flatten(), nn.LazyLinear(5))
    x = torch.zeros(2, 3, 9, 9)
    materialize(model, x)
    root = outline(model, x)
    shapes = []
    for layer in model:
        x = layer(x)
        shapes.append(tuple(x.shape[1:]))
    assert [call.shape for call in root.calls] == shapes
    assert kinds(root) == ["Conv2d", "Flatten", "Linear"]
    assert [call.path for call in root.calls] == ["0", "1", "2"]
    assert root.calls[0].detail == "3×3 stride 2"
    assert (root.given, root.n_params) == ((3, 9, 9), sum(p.numel() for p in model.parameters()))


def test_shortcuts_are_found_by_what_flows_where() -> None:
    root = outline(nn.Sequential(Block(4, 4), Block(4, 6)), (2, 4))
    same, changed = root.calls
    assert kinds(same) == ["Linear", "Identity", SUM, "ReLU"]
    assert [call.reads for call in same.calls] == ["before", "block", "before", "before"]
    assert kinds(changed) == ["Linear", "Linear", "ReLU"]
    assert [call.reads for call in changed.calls] == ["before", "block", "elsewhere"]
    assert changed.calls[1].n_params == 4 * 6 + 6


def test_shared_weights_count_once_and_outer_numbers_add_up() -> None:
    layer = nn.Linear(4, 4)
    root = outline(nn.Sequential(layer, nn.Sequential(layer, nn.Linear(4, 2))), (1, 4))
    first, rest = root.calls
    assert (first.n_params, rest.n_params, rest.calls[0].n_params, rest.calls[1].n_params) == (20, 10, 0, 10)
    assert root.n_params == 30


def test_a_model_that_looks_at_values_is_listed_as_registered() -> None:
    class Looks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) if x.sum() > 0 else x

    root = outline(Looks(), (1, 2))
    assert [(call.path, call.kind, call.shape, call.n_params) for call in root.calls] == [
        ("layer", "Linear", None, 6)
    ]


def test_nothing_of_the_model_changes() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5)).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random = torch.get_rng_state()
    outline(model, torch.randn(4, 3, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(torch.get_rng_state(), random)
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_lazy_models_are_refused_with_the_way_out() -> None:
    with pytest.raises(ValueError, match="call materialize"):
        outline(nn.LazyLinear(2), (1, 2))


def test_a_module_under_two_names_is_listed_where_nothing_can_run():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.act = nn.PReLU()
            self.layer = nn.Sequential(nn.Linear(3, 3), self.act)

        def forward(self, x):
            return self.layer(x) * x.sum().item()

    root = outline(Shared(), (2, 3))
    assert [call.path for call in root.calls] == ["act", "layer"]
    assert root.n_params == 13
