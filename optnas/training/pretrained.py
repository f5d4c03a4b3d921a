"""A training begins with given weights: of a model of a library, a file, a trial of another study."""

from __future__ import annotations

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import optuna
import torch
from torch import Tensor, nn

from optnas import record
from optnas.errors import WeightsError
from optnas.estimation.run import Run
from optnas.estimation.settings import contents
from optnas.training.checkpoints import weights_path

_log = logging.getLogger(__name__)

_NESTED = ("state_dict", "model_state_dict", "model", "module", "state_dict_ema", "model_ema")
_NAMED = 20  # names that a trial records of what was not loaded
_LITTLE = 0.1  # of a network's parameters


@dataclass(frozen=True)
class Loaded:
    """What a model took over.

    Attributes:
        taken: names of the model's parameters and buffers, to names among the weights.
        new: names of the model's parameters that the weights do not have, or have in another shape.
        unused: names among the weights that went nowhere.
        share: of the model's parameters, counted by their numbers, in 0..1.
    """

    taken: Mapping[str, str]
    new: tuple[str, ...]
    unused: tuple[str, ...]
    share: float


class Pretrained:
    """Weights to begin with, for `Training(pretrained=...)`.

    Names and shapes must agree; a prefix that all names of one side have more than the other, such as
    `backbone.`, `model.` or `bert.`, is found. Running statistics are taken over, too.

    Args:
        source: a `state_dict`; a model that has one (of torchvision, timm or Hugging Face, say); or the path
            of a file that holds one: what `torch.save` wrote, or `.safetensors`. Workers read a file
            themselves, and get tensors sent, so that a file is better for large models.
        name: what trials record; the file's name or the model's class if not given.

    Raises:
        WeightsError: there is no such file, or it holds no weights.

    Examples:
        >>> weights = optnas.training.Pretrained(nn.Linear(2, 3).state_dict(), "mine")
        >>> network = nn.ModuleDict({"body": nn.Linear(2, 3), "head": nn.Linear(3, 2)})
        >>> weights.load(network).new
        ('head.weight', 'head.bias')
    """

    def __init__(
        self, source: Mapping[str, Any] | nn.Module | str | os.PathLike[str], name: str | None = None
    ) -> None:
        self._path: Path | None = None
        self._given: Mapping[str, Tensor] | None = None
        if isinstance(source, nn.Module):
            self._given = {key: value.detach().cpu() for key, value in _tensors(source.state_dict())}
            self.name = name or type(source).__name__
        elif isinstance(source, Mapping):
            self._given = dict(_tensors(source))
            self.name = name or "a state_dict"
        else:
            self._path = Path(source).absolute()  # user code may change the folder while a search runs
            self.name = name or self._path.name
            if not self._path.is_file():
                raise WeightsError(f"pretrained={str(source)!r}: there is no such file.")
        if self._given is not None and not self._given:
            raise WeightsError(f"pretrained={self.name}: there is no tensor in it.")

    @classmethod
    def of_trial(cls, study: optuna.Study, number: int) -> Pretrained:
        """The weights that a study kept of one of its trials.

        Raises:
            WeightsError: they were deleted, or are elsewhere.
        """
        path = weights_path(study, number)
        if path is None:
            raise WeightsError(
                f"Study {study.study_name!r} has no weights of trial {number} here: they were deleted as "
                "others were better, or lie where the search ran. Training(keep=...) says how many trials "
                "keep theirs."
            )
        return cls(path, f"trial {number} of study {study.study_name}")

    @cached_property
    def weights(self) -> Mapping[str, Tensor]:
        """By name, on the CPU."""
        return _read(self._path) if self._path is not None else self._given or {}

    @cached_property
    def digest(self) -> str:
        """Equal for equal weights."""
        found = hashlib.sha256()
        for name, tensor in sorted(self.weights.items()):
            found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            for part in contents(tensor):
                found.update(part)
        return found.hexdigest()[:32]

    def load(self, model: nn.Module) -> Loaded:
        """Give the model what it has a place for.

        Raises:
            WeightsError: no parameter matches.
        """
        parameters = dict(model.named_parameters())
        places: dict[str, Tensor] = {**parameters, **dict(model.named_buffers())}
        names = self._names(places)
        taken = {ours: theirs for ours, theirs in names.items() if self._fits(theirs, places[ours])}
        n_taken = sum(parameters[ours].numel() for ours in taken if ours in parameters)
        if not n_taken:
            raise WeightsError(
                f"pretrained={self.name}: nothing in it fits the network. It has {_some(self.weights)}; the "
                f"network has {_some(places)}. Names and shapes must agree; rename what is given, or give a "
                "function of the trial that returns None for networks without pretrained weights."
            )
        with torch.no_grad():
            for ours, theirs in taken.items():
                places[ours].copy_(self.weights[theirs])
        used = set(taken.values())
        return Loaded(
            taken,
            tuple(name for name in parameters if name not in taken),
            tuple(name for name in self.weights if name not in used),
            n_taken / sum(parameter.numel() for parameter in parameters.values()),
        )

    def _fits(self, name: str, place: Tensor) -> bool:
        weight = self.weights[name]
        return weight.shape == place.shape and weight.is_floating_point() == place.is_floating_point()

    def _names(self, places: Mapping[str, Tensor]) -> dict[str, str]:
        """Names of the model to names among the weights, for the prefix under which most fit."""
        by_rest: dict[str, list[str]] = {}
        for theirs in self.weights:
            for rest, _ in _cuts(theirs):
                by_rest.setdefault(rest, []).append(theirs)
        found: Counter[tuple[str, str]] = Counter()
        for ours, place in places.items():
            for rest, before in _cuts(ours):
                if rest in self.weights and self._fits(rest, place):
                    found[before, ""] += place.numel()
            for theirs in by_rest.get(ours, ()):
                if theirs != ours and self._fits(theirs, place):
                    found["", theirs.removesuffix(ours)] += place.numel()
        if not found:
            return {}
        # Without a prefix, if that is as good.
        before, cut = max(found, key=lambda pair: (found[pair], pair == ("", ""), -len(pair[0] + pair[1])))
        pairs = ((ours, cut + ours.removeprefix(before)) for ours in places if ours.startswith(before))
        return {ours: theirs for ours, theirs in pairs if theirs in self.weights}

    def __getstate__(self) -> dict[str, Any]:
        """A file is read again elsewhere."""
        return {key: value for key, value in self.__dict__.items() if key not in ("weights", "digest")}


Source: TypeAlias = (
    Pretrained
    | Mapping[str, Any]
    | nn.Module
    | str
    | os.PathLike[str]
    | Callable[[Any], Pretrained | Mapping[str, Any] | nn.Module | str | os.PathLike[str] | None]
)


def as_pretrained(source: Source | None) -> Pretrained | Callable[[Any], Any] | None:
    """What `Training(pretrained=...)` was given, with everything but a function of the trial looked at."""
    if source is None or isinstance(source, Pretrained):
        return source
    if callable(source) and not isinstance(source, nn.Module):
        return source
    return Pretrained(source)


def begin_with(
    pretrained: Pretrained | Callable[[Any], Any] | None, model: nn.Module, trial: Any
) -> Began | None:
    """Load what is to be loaded; None where nothing is.

    Raises:
        WeightsError: nothing fits, or what a function of the trial returned cannot be read.
    """
    chosen = pretrained if isinstance(pretrained, Pretrained) or pretrained is None else pretrained(trial)
    if chosen is None:
        return None
    weights = chosen if isinstance(chosen, Pretrained) else Pretrained(chosen)
    return Began(weights, weights.load(model))


@dataclass(frozen=True)
class Began:
    """With which weights a training begins, and what became of them."""

    weights: Pretrained
    loaded: Loaded

    def tell(self, run: Run) -> None:
        """Record it in the trial, and say it: as a warning where little of the network was loaded."""
        loaded = self.loaded
        told = {
            "from": self.weights.name,
            "digest": self.weights.digest,
            "share": loaded.share,
            "loaded": len(loaded.taken),
            "new": len(loaded.new),
            "unused": len(loaded.unused),
            "new_names": list(loaded.new[:_NAMED]),
            "unused_names": list(loaded.unused[:_NAMED]),
        }
        if not run.lone:
            record.PRETRAINED.write(run, told)
        level = logging.INFO if loaded.share >= _LITTLE else logging.WARNING
        words = record.pretrained_in_words(told)
        _log.log(level, "Trial %s begins with %s.", "" if run.lone else run.number, words)


def _cuts(name: str) -> Iterator[tuple[str, str]]:
    """A name without 0, 1, 2, ... of its first parts, and these."""
    parts = name.split(".")
    for i in range(len(parts)):
        yield ".".join(parts[i:]), "".join(f"{part}." for part in parts[:i])


def _tensors(source: Mapping[Any, Any]) -> Iterator[tuple[str, Tensor]]:
    return ((str(name), value) for name, value in source.items() if isinstance(value, Tensor))


def _read(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            found: Any = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except ImportError as error:
        raise WeightsError(
            f"pretrained={str(path)!r} needs safetensors. Install it with: pip install safetensors"
        ) from error
    except Exception as error:
        words = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(
            f"pretrained={str(path)!r} cannot be read: {words} A file that "
            "torch.save(model.state_dict(), path) wrote can."
        ) from error
    while isinstance(found, Mapping) and not dict(_tensors(found)):
        inner = next((found[key] for key in _NESTED if isinstance(found.get(key), Mapping)), None)
        if inner is None:
            break
        found = inner
    weights = dict(_tensors(found)) if isinstance(found, Mapping) else {}
    if not weights:
        raise WeightsError(
            f"pretrained={str(path)!r} holds no state_dict; write one with "
            "torch.save(model.state_dict(), path)."
        )
    return weights


def _some(names: Any) -> str:
    """Three names at most, and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - 3} more" if len(listed) > 3 else ""
    return (", ".join(listed[:3]) or "nothing") + more
