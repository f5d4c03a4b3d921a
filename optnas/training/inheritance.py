"""A trial begins with the weights of its parent, where their layers match."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias, get_args

import optuna
import torch
from optuna.trial import FrozenTrial, TrialState
from torch import Tensor, nn

from optnas import private, record
from optnas.errors import ParamsMismatchError, describe_error, is_infrastructure
from optnas.estimation.run import Run
from optnas.facts.inputs import Example
from optnas.training.checkpoints import load_snapshot, newest_state
from optnas.training.heirs import Legacy
from optnas.training.net2net import Grown, NotPreservedError, grow

Inherit: TypeAlias = Literal["exact", "shrink_perturb", "net2net"]

SHRINK, PERTURB = 0.4, 0.1
"""Shares of the parent's and of the new weights (Chebykin, Alderliesten & Bosman, PBT-NAS, arXiv:2307.15621).

The way is from Ash & Adams, On Warm-Starting Neural Network Training, NeurIPS 2020 (arXiv:1910.08475).
"""

_log = logging.getLogger(__name__)


def inherit(model: nn.Module, run: Run, how: Inherit, example: Callable[[], Example]) -> Legacy | None:
    """Give the model the weights of the trial's parent, and record it.

    Weights go where name, shape and type agree, and running statistics are taken as they are. With "net2net"
    the model gets the parent's function instead, where it can have it. A trial without a parent, or whose
    parent's weights are gone, keeps its new weights.

    In a population the parent is under way: the child takes over the latest of its training, and what else it
    takes over is returned.

    Args:
        example: a batch of inputs.
    """
    is_of_population = record.BORN.of(private.stored(run)) is not None
    parent = parent_of(run, complete=not is_of_population)
    if parent is None:
        return None
    legacy = None
    try:
        if is_of_population:
            legacy = Legacy.of(newest_state(run.study, parent))
        old = load_snapshot(run.study, parent).weights if legacy is None else legacy.weights
    except (FileNotFoundError, ParamsMismatchError) as error:
        _log.warning("Trial %d begins with new weights: %s", run.number, error)
        return None
    told: dict[str, Any] = {"from": parent.number, "how": how}
    if legacy is not None:
        told["epochs"] = legacy.epochs
    if how == "net2net":
        grown = _grown(model, run, parent, old, example)
        if isinstance(grown, Grown):
            told |= {"share": grown.share, "difference": grown.difference}
            record.WEIGHTS.write(run, told)
            return legacy
        told |= {"how": "exact", "why": grown}
        _log.info("Trial %d does not begin with its parent's function: %s", run.number, grown)
    taken = 0
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            weight = _matching(old.get(name), parameter)
            if weight is not None:
                taken += parameter.numel()
                if how == "shrink_perturb" and parameter.is_floating_point():
                    parameter.mul_(PERTURB).add_(weight.to(parameter.device), alpha=SHRINK)
                else:
                    parameter.copy_(weight)
        for name, buffer in model.named_buffers():
            if (statistic := _matching(old.get(name), buffer)) is not None:
                buffer.copy_(statistic)
    if taken or legacy is not None:
        share = taken / sum(parameter.numel() for parameter in model.parameters())
        record.WEIGHTS.write(run, {**told, "share": share})
    return legacy


def _grown(
    model: nn.Module,
    run: Run,
    parent: FrozenTrial,
    weights: Mapping[str, Any],
    example: Callable[[], Example],
) -> Grown | str:
    """What became of taking over the parent's function, or why that cannot be."""
    if run.rebuild is None:
        return "nobody says how the parent's network is built; Objective does"
    try:
        smaller = run.rebuild(parent)
        smaller.load_state_dict(weights)
        return grow(model, smaller, example())
    except NotPreservedError as error:
        return str(error)
    except Exception as error:  # of the user's networks and data, which run alone all the same
        if is_infrastructure(error):
            raise
        return describe_error(error)


def parent_of(run: Run, *, complete: bool = True) -> FrozenTrial | None:
    """The trial from which a running one was bred, or None; of a twin, the one that was trained."""
    return _original(run.study, record.PARENT.of(private.stored(run)), complete)


def epochs_before(run: Run) -> int:
    """The epochs of the trial whose weights a running one took over, and of those before it.

    None of them (0) where it goes on with that trial's training, and counts its epochs.
    """
    told = record.WEIGHTS.of(run) or {}
    source = told.get("from")
    if not isinstance(source, int) or "epochs" in told:
        return 0
    parent = _original(run.study, source, complete=True)
    return 0 if parent is None else record.EPOCHS.of(parent) or 0


def check_inherit(how: str | None, keep: int, *, is_pretrained: bool) -> None:
    """Raises ValueError where it cannot work, alone or beside `Training(pretrained=...)`."""
    if how is None:
        return
    if how not in get_args(Inherit):
        raise ValueError(f"inherit={how!r}: give {' or '.join(map(repr, get_args(Inherit)))}, or None.")
    if keep < 1:
        raise ValueError(f"inherit={how!r} needs weights of earlier trials, and keep={keep} keeps none.")
    if how == "shrink_perturb" and is_pretrained:
        raise ValueError(
            "inherit='shrink_perturb' adds new random weights to the parent's, and with pretrained= the "
            "weights of a new network are not random: leave one of them out, or give inherit='exact' or "
            "'net2net'."
        )


def _original(study: optuna.Study, number: int | None, complete: bool) -> FrozenTrial | None:
    if number is None:
        return None
    by_number = {trial.number: trial for trial in study.get_trials(deepcopy=False)}
    trial = by_number.get(number)
    if trial is not None and (twin_of := record.TWIN_OF.of(trial)) is not None:
        trial = by_number.get(twin_of)
    return trial if trial is not None and (trial.state == TrialState.COMPLETE or not complete) else None


def _matching(old: object, new: Tensor) -> Tensor | None:
    if isinstance(old, Tensor) and old.shape == new.shape and old.dtype == new.dtype:
        return old
    return None
