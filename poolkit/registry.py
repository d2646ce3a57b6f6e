"""Every pool of this process: for whoever asks which are still open, and for a fork."""

import os
from weakref import WeakSet

_pools = WeakSet()


def add(pool):
    _pools.add(pool)


def live_pools() -> list:
    """List the pools of this process that are not closed."""
    return [pool for pool in _pools if not pool.closed]


def _forget_parents_connections():
    # In a forked child: the sockets are shared with the parent, so a word on one of them, even a
    # good-bye, would end the parent's session. Each pool starts again, with none.
    for pool in _pools:
        pool._start_again()


if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
    os.register_at_fork(after_in_child=_forget_parents_connections)
