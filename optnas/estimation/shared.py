"""Marks networks that begin with weights shared with others, so that estimators can tell them apart."""

from __future__ import annotations

from weakref import WeakSet

from torch import nn

_SHARED: WeakSet[nn.Module] = WeakSet()


def mark_shared(model: nn.Module) -> nn.Module:
    """Mark a network whose weights are copies of shared ones; returns it."""
    _SHARED.add(model)
    return model


def take_shared(model: nn.Module) -> None:
    """Remove the mark: an estimator that knows about the shared weights begins with them."""
    for module in model.modules():
        _SHARED.discard(module)


def is_shared(model: nn.Module) -> bool:
    """Whether the network, or a part of it, begins with weights that it shares with others."""
    return any(module in _SHARED for module in model.modules())


def shared_weights_refused(name: str) -> str:
    """The message that the estimator of this name takes no such network, and which one does."""
    return (
        f"The space gives networks that begin with the weights of a supernet, and {name} would score them as "
        "if they had been trained from scratch. optnas.Validation(supernet, training) scores them as they "
        "are, optnas.FineTuning(supernet, training) trains them on, and both say so in every trial. To train "
        "from scratch, give Objective the space itself, which is supernet.space."
    )
