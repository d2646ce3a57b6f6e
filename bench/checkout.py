"""What one checkout and return costs: one thread, nothing to wait for, no query.

What is timed are the pools' own functions, in a bare loop, with the garbage collector off.
"""

import gc
from contextlib import ExitStack
from itertools import repeat
from time import perf_counter

from . import peers
from .rounds import Figure, in_turns

SECTION = "One checkout and return"
CALLS, BLOCK = "getconn + putconn", "with block"
PEERS = (
    peers.Poolkit,
    peers.Psycopg2Threaded,
    peers.PsycopgPool,
    peers.PsycopgPoolChecked,
    peers.SQLAlchemyQueuePool,
    peers.DBUtilsPooledDB,
    peers.Unpooled,
)


def measure(dsn, plan) -> list[Figure]:
    """Return two figures in us: for the pools' bare functions, and for their `with` blocks."""
    with ExitStack() as stack:
        pools = [stack.enter_context(peer.open(dsn, 1, 1)) for peer in PEERS]
        loops = {(CALLS, pool.name): _calls(*pool.native) for pool in pools}
        loops |= {(BLOCK, pool.name): _blocks(pool) for pool in pools if pool.connection}
        contests = {key: _repeated(loop, plan.checkout_time) for key, loop in loops.items()}
        gc.collect()
        gc.disable()
        try:
            took = in_turns(contests, plan.checkout_rounds)
        finally:
            gc.enable()
    return [
        Figure(SECTION, name, "us", False, {pool: took[n, pool] for n, pool in took if n == name})
        for name in (CALLS, BLOCK)
    ]


def _calls(getconn, putconn):
    def loop(n):
        start = perf_counter()
        for _ in repeat(None, n):
            putconn(getconn())
        return perf_counter() - start

    return loop


def _blocks(pool):
    connection = pool.pool.connection

    def loop(n):
        start = perf_counter()
        for _ in repeat(None, n):
            with connection():
                pass
        return perf_counter() - start

    return loop


def _repeated(loop, seconds):
    """Return a function that runs `loop` for about so long, and returns us for one time."""
    loop(5)
    n = max(5, round(seconds / loop(5) * 5))
    return lambda: loop(n) / n * 1e6
