"""When Ctrl-C, SIGTERM and the end of a terminal may interrupt a search."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType
from typing import Any

Passage = Callable[[], AbstractContextManager[None]]
"""Makes contexts in which signals come through, those first that were held back before."""


@contextmanager
def signals_raise() -> Iterator[None]:
    """Turn SIGTERM, which schedulers send before they take a machine away, into an exception.

    SIGHUP, the end of the terminal or of the ssh connection, becomes SIGTERM, unless `nohup` has it ignored.
    """

    def terminate(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    def hang_up(number: int, frame: FrameType | None) -> None:
        signal.raise_signal(signal.SIGTERM)

    with _handler(signal.SIGTERM, terminate):
        if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            with _handler(signal.SIGHUP, hang_up):
                yield
        else:
            yield


@contextmanager
def signals_wait() -> Iterator[Passage]:
    """Hold SIGINT and SIGTERM back, then let them through, unless an exception ends the context anyway."""
    held: list[int] = []
    interrupt, terminate = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)

    def hold(number: int, frame: FrameType | None) -> None:
        held.append(number)

    def let_through() -> None:
        while held:
            signal.raise_signal(held.pop(0))

    @contextmanager
    def passage() -> Iterator[None]:
        with _handler(signal.SIGTERM, terminate), _handler(signal.SIGINT, interrupt):
            let_through()
            yield

    with _handler(signal.SIGTERM, hold), _handler(signal.SIGINT, hold):
        yield passage
    let_through()


@contextmanager
def _handler(number: signal.Signals, handler: Any) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set them
        yield
        return
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)
