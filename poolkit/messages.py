"""What a pool says: to its observer, and to those whom it refuses.

A refusal says who, what, for how long, what the pool looked like, and what to try.
"""

import warnings

from .errors import PoolClosed, PoolDeadlock, PoolError, PoolTimeout, TooManyRequests
from .slots import list_holders
from .where import where


def tell(pool, kind, number=None, client=None):
    """Tell the pool's `on_event`. If that raises, warn, and call it no more: an observer must never
    cost a connection."""
    on_event = pool.on_event
    if on_event is None:
        return
    try:
        on_event(pool.name, kind, number, client and where(client))
    except Exception as error:
        pool.on_event = None
        what = f"on_event of pool {pool.name!r} raised {error!r}: it is called no more"
        warnings.warn(what, RuntimeWarning, stacklevel=4)


# The rest return an exception for the pool to raise. Those that count are called under its lock.


def too_late(pool, timeout):
    hint = "return every connection, sooner, or raise max_size"
    # That a connect failed is to blame only where there was room for one.
    cause = pool._connect_error if len(pool._in_use) < pool.max_size else None
    if cause is not None:
        hint = "no new one could be opened, see the cause above"
    what = f"no connection within {timeout:.2f} s"
    error = PoolTimeout(f"pool {pool.name!r}: {what} {_looks(pool)}; {hint}")
    error.__cause__ = cause
    return error


def deadlock(pool):
    what = "deadlock: whoever holds a connection waits here for another one"
    hint = "check out once, and hand the connection on"
    return PoolDeadlock(f"pool {pool.name!r}: {what} {_looks(pool)}; {hint}")


def too_many(pool):
    what = f"no more than max_waiting={pool.max_waiting} requests may wait"
    return TooManyRequests(f"pool {pool.name!r}: {what} ({pool._count()}); try again later")


def closed(pool):
    return PoolClosed(f"pool {pool.name!r} is closed: it lends nothing any more")


def not_lent(pool, conn, known):
    """`known`: whether the pool has ever opened this connection."""
    if conn is None:
        return PoolError(f"can't return None to pool {pool.name!r}: putconn takes a connection")
    what = f"<{type(conn).__module__}.{type(conn).__name__} at {id(conn):#x}>"
    why = "it was returned already" if known else "it is not one of this pool's"
    return PoolError(f"can't return {what} to pool {pool.name!r}: {why}")


def _looks(pool):
    names = [str(holder) for holder in list_holders(pool._in_use.values())]
    if len(names) > 5:
        names[5:] = [f"{len(names) - 5} more"]
    held = "; held by: " + ", ".join(names) if names else ""
    return f"({pool._count()}){held}"
