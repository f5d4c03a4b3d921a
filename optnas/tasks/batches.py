"""What of a batch a model is given and what it is to say, and what of its output that is."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor

TARGETS = ("labels", "label", "targets", "target", "y")


def split(batch: Any, target: str | None) -> tuple[Any, Any]:
    """Inputs and targets of a batch.

    A pair is just that. Of a dict the entry `target` is the target, and the rest the inputs, by name; any
    other object (a batch of graphs) is the input as a whole, and its attribute `target` the target. Without
    `target`, it is the one name that is among `TARGETS`.

    Raises:
        TypeError: it is not clear what the target is.
    """
    if isinstance(batch, tuple | list) and target is None:
        if len(batch) == 2:
            return batch[0], batch[1]
        raise TypeError(_unclear(batch, f" of {len(batch)}"))
    if isinstance(batch, Mapping):
        name = _target(batch, target, {key for key in batch if isinstance(key, str)})
        return {key: value for key, value in batch.items() if key != name}, batch[name]
    name = _target(batch, target, {name for name in (*TARGETS, target) if name and hasattr(batch, name)})
    return batch, getattr(batch, name)


def main(output: Any) -> Any:
    """The part of a model's output that is the prediction.

    Its `logits`, by name or attribute; of a tuple the first; of a dict or an object with one tensor, that.
    What is neither is returned as it is.
    """
    if isinstance(output, Tensor):
        return output
    if isinstance(output, tuple | list) and not _named(output):
        first = main(output[0]) if output else None
        return first if isinstance(first, Tensor) else output
    parts = _parts(output)
    if isinstance(parts.get("logits"), Tensor):
        return parts["logits"]
    tensors = [value for value in parts.values() if isinstance(value, Tensor)]
    return tensors[0] if len(tensors) == 1 else output


def own_loss(output: Any) -> Tensor | None:
    """The loss that a model has computed itself: `loss` by name or attribute, a number, a dict of numbers."""
    if isinstance(output, Tensor):
        return output if output.ndim == 0 else None
    if isinstance(output, tuple | list) and not _named(output):
        return own_loss(output[0]) if output else None
    parts = _parts(output)
    loss = parts.get("loss")
    if isinstance(loss, Tensor):
        return loss.mean()
    tensors = [value for value in parts.values() if isinstance(value, Tensor)]
    if isinstance(output, Mapping) and tensors and all(value.ndim == 0 for value in tensors):
        total: Tensor = sum(tensors[1:], tensors[0])
        return total
    return None


def _named(output: Any) -> bool:
    return hasattr(output, "_fields")


def _parts(output: Any) -> Mapping[str, Any]:
    if isinstance(output, Mapping):
        return output
    if _named(output):
        return output._asdict()  # type: ignore[no-any-return]  # of a named tuple
    if dataclasses.is_dataclass(output) and not isinstance(output, type):
        return {field.name: getattr(output, field.name) for field in dataclasses.fields(output)}
    return vars(output) if hasattr(output, "__dict__") else {}


def _target(batch: Any, target: str | None, names: set[str]) -> str:
    if target is not None:
        if target in names:
            return target
        raise TypeError(f"target={target!r}: the {type(batch).__name__} of a batch has no such name.")
    found = [name for name in TARGETS if name in names]
    if len(found) != 1:
        raise TypeError(_unclear(batch, f" with {', '.join(sorted(names))}" if names else ""))
    return found[0]


def _unclear(batch: Any, held: str) -> str:
    return (
        f"The task takes batches (inputs, targets), and got a {type(batch).__name__}{held}. Inputs may be a "
        "tuple or a dict of tensors; if a batch is a dict or an object, name the target in it, "
        "target='labels', and for other batches write a task of your own, (model, trial) -> LightningModule."
    )
