"""Exported files run in a Python that has neither optnas nor the model's code, and agree with the model."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from optnas import Arguments
from optnas.export import _compare, to_onnx, to_torch_export
from optnas.facts import materialize
from optnas.space import Repeat, blocks, sample
from optnas.trial import replay


class Tagger(nn.Module):
    """Tokens through an embedding, attention, a recurrent layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 16)
        self.attention = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
        self.recurrent = nn.LSTM(16, 8, batch_first=True, bidirectional=True)
        self.head = nn.Linear(16, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        out, _ = self.recurrent(self.attention(self.embed(tokens)))
        logits: Tensor = self.head(out.mean(1))
        return logits


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(4, 8), nn.Linear(3, 8)

    def forward(self, a: Tensor, b: Tensor) -> dict[str, Tensor]:
        return {"sum": self.left(a) + self.right(b), "product": self.left(a) * self.right(b)}


def searched_cnn() -> nn.Module:
    """A CNN of our own blocks, as a search would find it: squeeze-excitation, BatchNorm, a residual."""
    block = partial(blocks.mbconv, width=(8, 12), kernel=(3, 5))
    space = Repeat("block", lambda trial: blocks.residual(trial, block), 2, 3)
    model = nn.Sequential(
        space(replay(sample(space, 0))), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(10)
    )
    materialize(model, (4, 1, 9, 9))
    for _ in range(3):  # BatchNorm statistics that are not the initial ones
        model(torch.randn(16, 1, 9, 9) * 2 + 1)
    return model


CASES: dict[str, tuple[Callable[[], nn.Module], Any]] = {
    "cnn": (searched_cnn, (1, 1, 9, 9)),
    "tokens": (Tagger, torch.randint(0, 20, (3, 7))),
    "positional": (TwoInputs, (torch.randn(2, 4), torch.randn(2, 3))),
    "keywords": (TwoInputs, {"b": torch.randn(2, 3), "a": torch.randn(2, 4)}),
}

# What a stranger types, in a Python that cannot find the refused packages.
REFUSE = """
import sys
class Without:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, *rest):
        return None if name.split(".")[0] in {refused!r} else self.finder.find_spec(name, *rest)
    def __getattr__(self, name):
        return getattr(self.finder, name)
sys.meta_path[:] = map(Without, sys.meta_path)
for name in {refused!r}:
    try:
        __import__(name)
    except ModuleNotFoundError:
        continue
    sys.exit(name + " is here after all")
import json, numpy as np
jobs = json.load(sys.stdin)
for job in jobs:
    job["feeds"] = [
        {{k: np.array(v["values"], v["dtype"]) for k, v in feed.items()}} for feed in job["feeds"]
    ]
"""
RUN_ONNX = """
import onnxruntime
for job in jobs:
    session = onnxruntime.InferenceSession(job["path"])
    order = [node.name for node in session.get_inputs()]
    if not job["named"]:
        job["feeds"] = [dict(zip(order, feed.values())) for feed in job["feeds"]]
    job["out"] = [[value.tolist() for value in session.run(None, feed)] for feed in job["feeds"]]
print(json.dumps([job["out"] for job in jobs]))
"""
RUN_TORCH = """
import torch
for job in jobs:
    model = torch.export.load(job["path"]).module()
    job["out"] = []
    for feed in job["feeds"]:
        feed = {k: torch.from_numpy(v) for k, v in feed.items()}
        y = model(**feed) if job["named"] else model(*feed.values())
        job["out"].append([value.tolist() for value in (y.values() if isinstance(y, dict) else [y])])
print(json.dumps([job["out"] for job in jobs]))
"""


def run_elsewhere(code: str, refused: set[str], jobs: list[dict[str, Any]], folder: Path) -> list[Any]:
    """The outputs of every job, from a fresh interpreter that cannot import what is refused."""
    done = subprocess.run(
        [sys.executable, "-c", REFUSE.format(refused=refused) + code],
        input=json.dumps(jobs),
        capture_output=True,
        text=True,
        cwd=folder,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    outputs: list[Any] = json.loads(done.stdout)
    return outputs


def feeds_of(example: Any) -> list[dict[str, Tensor]]:
    """Fresh inputs of several batch sizes, by name."""
    if isinstance(example, Tensor):
        example = (example,)
    if isinstance(example, tuple):
        tensors = example if isinstance(example[0], Tensor) else (torch.zeros(example),)
        example = {str(i): value for i, value in enumerate(tensors)}
    return [
        {
            name: torch.randn(n, *x.shape[1:]) if x.is_floating_point() else torch.randint(0, 20, (n, 7))
            for name, x in example.items()
        }
        for n in (1, 2, 3, 8)
    ]


def as_json(feed: dict[str, Tensor]) -> dict[str, Any]:
    return {k: {"values": v.tolist(), "dtype": str(v.dtype).removeprefix("torch.")} for k, v in feed.items()}


@pytest.mark.parametrize(
    ("export", "code", "refused"),
    [
        (to_onnx, RUN_ONNX, {"torch", "optnas", "optuna", "onnx", "onnxscript"}),
        (to_torch_export, RUN_TORCH, {"optnas", "optuna", "pytorch_lightning", "onnx", "onnxruntime"}),
    ],
    ids=["onnx", "torch"],
)
def test_exported_models_run_alone(
    export: Callable[..., Path], code: str, refused: set[str], tmp_path: Path
) -> None:
    jobs, expected = [], []
    for name, (make, example) in CASES.items():
        torch.manual_seed(0)
        model = make()
        path = export(model, example, tmp_path / name / "model.pt2")
        feeds = feeds_of(example)
        named = isinstance(example, dict)
        jobs.append({"path": str(path), "named": named, "feeds": [as_json(feed) for feed in feeds]})
        model.eval()
        with torch.no_grad():
            expected.append([model(**feed) if named else model(*feed.values()) for feed in feeds])
    outputs = run_elsewhere(code, refused, jobs, tmp_path)
    for name, wants, gots in zip(CASES, expected, outputs, strict=True):
        for want, got in zip(wants, gots, strict=True):
            tensors = list(want.values()) if isinstance(want, dict) else [want]
            for tensor, values in zip(tensors, got, strict=True):
                np.testing.assert_allclose(np.array(values), tensor.numpy(), atol=1e-4, err_msg=name)


@pytest.mark.parametrize("export", [to_onnx, to_torch_export])
def test_exporting_is_quiet_and_leaves_the_model_as_it_was(
    export: Callable[..., Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = Tagger()
    model.attention.eval()  # modes differ between modules, and stay so
    modes = [module.training for module in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    export(model, (torch.randint(0, 20, (1, 7)),), tmp_path / "model.pt2")
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert capfd.readouterr() == ("", "")
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt2"]


class Looking(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return x
        return -x


@pytest.mark.parametrize("export", [to_onnx, to_torch_export])
def test_a_refusal_is_a_sentence_with_the_line_that_looks_at_values(
    export: Callable[..., Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(
        ValueError, match=r"Looking cannot be exported: forward \(test_export\.py:\d+, "
    ) as refusal:
        export(Looking(), (2, 3), tmp_path / "model.pt2")
    assert "`if x.sum() > 0:`) looks at the values of a tensor" in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


class Remembering(nn.Module):
    """Keeps what it computed in a buffer, which has no size before."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.register_buffer("last", torch.zeros(0), False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        if self.last.shape != y.shape:
            self.last = torch.zeros_like(y)
        self.last = 0.5 * self.last + y
        return self.last


def test_a_refusal_says_what_went_wrong_and_not_in_which_step(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Remembering cannot be exported: \w+: ") as refusal:
        to_onnx(Remembering(), (2, 3), tmp_path / "model.onnx")
    assert "step" not in str(refusal.value).lower()


class Noisy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn_like(x)


class FixedBatch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(2, 4) * 2


@pytest.mark.parametrize("export", [to_onnx, to_torch_export])
def test_where_the_batch_cannot_vary_the_file_has_that_of_the_example_and_the_log_says_so(
    export: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert export(FixedBatch(), (2, 4), tmp_path / "model.pt2").exists()
    assert "takes batches of 2 only, as the example: FixedBatch cannot be" in caplog.text


@pytest.mark.parametrize(
    ("model", "example"),
    [
        (blocks.PatchEmbedding(8, 2, class_token=True), torch.rand(2, 1, 4, 4)),
        (
            blocks.FeatureTokenizer(8, categories=(3,)),
            (torch.rand(2, 4), torch.zeros(2, 1, dtype=torch.long)),
        ),
    ],
)
def test_a_class_token_leaves_the_batch_free(
    model: nn.Module, example: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    to_torch_export(materialize(model, example), example, tmp_path / "model.pt2")
    assert "takes batches of" not in caplog.text


class TimeFirst(nn.Module):
    """Sequences as (length, n, features), and weights without a batch that have as many rows."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent = nn.GRU(4, 5)

    def forward(self, x: Tensor, scale: Tensor, *, weights: list[Tensor], hard: bool = False) -> Tensor:
        y: Tensor = self.recurrent(x)[0] * scale[:, None, None] + weights[0].sum()
        return y.round() if hard else y


@pytest.mark.parametrize("export", [to_onnx, to_torch_export])
@pytest.mark.parametrize("hard", [True, False])
def test_the_batch_is_the_dimension_that_one_says(
    export: Callable[..., Path], hard: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    example = Arguments(torch.rand(3, 6, 4), torch.rand(3), weights=[torch.rand(6)], hard=hard)
    dims = {0: 1, 1: None, "weights": None}
    assert export(TimeFirst(), example, tmp_path / "model.pt2", batch_dims=dims).exists()
    assert "only" not in caplog.text
    with pytest.raises(ValueError, match="names 'mask', which is not an argument"):
        export(TimeFirst(), example, tmp_path / "model.pt2", batch_dims={"mask": 0})
    with pytest.raises(ValueError, match=r"sizes \[3, 6\]"):
        export(TimeFirst(), example, tmp_path / "model.pt2", batch_dims={0: 1, 1: 0})


class Thing:
    def __init__(self) -> None:
        self.x = torch.rand(2, 3)


def test_an_argument_that_no_file_can_take_is_said(tmp_path: Path) -> None:
    class Taking(nn.Module):
        def forward(self, thing: Thing) -> Tensor:
            return thing.x * 2

    with pytest.raises(ValueError, match="Taking takes a Thing, but a file takes tensors and plain"):
        to_torch_export(Taking(), Arguments(Thing()), tmp_path / "model.pt2")


@pytest.mark.parametrize("export", [to_onnx, to_torch_export])
@pytest.mark.parametrize(("model", "message"), [(Noisy(), "differs from the model")])
def test_a_file_that_would_be_wrong_is_not_written(
    export: Callable[..., Path], model: nn.Module, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "model.pt2"
    path.write_text("an older export")
    with pytest.raises(ValueError, match=message):
        export(model, (2, 4), path)
    assert path.read_text() == "an older export"
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "onnxruntime" else name)
    with pytest.raises(ImportError, match=r"needs onnxruntime: pip install 'optnas\[onnx\]'"):
        to_onnx(nn.Linear(2, 2), (1, 2), tmp_path / "model.onnx")


def test_torch_wants_its_suffix(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must end in \.pt2"):
        to_torch_export(nn.Linear(2, 2), (1, 2), tmp_path / "model.bin")


@dataclass
class Output:
    logits: Tensor
    states: tuple[Tensor, ...]
    loss: Tensor | None = None


@dataclass(slots=True)
class Slotted:
    logits: Tensor


class Linked:
    """Refers to itself, as a result with a link to its model's state may."""

    def __init__(self, logits: Tensor) -> None:
        self.logits, self.origin = logits, [self]


class Shaped(nn.Module):
    """Returns what `shape` makes of its linear layer's output and its input."""

    def __init__(self, shape: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.layer, self.shape = nn.Linear(8, 4), shape

    def forward(self, x: Tensor) -> Any:
        return self.shape(self.layer(x), x)


OUTPUTS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "infinite": lambda h, x: h.masked_fill(torch.tensor([True, False, False, False]), -torch.inf),
    "not a number outside of the data": lambda h, x: h + x.sqrt().sum(-1, keepdim=True),
    "not a number": lambda h, x: torch.where(h > 0, h, torch.nan),
    "bool": lambda h, x: (h, h > 0),
    "integers": lambda h, x: h.argmax(1),
    "none": lambda h, x: (h, None),
    "empty": lambda h, x: (h, h[:, :0]),
    "nested": lambda h, x: {"a": (h, [h + 1]), "b": {"c": h * 2}},
    "half": lambda h, x: h.half(),
    "dataclass": lambda h, x: (Output(h, (h + 1, x)), h * 2),
    "object": lambda h, x: SimpleNamespace(found=[Output(h, ())], config=SimpleNamespace(width=4)),
    "slots": lambda h, x: Slotted(h),
    "object in a circle": lambda h, x: Linked(h),
    "dropout": lambda h, x: nn.Dropout(0.9)(h) if h.requires_grad else h,
}


@pytest.mark.parametrize("export", [to_onnx, to_torch_export])
@pytest.mark.parametrize("name", OUTPUTS)
def test_whatever_a_model_returns_is_exported(export: Callable[..., Path], name: str, tmp_path: Path) -> None:
    assert export(Shaped(OUTPUTS[name]), torch.rand(20, 8), tmp_path / "model.pt2").exists()


def test_an_object_becomes_a_dict_of_the_tensors_in_it(tmp_path: Path) -> None:
    x = torch.rand(20, 8)
    path = to_torch_export(Shaped(OUTPUTS["dataclass"]), x, tmp_path / "model.pt2")
    found, doubled = torch.export.load(path).module()(x)
    assert list(found) == ["logits", "states"]
    assert torch.equal(found["states"][1], x)
    assert torch.equal(found["logits"] * 2, doubled)


@pytest.mark.parametrize("name", ["slots", "object in a circle"])
def test_of_slots_and_of_an_object_in_a_circle_each_tensor_is_there_once(name: str, tmp_path: Path) -> None:
    path = to_torch_export(Shaped(OUTPUTS[name]), torch.rand(20, 8), tmp_path / "model.pt2")
    assert list(torch.export.load(path).module()(torch.rand(20, 8))) == ["logits"]


class Opaque:
    """Holds no tensor."""


@pytest.mark.parametrize("export", [to_onnx, to_torch_export])
def test_an_object_without_tensors_is_refused_in_a_line(export: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"of the class Opaque") as refusal:
        export(Shaped(lambda h, x: (h, Opaque())), torch.rand(20, 8), tmp_path / "model.pt2")
    assert len(str(refusal.value).splitlines()) == 1


def test_numbers_beside_tensors_stay_in_torchs_file_and_are_refused_by_onnx(tmp_path: Path) -> None:
    model = Shaped(lambda h, x: (h, 3.5))
    path = to_torch_export(model, torch.rand(20, 8), tmp_path / "model.pt2")
    assert torch.export.load(path).module()(torch.rand(3, 8))[1] == 3.5
    with pytest.raises(ValueError, match=r"returns \[3.5\] beside tensors"):
        to_onnx(model, torch.rand(20, 8), tmp_path / "model.onnx")


class Masked(nn.Module):
    """Attention over tokens, some of which are padding; the mask of what comes later has no batch."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.5, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.embed = nn.Embedding(20, 8)

    def forward(self, tokens: Tensor, later: Tensor, unused: Tensor | None = None) -> Tensor:
        x = self.embed(tokens)
        encoded: Tensor = self.encoder(x, mask=later, src_key_padding_mask=tokens == 0, is_causal=False)
        return encoded


@pytest.mark.parametrize("export", [to_onnx, to_torch_export])
@pytest.mark.parametrize("form", ["positional", "keywords", "both", "with one that is ignored"])
def test_masks_and_every_way_to_pass_inputs(export: Callable[..., Path], form: str, tmp_path: Path) -> None:
    tokens = torch.randint(1, 20, (3, 7))
    tokens[:, 5:] = 0
    later = torch.ones(7, 7).triu(1).bool()
    example: Any = {
        "positional": (tokens, later),
        "keywords": {"tokens": tokens, "later": later},
        "both": (tokens, {"later": later}),
        "with one that is ignored": {"tokens": tokens, "later": later, "unused": torch.zeros(3, 2)},
    }[form]
    assert export(Masked(), example, tmp_path / "model.pt2").exists()


class Packed(nn.Module):
    """What exporters cannot follow."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent = nn.GRU(8, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        steps = x[:, None].expand(-1, 3, -1)
        packed = nn.utils.rnn.pack_padded_sequence(steps, torch.full((len(x),), 3), batch_first=True)
        last: Tensor = self.recurrent(packed)[1][-1]
        return last


class Uncopyable(nn.Linear):
    def __deepcopy__(self, memo: Any) -> Any:
        raise RuntimeError("there is one of me")


@pytest.mark.parametrize("export", [to_onnx, to_torch_export])
@pytest.mark.parametrize(
    ("model", "message"), [(Packed(), "Packed cannot be"), (Uncopyable(8, 2), "one of me")]
)
def test_whatever_an_exporter_meets_is_one_error(
    export: Callable[..., Path], model: nn.Module, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        export(model, torch.rand(4, 8), tmp_path / "model.pt2")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("actual", "message"),
    [
        ([torch.tensor([1.0, torch.nan])], "infinite or not a number"),
        ([torch.tensor([torch.inf, 2.0])], "infinite or not a number"),
        ([torch.tensor([1.0, 2.1])], "by 0.1"),
        ([torch.tensor([[1.0, 2.0]])], "shape"),
        ([torch.tensor([1.0, 2.0])] * 2, "returns 2 tensors, the model 1"),
    ],
)
def test_outputs_that_differ_are_found(actual: list[Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _compare("Model", torch.tensor([1.0, 2.0]), actual)
    _compare("Model", torch.tensor([1.0, torch.nan, torch.inf]), [torch.tensor([1.0, torch.nan, torch.inf])])
    with pytest.raises(ValueError, match="infinite or not a number"):
        _compare("Model", torch.tensor([torch.inf]), [torch.tensor([-torch.inf])])
