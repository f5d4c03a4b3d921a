"""Everything that optnas raises, as one tree; and errors in words: whose fault, and where they arose.

    OptnasError
    ├── SpaceError               the sampled model does not run
    ├── ParamsMismatchError      stored answers do not fit what is asked today
    │   └── ChoicesError         a study cannot keep the choices that a name offers
    ├── SpaceExhausted           every architecture of the space is known
    ├── SearchFailedError        trials fail again and again for the same reason
    ├── UntestableError          there is nothing to test with
    ├── UntrustworthyError       an estimate is too poor for what it is asked for
    ├── DeviceError              a device that measures networks does not answer
    ├── CheckpointError          files of a training cannot be written
    ├── WeightsError             weights to begin with cannot be read, or fit no network
    ├── StorageUnavailableError  the database cannot be reached, opened or written
    │   └── StudyGoneError       the study is not in it any more, or is another one
    ├── TrialTakenError          another attempt owns the trial now
    ├── TrialPaused              an estimate wants to go on later; no fault
    └── ConformanceError         a part of yours does not do what it must

Each is a subclass, too, of the built-in or Optuna exception that callers catch for the like.
"""

from __future__ import annotations

import errno
import logging
import re
import sysconfig
import traceback
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError

if TYPE_CHECKING:
    from torch import nn


class OptnasError(Exception):
    """The base class of everything that optnas raises.

    Examples:
        >>> issubclass(optnas.ParamsMismatchError, optnas.errors.OptnasError)
        True
    """


class SpaceError(OptnasError, RuntimeError):
    """The sampled model does not run; the message has the place in the user's code and the parameters.

    Examples:
        >>> def wrong(trial):
        ...     return nn.Linear(5, 3)
        >>> bad = optnas.Objective(wrong, score, values={"score": "maximize"}, example=(2, 4))
        >>> try:
        ...     bad(optuna.create_study(direction="maximize").ask())
        ... except optnas.errors.SpaceError as error:
        ...     print("the model does not take its inputs")
        the model does not take its inputs
    """


class ParamsMismatchError(OptnasError, ValueError):
    """Stored answers do not fit the questions that a space asks today.

    Examples:
        >>> try:
        ...     space(replay({"width": 7}))
        ... except optnas.ParamsMismatchError as error:
        ...     print(str(error)[:35])
        Parameter 'width' is 7, but the spa
    """


class ChoicesError(ParamsMismatchError):
    """A study cannot store the choices of a name: they are not those of before, or two of them look alike to
    it.

    Examples:
        >>> issubclass(optnas.errors.ChoicesError, optnas.ParamsMismatchError)
        True
    """


class SpaceExhausted(OptnasError):
    """Every architecture of a finite space has been tried: the search is done.

    Examples:
        >>> def flag(trial):
        ...     return trial.suggest_int("x", 0, 1)
        >>> sampler = optnas.DistinctSampler(optuna.samplers.RandomSampler(), flag)
        >>> search = optuna.create_study(sampler=sampler)
        >>> search.optimize(flag, n_trials=2)
        >>> try:
        ...     flag(search.ask())
        ... except optnas.strategy.SpaceExhausted:
        ...     print("both answers have been tried")
        both answers have been tried
    """


class SearchFailedError(OptnasError, RuntimeError):
    """The trials fail again and again for the same reason; the message has it, the cause its traceback.

    Examples:
        >>> def broken(model, trial):
        ...     raise ValueError("no such file")
        >>> bad = optnas.Objective(space, broken, values={"score": "maximize"}, example=example)
        >>> try:
        ...     optnas.optimize(optnas.create_study(bad), bad, n_trials=3)
        ... except optnas.search.SearchFailedError as error:
        ...     print("no trial was spent")
        no trial was spent
    """


class UntestableError(OptnasError, RuntimeError):
    """There is no test: the data has no test split, or the task no `test_step`.

    Examples:
        >>> try:
        ...     optnas.best(study, objective).test()
        ... except optnas.errors.UntestableError:
        ...     print("a plain function cannot test")
        a plain function cannot test
    """


class UntrustworthyError(OptnasError, ValueError):
    """An estimate is too poor for what it is asked for; the message has the figures and the way out.

    Examples:
        >>> issubclass(optnas.errors.UntrustworthyError, ValueError)
        True
    """


class DeviceError(OptnasError, ConnectionError):
    """A device that measures networks does not answer, not even for a network that it has measured before.

    Examples:
        >>> optnas.errors.is_infrastructure(optnas.errors.DeviceError("the board does not answer"))
        True
    """


class CheckpointError(OptnasError, OSError):
    """Files of a training cannot be written: the disk is full, or the folder may not be written to.

    Examples:
        >>> issubclass(optnas.errors.CheckpointError, OSError)
        True
    """


class WeightsError(OptnasError, ValueError):
    """Weights to begin with cannot be read, or nothing of them fits the network.

    Examples:
        >>> issubclass(optnas.errors.WeightsError, ValueError)
        True
    """


class StorageUnavailableError(OptnasError, StorageInternalError):
    """The database could not be reached, opened or written; the message has the reason and the way out.

    Examples:
        >>> try:
        ...     optnas.open_storage("sqlite:////no/such/folder/nas.db")
        ... except optnas.storage.StorageUnavailableError as error:
        ...     print("the message says why")
        the message says why
    """


class StudyGoneError(StorageUnavailableError, KeyError):
    """The study, or the trial, was deleted, or the database put back to an older copy, while it was open.

    Examples:
        >>> issubclass(
        ...     optnas.storage.StudyGoneError, (optnas.storage.StorageUnavailableError, KeyError)
        ... )
        True
    """

    __str__ = Exception.__str__  # KeyError would put the sentence into quotes


class TrialTakenError(OptnasError, UpdateFinishedTrialError):
    """This process lost the trial: its lease ended, and another attempt owns it now. Nothing was written.

    Examples:
        >>> optnas.errors.is_infrastructure(optnas.storage.TrialTakenError("taken"))
        True
    """


class TrialPaused(OptnasError):
    """No error: an estimate stops and may go on later, and its trial goes back into the queue.

    Examples:
        >>> def estimate(model, run):
        ...     raise optnas.errors.TrialPaused("goes on when the machine is free")
    """


class ConformanceError(OptnasError, AssertionError):
    """A space breaks a rule; the message says which one, the params that show it, and the way out.

    `check` is the name of the rule, `params` the answers given when it was found broken.

    Examples:
        >>> def impure(trial):
        ...     return nn.Linear(4, int(torch.randint(1, 9, ())))
        >>> try:
        ...     optnas.testing.check_space(impure, (2, 4))
        ... except optnas.testing.ConformanceError as error:
        ...     print(error.check)
        purity
    """

    def __init__(self, check: str, message: str, params: Mapping[str, Any]) -> None:
        super().__init__(f"{check}: {message} [params: {dict(params)}]")
        self.check = check
        self.params = dict(params)


def _installed() -> Iterator[str]:
    """Where code lies that is not the user's: Python, installed packages (torch's folder), optnas itself."""
    yield from (sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    torch = find_spec("torch")
    yield from (str(Path(folder).parent) for folder in (torch and torch.submodule_search_locations) or ())
    yield str(Path(__file__).parent)
    yield "<frozen"


_INSTALLED = tuple(_installed())


# Of the machine, its disks and its networks, and not of the code that meets them.
_OF_MACHINES = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.ENOMEM, errno.EMFILE, errno.ENFILE}
    | {errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH}
    | {errno.ECONNRESET, errno.ECONNABORTED, errno.ENOTCONN, errno.ENETRESET}
    | {errno.EROFS, errno.EREMOTEIO, errno.ENODEV, errno.ENXIO}
)
# What torch says when a process that loads data died, or found no room to hand its batch over.
_LOADER_DIED = re.compile(
    r"^DataLoader worker \(pid.*\) (is killed by signal|exited unexpectedly)"
    "|unable to open shared memory object|received 0 items of ancdata|Too many open files"
)
_ERRNO = re.compile(r"\[Errno (\d+)\]")


def is_infrastructure(error: BaseException) -> bool:
    """Whether an attempt ended through no fault of its trial, which can go on later or elsewhere.

    The storage, the disk, the memory, the network or a measuring device of the machine failed, a process that
    loads data was killed, or another process has taken the trial over.

    Examples:
        >>> full = OSError(28, "No space left on device")
        >>> optnas.errors.is_infrastructure(full), optnas.errors.is_infrastructure(ValueError())
        (True, False)
    """
    if isinstance(error, OSError) and error_number(error) in _OF_MACHINES:
        return True
    if isinstance(error, RuntimeError) and _LOADER_DIED.search(str(error)):
        return True
    return isinstance(error, StorageInternalError | UpdateFinishedTrialError | CheckpointError | DeviceError)


def error_number(error: OSError) -> int | None:
    """The `errno` of an error, read from its message if a DataLoader's process passed on nothing else.

    Examples:
        >>> optnas.errors.error_number(OSError(28, "No space left on device"))
        28
    """
    found = _ERRNO.findall(str(error)) if error.errno is None else []
    return int(found[-1]) if found else error.errno


def describe_error(error: BaseException) -> str:
    """`Type at file:line in function: message`, with the last place that is the user's own code.

    Examples:
        >>> optnas.errors.describe_error(ValueError("no rows"))
        'ValueError: no rows'
    """
    message = next(iter(str(error).strip().splitlines()), "no message")
    return message if isinstance(error, SpaceError) else f"{cause_of(error)}: {message}"


class ToldOnce:
    """Logs what goes wrong with a candidate: the first time as a warning, from then on at debug level.

    For who looks at hundreds of candidates and goes on without what cannot be had: a fault of optnas would
    hide in a log that nobody reads, and a warning for each candidate would bury everything else.

    Examples:
        >>> import logging
        >>> tell = optnas.errors.ToldOnce(logging.getLogger("mine"))
        >>> tell(ValueError("no such layer"), "The costs of a candidate are not known.")
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._told: set[str] = set()

    def __call__(self, error: BaseException, words: str) -> None:
        """`words` say what cannot be had and what that means; each is a warning once."""
        if words in self._told:
            self._logger.debug("%s", words, exc_info=error)
            return
        self._told.add(words)
        self._logger.warning("%s The error: %s. Said once.", words, describe_error(error).rstrip("."))
        self._logger.debug("Its traceback.", exc_info=error)


def cause_of(error: BaseException) -> str:
    """A name that is equal for the same error in other trials: `Type at file:line in function`.

    Examples:
        >>> optnas.errors.cause_of(ValueError("no rows"))
        'ValueError'
    """
    if isinstance(error, SpaceError) and error.__cause__ is not None:
        return cause_of(error.__cause__)
    place = f" at {where}" if (where := place_of(error)) else ""
    return f"{type(error).__name__}{place}"


def place_of(error: BaseException) -> str:
    """`file:line in function`, the last place that is the user's own code; "" where there is none.

    Examples:
        >>> optnas.errors.place_of(ValueError("never raised"))
        ''
    """
    own = [f for f in traceback.extract_tb(error.__traceback__) if is_users_code(f.filename)]
    return f"{Path(own[-1].filename).name}:{own[-1].lineno} in {own[-1].name}" if own else ""


def is_users_code(filename: str) -> bool:
    """Whether a source file belongs neither to Python, nor to an installed package, nor to optnas.

    Examples:
        >>> optnas.errors.is_users_code(torch.__file__)
        False
    """
    return not filename.startswith(_INSTALLED)


def failing_layer(model: nn.Module | None, error: BaseException) -> str:
    """The innermost layer of the model whose code raised the error, by its path in the model.

    Examples:
        >>> network = nn.Sequential(nn.Linear(4, 3), nn.Linear(4, 3))
        >>> try:
        ...     network(torch.zeros(2, 4))
        ... except RuntimeError as error:
        ...     print(optnas.errors.failing_layer(network, error))
        layer '1' (Linear)
    """
    layers = {id(module): name for name, module in model.named_modules()} if model is not None else {}
    selves = [frame.f_locals.get("self") for frame, _ in traceback.walk_tb(error.__traceback__)]
    inner = [m for m in selves if layers.get(id(m))]
    return f"layer {layers[id(inner[-1])]!r} ({type(inner[-1]).__name__})" if inner else ""
