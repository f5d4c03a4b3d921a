"""Blocks: shapes, decisions, and plain models in the end."""

import copy
import io
import math
import pickle
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.parameter import is_lazy

from optnas.space import Chain, Choice, Repeat, enumerate_params, sample
from optnas.space.blocks import (
    Residual,
    SqueezeExcitation,
    conv,
    decide,
    head,
    mbconv,
    residual,
    separable_conv,
)
from optnas.trial import Draw, replay

BLOCKS: list[Callable[..., nn.Module]] = [conv, separable_conv, mbconv]


def no_questions(name: str, distribution: object) -> Any:
    raise AssertionError(f"{name!r} was asked")


def build(block: Callable[..., nn.Module], **fixed: Any) -> nn.Module:
    """A block all of whose decisions are fixed."""
    return block(Draw(no_questions), **fixed)


MBCONV = {"width": 8, "kernel": 3, "expansion": 3}


def everything() -> Chain:
    """Any block after any other, every stride and an even kernel among them."""
    shape: dict[str, Any] = {"width": (4, 6), "kernel": (2, 3, 5), "stride": (1, 2)}
    ops = {
        "conv": partial(conv, **shape),
        "separable": partial(separable_conv, **shape),
        "mbconv": partial(mbconv, **shape, expansion=(1, 3), se_ratio=(0.0, 0.25)),
    }
    op = Choice("op", {**ops, "residual": partial(residual, body=Choice("body", ops))})
    return Chain(body=Repeat("block", op, 1, 4), head=partial(head, n_classes=3, hidden=(None, 8)))


@pytest.mark.parametrize("size", [1, 2, 5, 8])
def test_any_block_may_follow_any_other_at_any_size(size: int) -> None:
    space = everything()
    for seed in range(40):
        model = space(replay(sample(space, seed)))
        assert model(torch.randn(2, 3, size, size + 1)).shape == (2, 3)
        assert model.eval()(torch.randn(1, 3, size, size + 1)).shape == (1, 3)


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_a_stride_divides_the_size_and_rounds_up(
    block: Callable[..., nn.Module], dims: int, kernel: int, stride: int
) -> None:
    fixed = {"expansion": 2} if block is mbconv else {}
    model = build(block, width=8, kernel=kernel, stride=stride, dims=dims, **fixed).eval()
    for size in range(1, 10):
        assert model(torch.randn(1, 3, *[size] * dims)).shape == (1, 8, *[math.ceil(size / stride)] * dims)


def test_an_unsupported_number_of_dimensions_is_refused() -> None:
    with pytest.raises(ValueError, match="dims=4 is not supported"):
        build(conv, width=4, kernel=3, dims=4)


def test_the_layers_of_conv_are_those_of_torch() -> None:
    model = build(conv, width=8, kernel=3, stride=2)
    x = torch.randn(4, 3, 7, 7)
    y = model(x)
    same = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
    same.load_state_dict(dict(zip(same.state_dict(), model.state_dict().values(), strict=True)))
    torch.testing.assert_close(same.eval()(x), model.eval()(x))
    assert y.shape == (4, 8, 4, 4)
    assert [type(layer) for layer in model.children()] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]


def test_a_separable_convolution_factors_a_full_one() -> None:
    model = build(separable_conv, width=8, kernel=3)
    model(torch.randn(2, 5, 6, 6))
    depthwise, pointwise = model.get_submodule("depthwise.conv"), model.get_submodule("pointwise.conv")
    assert type(depthwise) is nn.Conv2d
    assert (depthwise.groups, depthwise.weight.shape) == (5, (5, 1, 3, 3))
    assert pointwise.weight.shape == (8, 5, 1, 1)


def test_mbconv_has_the_widths_of_the_paper() -> None:
    # EfficientNet-B0's first stage-3 block: 16 channels in, expansion 6, squeeze 16 / 4.
    model = build(mbconv, width=24, kernel=3, stride=2, expansion=6, se_ratio=0.25)
    model(torch.randn(2, 16, 9, 9))
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters() if p.dim() > 1}
    assert shapes == {
        "expand.conv.weight": (96, 16, 1, 1),
        "depthwise.conv.weight": (96, 1, 3, 3),
        "squeeze_excitation.gate.reduce.weight": (4, 96),
        "squeeze_excitation.gate.expand.weight": (96, 4),
        "project.conv.weight": (24, 96, 1, 1),
    }
    plain = build(mbconv, width=24, kernel=3, expansion=1, se_ratio=0.0)
    assert "squeeze_excitation" not in str(plain)
    assert "expand" not in str(plain)


def test_mbconv_adds_its_input_where_stride_and_width_allow() -> None:
    x = torch.randn(2, 8, 1, 1)  # so small that a stride keeps the shape
    for stride, width, adds in [(1, 8, True), (2, 8, False), (1, 6, False)]:
        model = build(mbconv, **{**MBCONV, "width": width, "stride": stride})
        model(x)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "project" in name:
                    parameter.zero_()
        torch.testing.assert_close(model(x), x if adds else torch.zeros_like(model(x)))


def test_squeeze_excitation_is_a_gate_per_channel() -> None:
    model, x = SqueezeExcitation(0.5), torch.randn(2, 4, 3, 3)
    model(x)
    gate = model(x) / x
    assert ((gate > 0) & (gate < 1)).all()
    torch.testing.assert_close(gate, gate[:, :, :1, :1].expand_as(gate))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    torch.testing.assert_close(model(x), x / 2)


def test_a_residual_that_keeps_the_shape_adds_its_input() -> None:
    model, x = build(residual, body=lambda _: nn.Tanh()), torch.randn(2, 3, 5, 5)
    torch.testing.assert_close(model(x), x + x.tanh())
    assert not list(model.parameters())


@pytest.mark.parametrize(
    ("body", "shape", "projection"),
    [
        (lambda: nn.Conv2d(3, 6, 3, 2, 1), (2, 3, 7, 8), "Conv2d(3, 6, kernel_size=(1, 1), stride=(2, 2)"),
        (lambda: nn.Conv2d(3, 6, 1), (2, 3, 1, 1), "Conv2d(3, 6, kernel_size=(1, 1), stride=(1, 1)"),
        (lambda: nn.Conv2d(3, 3, 5, (4, 1), 2), (2, 3, 9, 4), "stride=(3, 1)"),
        (lambda: nn.Conv2d(3, 6, 3), (2, 3, 8, 8), "AdaptiveAvgPool2d(output_size=(6, 6))"),
        (lambda: nn.Upsample(scale_factor=2), (2, 3, 3, 3), "AdaptiveAvgPool2d(output_size=(6, 6))"),
        (lambda: nn.Conv1d(3, 6, 3, 2, 1), (2, 3, 7), "Conv1d(3, 6, kernel_size=(1,), stride=(2,)"),
        (lambda: nn.Linear(3, 6), (2, 3), "Linear(in_features=3, out_features=6"),
    ],
)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_residual_that_changes_the_shape_projects(
    body: Callable[[], nn.Module], shape: tuple[int, ...], projection: str, device: str
) -> None:
    with torch.device(device):
        model, x = Residual(body()), torch.randn(shape)
    assert model(x).shape == model.body(x).shape
    assert projection in str(model.shortcut)
    assert {p.device.type for p in model.parameters()} <= {device}


def test_a_projection_follows_its_body_in_dtype() -> None:
    model = Residual(nn.Conv2d(3, 6, 1)).double()
    model(torch.randn(2, 3, 4, 4, dtype=torch.float64))
    assert {p.dtype for p in model.parameters()} == {torch.float64}


def test_nothing_made_at_the_first_forward_depends_on_the_training_mode() -> None:
    space, x = everything(), torch.randn(4, 3, 9, 9)
    for seed in range(12):
        # The mode of each module as built is restored after a first pass in eval mode, as Lightning does it.
        model = space(replay(sample(space, seed)))
        modes = [(module, module.training) for module in model.modules()]
        model.eval()(x)
        for module, training in modes:
            module.training = training
        states = []
        for trained in (model, copy.deepcopy(model).train()):
            torch.manual_seed(0)
            trained(x)
            states.append(trained.state_dict())
        torch.testing.assert_close(*states)


def test_a_residual_names_the_shapes_that_it_cannot_add() -> None:
    model = build(residual, body=lambda _: nn.Flatten())
    with pytest.raises(ValueError, match=r"\(2, 3, 4, 4\).*\(2, 48\)"):
        model(torch.randn(2, 3, 4, 4))


def test_head_pools_to_classes() -> None:
    x = torch.randn(5, 7, 2, 3)
    plain = build(head, n_classes=4)
    assert plain(x).shape == (5, 4)
    torch.testing.assert_close(plain(x), plain.get_submodule("classifier")(x.mean((2, 3))))
    deep = build(head, n_classes=4, hidden=9, dropout=0.5)
    assert deep(torch.randn(5, 7, 6)).shape == (5, 4)
    assert [name for name, _ in deep.named_children()][3:] == [
        "hidden",
        "activation",
        "dropout",
        "classifier",
    ]


def test_one_value_is_fixed_and_several_are_asked() -> None:
    def space(trial: Any) -> nn.Module:
        return conv(
            trial,
            width=range(8, 25, 8),
            kernel=3,
            stride=[1, 2],
            activation={"relu": nn.ReLU, "silu": nn.SiLU},
        )

    found = list(enumerate_params(space))
    assert found[0] == {"width": 8, "stride": 1, "activation": "relu"}
    assert len(found) == 3 * 2 * 2
    assert type(space(replay(found[1]))[-1]) is nn.SiLU


def test_head_asks_for_an_activation_only_where_it_has_one() -> None:
    space = partial(head, n_classes=2, hidden=(None, 8), activation={"relu": nn.ReLU, "silu": nn.SiLU})
    assert list(enumerate_params(space)) == [
        {"hidden": None},
        {"hidden": 8, "activation": "relu"},
        {"hidden": 8, "activation": "silu"},
    ]


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ((), ValueError, r"width=\(\) offers nothing"),
        (range(3, 3), ValueError, r"width=range\(3, 3\) offers nothing"),
        ((nn.ReLU,), TypeError, "width offers .*ReLU.*Give a dict of names"),
    ],
)
def test_a_decision_that_cannot_be_asked_is_refused(value: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        decide(Draw(no_questions), "width", value)


def test_after_one_forward_the_layers_are_plain_and_travel() -> None:
    space, x = everything(), torch.randn(2, 3, 9, 9)
    for seed in range(12):
        params = sample(space, seed)
        model, twin = space(replay(params)), space(replay(params))
        model(x)
        assert not any(is_lazy(t) for t in model.state_dict().values())
        assert not any("Lazy" in type(m).__name__ or "Relative" in type(m).__name__ for m in model.modules())
        expected = model.eval()(x)

        torch.testing.assert_close(copy.deepcopy(model)(x), expected)
        torch.testing.assert_close(pickle.loads(pickle.dumps(model))(x), expected)
        twin(x)
        assert not {id(p) for p in model.parameters()} & {id(p) for p in twin.parameters()}
        file = io.BytesIO()
        torch.save(model.state_dict(), file)
        file.seek(0)
        twin.load_state_dict(torch.load(file, weights_only=True))
        torch.testing.assert_close(twin.eval()(x), expected)


def test_on_the_meta_device_a_model_has_the_same_parameters() -> None:
    space = everything()
    for seed in range(12):
        params = sample(space, seed)
        real = space(replay(params))
        real(torch.randn(2, 3, 9, 9))
        with torch.device("meta"):
            meta, x = space(replay(params)), torch.randn(2, 3, 9, 9)
        state = torch.get_rng_state()
        meta(x)
        assert torch.equal(state, torch.get_rng_state())
        assert all(t.is_meta for t in meta.state_dict().values())
        assert [(k, t.shape) for k, t in meta.state_dict().items()] == [
            (k, t.shape) for k, t in real.state_dict().items()
        ]


def test_parameter_names_read_as_paths() -> None:
    model = Chain(
        stem=partial(conv, width=4, kernel=3),
        body=Repeat("block", partial(residual, body=partial(conv, width=6, kernel=3)), 1, 1),
        head=partial(head, n_classes=2),
    )(Draw(lambda name, distribution: 1))
    model(torch.randn(2, 1, 4, 4))
    assert [name for name, p in model.named_parameters() if p.dim() > 1] == [
        "stem.conv.weight",
        "body.0.body.conv.weight",
        "body.0.shortcut.conv.weight",
        "head.classifier.weight",
    ]


def deployed() -> nn.Module:
    """All blocks, a projection and an even kernel in one model."""
    space = Chain(
        stem=partial(conv, width=4, kernel=2),
        a=partial(residual, body=partial(separable_conv, width=6, kernel=3, stride=2)),
        b=partial(mbconv, width=6, kernel=3, expansion=3),
        head=partial(head, n_classes=3, hidden=8, dropout=0.1),
    )
    model = space(Draw(no_questions))
    model(torch.randn(2, 3, 9, 9))
    return model.eval()


def test_a_model_of_blocks_is_exported_by_torch() -> None:
    model, x = deployed(), torch.randn(3, 3, 9, 9)
    program = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim("n")},))
    for n in (2, 5):
        x = torch.randn(n, 3, 9, 9)
        torch.testing.assert_close(program.module()(x), model(x))


@pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")  # torch.export's own, in torch 2.13
def test_a_model_of_blocks_runs_in_onnxruntime(tmp_path: Any) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="ONNX needs the extra optnas[onnx]")
    model, path = deployed(), tmp_path / "model.onnx"
    torch.onnx.export(
        model,
        (torch.randn(3, 3, 9, 9),),
        path,
        dynamo=True,
        verbose=False,
        dynamic_shapes=({0: torch.export.Dim("n")},),
    )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for n in (2, 5):
        x = torch.randn(n, 3, 9, 9)
        (y,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        torch.testing.assert_close(torch.from_numpy(y), model(x), atol=1e-4, rtol=1e-4)
