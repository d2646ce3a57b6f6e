"""How connections are opened: `min_size` at the start, more while somebody waits.

A request does not connect by itself: a connection that is returned in the meantime serves it
sooner, and a connect that hangs must not hold it up. So the pool grows in a thread of its own, one
connection at a time, and the thread ends when nobody waits any more.
"""

from random import uniform
from threading import Thread
from time import sleep

from .messages import tell
from .slots import Slot


def fill(pool):
    """Open connections, in the caller's thread, until there are `min_size`."""
    for _ in range(pool.min_size):
        with pool._lock:
            slot = _new_slot(pool, pool.min_size)
        if slot is None:
            return
        connect(pool, slot)


def connect(pool, slot):
    """Connect, for a slot that is pending, and settle it; if that fails, free it."""
    usable = False
    try:
        tell(pool, "opening", slot.number)
        slot.fill(pool._driver.connect())
        pool._known[slot.key] = slot.conn
        if pool._configure:
            pool._configure(slot.conn)
            slot.session.commit()
            slot.session.remember()
        pool._connect_error = None
        tell(pool, "opened", slot.number)
        usable = True
    except BaseException as error:
        pool._connect_error = error
        tell(pool, "failed", slot.number)
        raise
    finally:
        pool._settle(slot, usable)


def grow(pool):
    """Start a thread that connects, if that would help somebody and none is at it."""
    start = False
    try:
        with pool._lock:
            room = len(pool._slots) < pool.max_size
            start = room and bool(pool._waiting) and not pool._growing
            pool._growing = pool._growing or start
        if start:
            Thread(target=_connect_while_wanted, args=(pool,), daemon=True).start()
    except RuntimeError:  # no more threads: connect here, and do not insist
        try:
            _connect_while_wanted(pool, patient=False)
        except Exception:
            pass  # the pool knows it, as its last connect error
        finally:
            pool._growing = False
    except BaseException:
        if start:
            pool._growing = False
        raise


def _connect_while_wanted(pool, patient=True):
    pause = 0.05
    while slot := _next_wanted(pool):
        try:
            connect(pool, slot)
            pause = 0.05
        except BaseException:
            if not patient:
                raise
            # The slot is free already. Leave the server alone for a while.
            sleep(pause * uniform(0.5, 1.0))
            pause = min(2 * pause, 2.0)


def _next_wanted(pool):
    with pool._lock:
        slot = _new_slot(pool, pool.max_size) if pool._waiting else None
        pool._growing = slot is not None
        return slot


def _new_slot(pool, limit):
    # Under the lock. None: there are as many as that already.
    if not pool.closed and len(pool._slots) < limit:
        slot = Slot(next(pool._numbers), pool.max_lifetime)
        pool._slots.add(slot)
        return slot
