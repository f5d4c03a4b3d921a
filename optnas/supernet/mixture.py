"""One network in which every decision is made in part, and learned by gradients."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import optuna
import torch
from optuna.distributions import BaseDistribution
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from optnas.facts.cost import materialize
from optnas.facts.inputs import Example
from optnas.supernet.mixing import Mixed, Now, Weights, given_as, mixed
from optnas.supernet.ranking import ranked
from optnas.trial import Space, Trial


class Mixture(nn.Module):
    """All networks of a space at once: each decision is a weighted sum of its candidates (DARTS).

    A `Choice` gives the sum of what all candidates give, weighted by a softmax of its alphas; a `Repeat` the
    sum of what is there after each depth. So every candidate must give a tensor of one shape. A name that is
    asked at several places, such as that of an edge in all cells, is one decision. Decisions of plain
    functions (a width, a kernel) cannot be mixed: say in `given` what they are.

    `Darts` trains it, weights and alphas in turn; `enqueue` then puts its most promising networks into a
    study, where they are trained from scratch like any.

    As in the paper, normalizations use the statistics of the batch, in evaluation mode too, and those within
    candidates have no weight and bias of their own, by which a candidate could make up for a small alpha.

    Liu, Simonyan & Yang, DARTS, ICLR 2019 (arXiv:1806.09055).

    Attributes:
        decisions: what is mixed: the answers of each decision by name.
        alpha: one number for each answer, all decisions one after the other, and then one for each of
            `edges`; a parameter.
        steps: how often the alphas were trained; a tensor.

    Args:
        space: a function of a trial that builds a network, made of nodes.
        example: inputs of the networks, as `Objective` takes them: `(2, 1, 8, 8)`.
        given: answers to the questions of plain functions, by name or by the last part of it:
            `{"width": 16}` answers `layer.0.conv.width`.
        edges: groups of decisions, by name, whose outputs the network adds up, such as the edges that enter
            one node of a cell: each is weighted by a softmax over its group, which is learned as the alphas
            are. This is the edge normalization of PC-DARTS (arXiv:1907.05737), which steadies alphas where
            `Darts(partial=...)` draws channels anew in each step.

    Raises:
        SpaceError: a plain function decides what is not given, or candidates cannot be added up; the message
            names the decision and says what to write instead.
        ValueError: `given` answers what nobody asks; or `edges` names what is no decision, or one twice.

    Examples:
        >>> conv = optnas.Choice(
        ...     "op", {str(k): lambda trial, k=k: nn.Conv2d(1, 4, k, padding=k // 2) for k in (3, 5)}
        ... )
        >>> mixture = optnas.Mixture(
        ...     optnas.Chain(conv=conv, head=lambda trial: blocks.head(trial, n_classes=3)), example
        ... )
        >>> mixture.decisions
        {'conv.op': ('3', '5')}
        >>> learned = optnas.Objective(
        ...     mixture.untrained,
        ...     optnas.Training(
        ...         optnas.Darts(optnas.Classification(3)),
        ...         data,
        ...         monitor="progress",
        ...         mode="max",
        ...         max_epochs=2,
        ...     ),
        ... )
    """

    alpha: nn.Parameter
    steps: Tensor
    decided: Tensor
    without: Tensor
    frozen: Tensor
    cosines: Tensor
    compared: Tensor

    def __init__(
        self,
        space: Space[nn.Module],
        example: Example,
        *,
        given: Mapping[str, Any] | None = None,
        edges: Sequence[Sequence[str]] = (),
    ) -> None:
        super().__init__()
        self.space = space
        self.example = example
        self.given = dict(given or {})
        self._now = Now()
        self._weights: Mapping[str, Weights] | None = None
        built = mixed(space, self.given, self._now)
        if unused := sorted(self.given.keys() - built.given):
            raise ValueError(
                f"Mixture(given={self.given!r}): no plain function asks for {', '.join(map(repr, unused))}."
            )
        self.network = built.network
        self.decisions = dict(built.decisions)
        self.edges = _checked(edges, self.decisions)
        self.sizes = [len(answers) for answers in self.decisions.values()]
        self.places = [part for part in self.network.modules() if isinstance(part, Mixed)]
        self.operations = [candidate for place in self.places for candidate in place.candidates]
        n, n_operations = sum(self.sizes), len(self.operations)
        n_edges = sum(map(len, self.edges))
        self.alpha = nn.Parameter(1e-3 * torch.randn(n + n_edges), requires_grad=False)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        # Which answer a decision was made for by perturbation, or -1; and the losses without each answer.
        self.register_buffer("decided", torch.full((len(self.sizes),), -1))
        self.register_buffer("without", torch.zeros(n))
        # Of OLES: which operations are trained no more; sums of cosines, and of how many.
        self.register_buffer("frozen", torch.zeros(n_operations, dtype=torch.bool))
        self.register_buffer("cosines", torch.zeros(n_operations))
        self.register_buffer("compared", torch.zeros(n_operations, dtype=torch.int64))
        for part in self.network.modules():
            if vars(part).get("inplace"):
                vars(part)["inplace"] = False  # several candidates read one input
        self._now.checking = True
        materialize(self, example)
        self._now.checking = False
        for operation in self.operations:
            for part in operation.modules():
                if isinstance(part, _NormBase):
                    for parameter in part.parameters(recurse=False):
                        parameter.requires_grad_(False)

    def untrained(self, trial: Trial) -> Mixture:
        """Another mixture of the same space, with new weights and alphas.

        It is a space that asks nothing: `Objective(mixture.untrained, Training(Darts(task), ...))` trains the
        mixture as the one trial of a study.
        """
        return Mixture(self.space, self.example, given=self.given, edges=self.edges)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the mixture says under the weights of `weighed`; by default those of the alphas, which get no
        gradient then.
        """
        for part in self.network.modules():
            if isinstance(part, _NormBase):
                part.train()  # running statistics belong to no mixture that stays
        self._now.weights = self.soft() if self._weights is None else self._weights
        return self.network(*args, **kwargs)

    # ---- how much each candidate counts ----

    def split(self, numbers: Tensor) -> Sequence[Tensor]:
        """Numbers of all answers, `(answers,)`, by decision; what follows them is left out."""
        return torch.split(numbers[: sum(self.sizes)], self.sizes)

    def soft(self, alpha: Tensor | None = None) -> dict[str, Weights]:
        """A softmax of the alphas; where a decision is made, its candidate alone."""
        alpha = self.alpha if alpha is None else alpha
        return self._on_edges(
            alpha,
            {
                name: self._only(chosen, len(part))
                if chosen >= 0
                else Weights(part.softmax(0), tuple(range(len(part))))
                for (name, part), chosen in zip(self._named(self.split(alpha)), self._chosen(), strict=True)
            },
        )

    def hard(self) -> dict[str, Weights]:
        """The best candidate of each decision alone."""
        return self._on_edges(
            self.alpha,
            {
                name: self._only(max(range(len(of)), key=of.__getitem__), len(of))
                for name, of in self._named(self._scores())
            },
        )

    def sampled(self, alpha: Tensor, noise: Tensor, temperature: float) -> dict[str, Weights]:
        """One candidate of each decision, drawn by Gumbel noise; gradients go through its probability.

        Jang, Gu & Poole, 2017 (arXiv:1611.01144); Dong & Yang, GDAS, CVPR 2019 (arXiv:1910.04465).

        Args:
            alpha: `(answers,)`.
            noise: from the standard Gumbel distribution, as many.
            temperature: above 0; the lower, the nearer gradients are to those of one candidate.
        """
        found = {}
        parts = zip(self.split(alpha), self.split(noise), strict=True)
        for (name, (part, its)), chosen in zip(self._named(list(parts)), self._chosen(), strict=True):
            if chosen >= 0:
                found[name] = self._only(chosen, len(part))
                continue
            soft = ((part.log_softmax(0) + its) / temperature).softmax(0)
            drawn = int(soft.argmax())
            one = torch.zeros_like(soft)
            one[drawn] = 1
            found[name] = Weights(one + (soft - soft.detach()), (drawn,))
        return self._on_edges(alpha, found)

    def lacking(self, name: str, answer: int) -> dict[str, Weights]:
        """`soft`, without one candidate of a decision; the others share its weight."""
        found = self.soft()
        values, run = found[name].values.clone(), found[name].run
        values[answer] = 0
        others = tuple(i for i in run if i != answer)
        found[name] = replace(found[name], values=values / values.sum(), run=others)
        return found

    @contextmanager
    def weighed(
        self, weights: Mapping[str, Weights] | None, *, partial: int = 1, channels_seed: int = 0
    ) -> Iterator[None]:
        """Let passes meanwhile use these weights; None: the usual ones.

        `partial`: of how many channels one goes through the candidates, while the others pass by them.
        """
        before = self._weights, self._now.partial, self._now.channels_seed
        self._weights, self._now.partial, self._now.channels_seed = weights, partial, channels_seed
        try:
            yield
        finally:
            self._weights, self._now.partial, self._now.channels_seed = before

    def decide(self, name: str, losses: Sequence[float]) -> None:
        """Make a decision for the answer without which the loss is largest."""
        i = list(self.decisions).index(name)
        start = sum(self.sizes[:i])
        self.without[start : start + self.sizes[i]] = torch.tensor(losses)
        self.decided[i] = max(range(len(losses)), key=losses.__getitem__)

    def undecided(self) -> list[str]:
        """The decisions with several answers that nobody has made for good."""
        open_ = zip(self.decisions, self.sizes, self._chosen(), strict=True)
        return [name for name, size, chosen in open_ if chosen < 0 and size > 1]

    # ---- what was found ----

    def scores(self) -> dict[str, dict[Any, float]]:
        """How good each answer to each decision is, 0 for the best and less for others.

        That is the logarithm of its softmax, or, of decisions made by perturbation, the validation loss
        without it; each less that of the best.
        """
        found = {}
        for name, of in self._named(self._scores()):
            best = max(of)
            found[name] = dict(zip(self.decisions[name], (score - best for score in of), strict=True))
        return found

    def networks(self, n: int = 5) -> list[dict[str, Any]]:
        """The answers of the `n` most promising networks, the best first; fewer where the space has no more.

        The first takes the best answer to every question; each further one gives up as little of `scores` as
        it can.

        Raises:
            ValueError: nobody has trained the alphas or made the decisions, or `n` is below 1.
        """
        if n < 1:
            raise ValueError(f"n={n}: ask for at least 1 network.")
        if not self.steps and self.undecided():
            raise ValueError(
                "This mixture is untrained: its alphas are as they were drawn. Train one with "
                "Objective(mixture.untrained, Training(Darts(task), ...)), and take the trained one from "
                "there: best(study, objective).model()."
            )

        def given(name: str, distribution: BaseDistribution) -> Any:
            return self.given[given_as(name, self.given)]

        return list(itertools.islice(ranked(self.space, self.scores(), given), n))

    def enqueue(self, study: optuna.Study, n_trials: int = 5) -> list[dict[str, Any]]:
        """Enqueue the most promising networks in a study of the same space; returns their answers.

        A bad mixture so costs a few trainings, and not the study. Networks that the study has already are not
        enqueued again, so a second call does nothing.

        Raises:
            ValueError: as for `networks`.
        """
        found = self.networks(n_trials)
        for params in found:
            study.enqueue_trial(params, skip_if_exists=True)
        return found

    def skip_share(self) -> float:
        """Of the decisions that may take a skip (an identity), the share whose best answer is one."""
        skips: dict[str, set[Any]] = {}
        for place in self.places:
            named = zip(place.answers, place.candidates, strict=True)
            skips.setdefault(place.name, {answer for answer, candidate in named if _is_skip(candidate)})
        scores = self.scores()
        taken = [max(scores[name], key=scores[name].__getitem__) in of for name, of in skips.items() if of]
        return float(np.mean(taken)) if taken else 0.0

    def _on_edges(self, alpha: Tensor, weights: dict[str, Weights]) -> dict[str, Weights]:
        """The same, each times the weight of its edge among those that enter the same node."""
        of_edges = torch.split(alpha[sum(self.sizes) :], [len(group) for group in self.edges])
        for group, numbers in zip(self.edges, of_edges, strict=True):
            for name, share in zip(group, numbers.softmax(0), strict=True):
                weights[name] = replace(weights[name], share=share)
        return weights

    def _scores(self) -> list[list[float]]:
        logs = [part.log_softmax(0).tolist() for part in self.split(self.alpha.detach())]
        losses = [part.tolist() for part in self.split(self.without)]
        return [
            of if chosen < 0 else those
            for of, those, chosen in zip(logs, losses, self._chosen(), strict=True)
        ]

    def _chosen(self) -> list[int]:
        return [-1] * len(self.sizes) if self.decided.is_meta else self.decided.tolist()

    def _only(self, answer: int, size: int) -> Weights:
        return Weights(torch.ones(size, device=self.alpha.device), (answer,))

    def _named(self, parts: Sequence[Any]) -> list[tuple[str, Any]]:
        return list(zip(self.decisions, parts, strict=True))


def _checked(edges: Sequence[Sequence[str]], decisions: Mapping[str, Any]) -> list[list[str]]:
    groups = [list(group) for group in edges]
    seen: set[str] = set()
    for name in itertools.chain(*groups):
        if name not in decisions:
            raise ValueError(
                f"Mixture(edges=...): {name!r} is no decision; those are {', '.join(decisions)}."
            )
        if name in seen:
            raise ValueError(f"Mixture(edges=...): {name!r} is there twice, and an edge enters one node.")
        seen.add(name)
    return groups


def _is_skip(module: nn.Module) -> bool:
    if isinstance(module, nn.Sequential):
        return all(map(_is_skip, module))
    return isinstance(module, nn.Identity)
