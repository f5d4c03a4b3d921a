"""Ctrl-C, SIGTERM, a closed terminal and user code that exits: when they may end a search."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType
from typing import Any, NoReturn

Passage = Callable[[], AbstractContextManager[None]]
"""Makes contexts that let signals through, first those that were held back before."""


@contextmanager
def signals_raise() -> Iterator[None]:
    """Turn SIGTERM, which schedulers send before they take a machine away, into an exception.

    SIGHUP, the end of the terminal or of the ssh connection, becomes SIGTERM, unless `nohup` has it ignored.
    """

    raised: list[SystemExit] = []

    def terminate(number: int, frame: FrameType | None) -> None:
        raised.append(SystemExit(128 + number))
        raise raised[-1]

    def hang_up(number: int, frame: FrameType | None) -> None:
        signal.raise_signal(signal.SIGTERM)

    def is_lost(error: BaseException | None) -> signal.Signals | None:
        if isinstance(error, KeyboardInterrupt):
            return signal.SIGINT
        return signal.SIGTERM if any(error is one for one in raised) else None

    with _handler(signal.SIGTERM, terminate), _sent_again(is_lost):
        if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            with _handler(signal.SIGHUP, hang_up):
                yield
        else:
            yield


@contextmanager
def _sent_again(is_lost: Callable[[BaseException | None], signal.Signals | None]) -> Iterator[None]:
    """If Python ignores the exception of a signal, send the signal again a little later.

    Python ignores exceptions that are raised in a `__del__` or in the callback of a weak reference.
    """
    if not _in_main_thread():
        yield
        return
    before = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        number = is_lost(unraisable.exc_value)
        if number is None:
            before(unraisable)
            return
        timer = threading.Timer(0.05, os.kill, (os.getpid(), number))
        timer.daemon = True
        timer.start()

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before


@contextmanager
def signals_wait() -> Iterator[Passage]:
    """Hold SIGINT and SIGTERM back, then let them through, unless an exception ends the context anyway.

    SIGCHLD is handled only in passages, because torch's handler raises an exception wherever the main thread
    is when a process that loads data dies.
    """
    held: list[int] = []
    interrupt, terminate = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)

    def hold(number: int, frame: FrameType | None) -> None:
        held.append(number)

    def let_through() -> None:
        while held:
            signal.raise_signal(held.pop(0))

    @contextmanager
    def passage() -> Iterator[None]:
        with _handler(signal.SIGTERM, terminate), _handler(signal.SIGINT, interrupt), children.heard():
            let_through()
            yield

    children = _Children()
    with children.unheard(), _handler(signal.SIGTERM, hold), _handler(signal.SIGINT, hold):
        yield passage
    let_through()


@contextmanager
def exits_are_told(message: str) -> Iterator[None]:
    """Write `message` to stderr and exit with status 1 where code of this process calls `os._exit(0)`.

    The process cannot be kept from ending, but whoever looks at its status must not believe that the search
    is done. Code that took the function out of `os` before is not noticed; forked children may exit so.
    """
    process, leave = os.getpid(), os._exit

    def tell(status: int) -> NoReturn:
        if status == 0 and os.getpid() == process:
            print(message, file=sys.stderr, flush=True)
            status = 1
        leave(status)

    os._exit = tell
    try:
        yield
    finally:
        os._exit = leave


class _Children:
    """The handler of SIGCHLD, which torch sets once, when it first loads data in processes of their own."""

    def __init__(self) -> None:
        self._applies = sys.platform != "win32" and _in_main_thread()
        self._handler: Any = signal.getsignal(signal.SIGCHLD) if self._applies else None

    @contextmanager
    def unheard(self) -> Iterator[None]:
        if not self._applies:
            yield
            return
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        try:
            yield
        finally:
            signal.signal(signal.SIGCHLD, self._handler)

    @contextmanager
    def heard(self) -> Iterator[None]:
        if not self._applies:
            yield
            return
        signal.signal(signal.SIGCHLD, self._handler)
        try:
            yield
        finally:
            self._handler = signal.getsignal(signal.SIGCHLD)  # torch may have set its own by now
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)


@contextmanager
def _handler(number: signal.Signals, handler: Any) -> Iterator[None]:
    if not _in_main_thread():
        yield
        return
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


def _in_main_thread() -> bool:
    """Only the main thread may set handlers."""
    return threading.current_thread() is threading.main_thread()
