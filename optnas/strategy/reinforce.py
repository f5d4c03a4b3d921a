"""Policy gradient with a recurrent controller (Zoph & Le, ICLR 2017, arXiv:1611.01578).

Also the REINFORCE baseline of NATS-Bench (Dong et al., TPAMI 2021), whose controller has no recurrence.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from torch import nn

from optnas.space.explore import options
from optnas.strategy.base import Pick, TrialSampler, loss

BINS = 16


class ReinforceSampler(TrialSampler):
    """An LSTM answers question after question, knowing its earlier answers; each trial that ends teaches it.

    The reward of a trial is the share of the trials before it that are worse (so no scale of the objective
    matters); pruned and infeasible trials have none. The update is `(reward - baseline) * grad log p` plus an
    entropy bonus, by Adam; the baseline is a moving average of the rewards. A question with very many answers
    is answered by one of 16 intervals and then at random within it. The controller is rebuilt from the stored
    trials, in the order in which they ended, whoever made them.

    Args:
        learning_rate: Of Adam.
        entropy: The weight of the entropy bonus.
        baseline_decay: Of the moving average of the rewards.
        hidden: Units of the LSTM.
        seed: See `TrialSampler`.

    Raises:
        ValueError: `learning_rate` or `hidden` is not positive, or not `0 <= baseline_decay < 1`.
    """

    def __init__(
        self,
        learning_rate: float = 0.003,
        entropy: float = 0.1,
        baseline_decay: float = 0.9,
        hidden: int = 32,
        seed: int | None = None,
    ) -> None:
        if not (learning_rate > 0 and hidden > 0 and 0 <= baseline_decay < 1):
            raise ValueError(
                "ReinforceSampler needs learning_rate > 0, hidden > 0 and 0 <= baseline_decay < 1, got "
                f"learning_rate={learning_rate}, hidden={hidden}, baseline_decay={baseline_decay}."
            )
        super().__init__(seed)
        self.learning_rate = learning_rate
        self.entropy = entropy
        self.baseline_decay = baseline_decay
        self.hidden = hidden
        self._learners: dict[int, _Learner] = {}  # per study; lost with the process, rebuilt from its trials

    def prepare(self, study: Study, trial: FrozenTrial, rng: np.random.Generator) -> Pick:
        """Learn from the trials that have ended since, then answer by the policy."""
        controller = self._learned(study).controller
        state = controller.start()
        read: set[str] = set()

        def pick(name: str, distribution: BaseDistribution) -> Any:
            nonlocal state
            with torch.no_grad():
                # Optuna adds each answer to the trial, those that were enqueued too: they are context.
                for earlier in [e for e in trial.params if e not in read]:
                    read.add(earlier)
                    state = controller.read(
                        state, earlier, trial.distributions[earlier], trial.params[earlier]
                    )
                read.add(name)
                hidden, log_p = controller.step(state, name, distribution)
                p = log_p.double().exp().numpy()
                action = int(rng.choice(len(p), p=p / p.sum()))
                state = hidden, controller.embedding(name, distribution)[action]
            return _value(name, distribution, action, rng)

        return pick

    def _learned(self, study: Study) -> _Learner:
        trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
        trials.sort(key=lambda trial: (trial.datetime_complete, trial.number))
        learner = self._learners.get(study._study_id)
        if learner is None or learner.numbers != [t.number for t in trials[: len(learner.numbers)]]:
            learner = _Learner(self)
            self._learners[study._study_id] = learner
        for trial in trials[len(learner.numbers) :]:
            learner.learn(study, trial)
        return learner


class _Learner:
    """A controller, and what its next update depends on."""

    def __init__(self, sampler: ReinforceSampler) -> None:
        self.numbers: list[int] = []
        self.controller = _Controller(sampler.hidden, sampler.seed)
        self._settings = sampler
        self._losses: list[float] = []
        self._baseline: float | None = None
        self._adam = torch.optim.Adam(self.controller.shared(), lr=sampler.learning_rate)

    def learn(self, study: Study, trial: FrozenTrial) -> None:
        """One step of policy gradient."""
        self.numbers.append(trial.number)
        for parameters in self.controller.meet(trial.distributions.items()):
            self._adam.add_param_group({"params": parameters})
        sound = trial.state == TrialState.COMPLETE and all(v <= 0 for v in trial.constraints.values())
        reward = 0.0
        if sound:
            value = loss(study, trial)
            beaten = sum((other > value) + 0.5 * (other == value) for other in self._losses)
            reward = beaten / len(self._losses) if self._losses else 0.5
            self._losses.append(value)
        baseline = reward if self._baseline is None else self._baseline
        decay = self._settings.baseline_decay
        self._baseline = decay * baseline + (1 - decay) * reward
        with torch.enable_grad():
            log_p, entropy = self.controller.log_likelihood(trial)
            objective = (reward - baseline) * log_p + self._settings.entropy * entropy
            if objective.requires_grad:
                self._adam.zero_grad()
                (-objective).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
                self._adam.step()


State = tuple[tuple[torch.Tensor, torch.Tensor], torch.Tensor]


class _Controller:
    """An LSTM over the sequence of decisions; each question has its own head and its own embeddings."""

    def __init__(self, hidden: int, seed: int) -> None:
        self.hidden = hidden
        self._seed = seed
        with torch.random.fork_rng(devices=[]):
            self.cell = nn.LSTMCell(hidden, hidden, device="cpu", dtype=torch.float32)
        self._initialize(list(self.cell.parameters()), "cell")
        self._heads: dict[tuple[str, str], tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = {}
        self._met: set[tuple[str, str]] = set()

    def shared(self) -> list[torch.Tensor]:
        return list(self.cell.parameters())

    def start(self) -> State:
        zeros = torch.zeros(1, self.hidden, device="cpu", dtype=torch.float32)
        return (zeros, zeros), zeros[0]

    def meet(self, questions: Iterable[tuple[str, BaseDistribution]]) -> list[list[torch.Tensor]]:
        """The parameters of questions that no trial has asked before, one list for each."""
        new = [(name, d) for name, d in questions if (name, repr(d)) not in self._met]
        self._met.update((name, repr(d)) for name, d in new)
        return [list(self._head(name, distribution)) for name, distribution in new]

    def step(self, state: State, name: str, distribution: BaseDistribution) -> tuple[Any, torch.Tensor]:
        """The new hidden state and the log probability of each action, `(actions,)`."""
        hidden = self.cell(state[1][None], state[0])
        _, weight, bias = self._head(name, distribution)
        return hidden, torch.log_softmax(weight @ hidden[0][0] + bias, dim=0)

    def embedding(self, name: str, distribution: BaseDistribution) -> torch.Tensor:
        """Of the answers to a question, `(actions, hidden)`: what the next step reads."""
        return self._head(name, distribution)[0]

    def read(self, state: State, name: str, distribution: BaseDistribution, value: Any) -> State:
        """The state after an answer that somebody else gave."""
        if distribution.single():
            return state
        hidden, _ = self.step(state, name, distribution)
        return hidden, self.embedding(name, distribution)[_action(name, distribution, value)]

    def log_likelihood(self, trial: FrozenTrial) -> tuple[torch.Tensor, torch.Tensor]:
        """Of a trial's answers, and the mean entropy of its questions."""
        state = self.start()
        log_p = entropy = torch.zeros((), device="cpu")
        for name, distribution in trial.distributions.items():
            if distribution.single():
                continue
            hidden, log_policy = self.step(state, name, distribution)
            action = _action(name, distribution, trial.params[name])
            log_p = log_p + log_policy[action]
            entropy = entropy - (log_policy.exp() * log_policy).sum() / len(trial.distributions)
            state = hidden, self.embedding(name, distribution)[action]
        return log_p, entropy

    def _head(
        self, name: str, distribution: BaseDistribution
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        key = name, repr(distribution)
        if key not in self._heads:
            actions = _n_actions(name, distribution)
            shapes = (actions, self.hidden), (actions, self.hidden), (actions,)
            parameters = [torch.zeros(shape, device="cpu", dtype=torch.float32) for shape in shapes]
            self._initialize(parameters[:2], name)  # without a bias: the first policy is nearly uniform
            for parameter in parameters:
                parameter.requires_grad_()
            self._heads[key] = parameters[0], parameters[1], parameters[2]
        return self._heads[key]

    def _initialize(self, parameters: Sequence[torch.Tensor], name: str) -> None:
        """By the name, so that the order in which questions turn up does not matter."""
        generator = torch.Generator(device="cpu").manual_seed(self._seed + zlib.crc32(name.encode()))
        with torch.no_grad():
            for parameter in parameters:
                parameter.uniform_(-0.1, 0.1, generator=generator)


def _is_binned(name: str, distribution: BaseDistribution) -> bool:
    if isinstance(distribution, CategoricalDistribution):
        return False
    is_continuous = isinstance(distribution, FloatDistribution) and distribution.step is None
    return is_continuous or len(options(name, distribution)) > 2 * BINS


def _n_actions(name: str, distribution: BaseDistribution) -> int:
    return BINS if _is_binned(name, distribution) else len(options(name, distribution))


def _action(name: str, distribution: BaseDistribution, value: Any) -> int:
    """Which of a question's actions leads to an answer."""
    if _is_binned(name, distribution):
        low, high = _bounds(distribution)
        number = math.log(value) if getattr(distribution, "log", False) else value
        return min(max(int((number - low) / (high - low) * BINS), 0), BINS - 1)
    if isinstance(distribution, CategoricalDistribution):
        return [repr(choice) for choice in distribution.choices].index(repr(value))
    return int(np.abs(np.array(options(name, distribution)) - value).argmin())


def _value(name: str, distribution: BaseDistribution, action: int, rng: np.random.Generator) -> Any:
    """An answer to which an action leads; at random within an interval."""
    if not _is_binned(name, distribution):
        return options(name, distribution)[action]
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high = _bounds(distribution)
    number = low + (high - low) * (action + rng.random()) / BINS
    number = math.exp(number) if distribution.log else number
    if distribution.step is not None:
        number = distribution.low + distribution.step * round((number - distribution.low) / distribution.step)
    number = min(max(number, distribution.low), distribution.high)
    return int(number) if isinstance(distribution, IntDistribution) else float(number)


def _bounds(distribution: Any) -> tuple[float, float]:
    low, high = distribution.low, distribution.high
    return (math.log(low), math.log(high)) if distribution.log else (low, high)
