"""One measurement at a time on a machine, however many workers run there."""

from __future__ import annotations

from contextlib import AbstractContextManager

from optnas import locks


def one_at_a_time(what: str) -> AbstractContextManager[None]:
    """Wait until no other process of this user, or thread, measures the same, such as `latency`."""
    return locks.one_at_a_time(
        f"{what}-{locks.user()}", f"measures ({what})", "several measurements may disturb one another"
    )
