"""A connection pool that you can read in one sitting.

A connection is always in exactly one place:

    idle       open, and nobody is using it
    in use     checked out by a client
    pending    being opened, cleaned or closed: it holds a slot, but nobody can have it

Clients that find nothing idle are **waiting**, first come first served. One lock guards all of
that. Nothing slow happens while it is held: whatever talks to the server runs outside.
"""

import math
import os
import sys
import threading
import warnings
from collections import deque
from itertools import count
from random import uniform
from threading import TIMEOUT_MAX, current_thread
from time import monotonic, sleep
from typing import NamedTuple
from weakref import WeakSet

from .arguments import seconds, sizes, whole
from .errors import PoolClosed, PoolDeadlock, PoolError, PoolTimeout, TooManyRequests
from .where import describe


class PoolStats(NamedTuple):
    """How many connections are where, and how many requests wait, in one instant."""

    max_size: int
    in_use: int
    idle: int
    pending: int
    waiting: int

    def __str__(self):
        return (
            f"{self.in_use} of {self.max_size} in use, {self.idle} idle, "
            f"{self.pending} pending, {self.waiting} waiting"
        )


class Holder(NamedTuple):
    """Who has a connection now."""

    age: float  # seconds since the checkout
    where: str  # the line that checked out: "app.py:12 in handle"
    thread: str
    conn: object

    def __str__(self):
        return f"{self.thread} for {self.age:.1f} s at {self.where}"


class ConnectionPool:
    """Lends at most `max_size` connections, and opens no more than that.

    Opens `min_size` connections before it returns; a wrong address raises the driver's own error.
    `dsn` and `connect_kwargs` go to psycopg2, unless another `driver` is given. Times are seconds:

    timeout             how long `getconn()` and `connection()` wait, if they do not say
    max_waiting         how many requests may wait at once; 0: any number
    max_lifetime        a connection older than this is closed, when nobody uses it
    max_idle            a connection idle for longer is closed while there are more than `min_size`
    check_idle          a connection idle for longer is asked whether it lives before it is lent
    reset               how a returned connection is cleaned: "rollback" ends its transaction and
                        restores psycopg2's settings, "discard" ends everything the session had (a
                        round trip), a function is called with it, None ends the transaction only
    configure           a function, called with each new connection
    detect_deadlock     raise PoolDeadlock at once when nobody could ever return one
    on_event            called with (pool name, kind, number, where): see recorder.py
    """

    def __init__(
        self,
        dsn: str = "",
        *,
        driver=None,
        min_size: int = 1,
        max_size: int | None = None,
        timeout: float = 30.0,
        max_waiting: int = 0,
        max_lifetime: float = 3600.0,
        max_idle: float = 600.0,
        check_idle: float = 30.0,
        reset="rollback",
        configure=None,
        detect_deadlock: bool = True,
        name: str | None = None,
        on_event=None,
        **connect_kwargs,
    ):
        if misnamed := {"minconn", "maxconn"} & set(connect_kwargs):
            raise TypeError(
                f"{' and '.join(sorted(misnamed))}: here they are called min_size and max_size"
            )
        if not isinstance(dsn, str):
            raise TypeError(
                f"dsn must be a string, got {dsn!r}; sizes go by name: max_size={dsn!r}"
            )
        self.name = name or f"pool-{next(_names)}"
        self.min_size, self.max_size = sizes(min_size, max_size)
        self.timeout = seconds("timeout", timeout)
        self.max_waiting = whole("max_waiting", max_waiting, 0)
        self.max_lifetime = seconds("max_lifetime", max_lifetime)
        self.max_idle = seconds("max_idle", max_idle)
        self.check_idle = seconds("check_idle", check_idle)
        if not (reset in ("rollback", "discard", None) or callable(reset)):
            raise ValueError(
                f"reset must be 'rollback', 'discard', None or a function, got {reset!r}"
            )
        self.on_event = on_event
        self._reset = reset
        self._configure = configure
        self._detect_deadlock = detect_deadlock
        if driver is None:
            from .drivers import Psycopg2 as driver_class

            driver = driver_class(dsn, **{"application_name": self.name} | connect_kwargs)
        elif dsn or connect_kwargs:
            raise TypeError("give either a driver, or a dsn and what else to connect with")
        self._driver = driver
        self._numbers = count(1)
        self._start_empty()
        try:
            self._fill()
        except BaseException:
            self.close(timeout=0)
            raise
        _pools.add(self)

    def _start_empty(self):
        self._lock = threading.Lock()  # guards what follows
        self._idle = []  # slots, the most recently used on the right
        self._in_use = {}  # id of a connection -> its slot
        self._pending = set()  # slots being opened, cleaned or closed
        self._waiting = deque()  # waiters, first come first served
        self._growing = False  # is a thread opening connections for those who wait?
        self._closed = False
        self._drained = -math.inf  # what was opened before this moment is closed on return
        self._connect_error = None  # why the last connect failed, until one succeeds
        self._came_back = threading.Event()  # wakes close()

    # -- what everybody uses ---------------------------------------------------------------------

    def connection(self, timeout: float | None = None):
        """Lend a connection to a `with` block, and take it back when the block ends.

        The block's transaction is committed at its end, or rolled back if an exception leaves it.
        Raises what `getconn` raises; and PoolError at the end of a block that swallowed an SQL
        error, because then nothing was committed.
        """
        return _Lending(self, timeout)

    def getconn(self, timeout: float | None = None):
        """Check out a connection: an idle one, or the next that is returned or opened.

        Waits at most `timeout` seconds; 0 takes one only if it is there. Raises PoolTimeout, which
        says who holds them all, PoolClosed, or TooManyRequests. Every `getconn()` needs its
        `putconn()`: a connection that never comes back is a slot lost for good.
        """
        return self._checkout(timeout, sys._getframe(1)).conn

    def putconn(self, conn, close: bool = False):
        """Return a connection. What its transaction had not committed is rolled back.

        A connection that is broken, or that cannot be cleaned, is closed instead; so is any with
        `close=True`. That never raises. PoolError means that `conn` is not checked out from here.
        """
        slot = self._in_use.get(id(conn))
        if slot is None:
            raise PoolError(self._not_lent(conn))
        self._give_back(slot, slot.loan, close)

    def stats(self) -> PoolStats:
        """Count what is where, in one instant."""
        with self._lock:
            return self._count()

    def holders(self, older_than: float = 0.0) -> list[Holder]:
        """List who has had a connection for more than `older_than` seconds, the longest first."""
        with self._lock:
            slots = list(self._in_use.values())
        now = monotonic()
        held = [
            Holder(now - s.since, describe(s.code, s.line), s.thread.name, s.conn) for s in slots
        ]
        return sorted((h for h in held if h.age >= older_than), key=lambda h: -h.age)

    def __repr__(self):
        state = " closed," if self._closed else ""
        return f"<ConnectionPool {self.name!r}:{state} {self.stats()}>"

    @property
    def closed(self) -> bool:
        return self._closed

    # -- checking out ----------------------------------------------------------------------------

    def _checkout(self, timeout, frame, in_with=False):
        timeout = self.timeout if timeout is None else seconds("timeout", timeout, _NO_KEYS)
        deadline = monotonic() + timeout
        slot, first_in_line = None, False
        try:
            while True:
                with self._lock:
                    if self._idle and not self._closed:
                        slot = self._idle.pop()
                        self._in_use[id(slot.conn)] = slot
                if slot is None:
                    slot = self._wait(timeout, deadline, first_in_line, frame, in_with)
                slot.lend_to(frame, in_with)
                if self._usable(slot):
                    if self.on_event:
                        self._tell("checkout", slot.number, describe(slot.code, slot.line))
                    return slot
                # It died, or grew old, while nobody used it. Ours was the next turn, and still is.
                self._take_back(slot, usable=False)
                slot, first_in_line = None, True
        except BaseException:  # Ctrl-C, too, must not cost the pool a connection
            if slot is not None:
                self._take_back(slot)
            raise

    def _usable(self, slot):
        if slot.since >= slot.expires or not slot.session.alive():
            return False
        return slot.since - slot.idle_since < self.check_idle or slot.session.ping()

    def _wait(self, timeout, deadline, first_in_line, frame, in_with):
        """Queue up, and return the slot that is handed over: it is in use already."""
        waiter = _Waiter()
        try:
            with self._lock:
                self._queue(waiter, timeout, first_in_line)
                opening = self._reserve()
            if self.on_event:
                self._tell("waiting", None, describe(frame.f_code, frame.f_lineno))
            if opening:
                self._grow(opening)
            waiter.sleep(deadline - monotonic())
        except BaseException as error:
            with self._lock:
                slot = self._leave_queue(waiter)
            if slot is not None:
                self._take_back(slot)
            if self.on_event and isinstance(error, PoolError):
                self._tell("refused", None, describe(frame.f_code, frame.f_lineno))
            raise
        # A slot can be handed over in the very moment in which the time runs out: look again.
        with self._lock:
            slot = self._leave_queue(waiter)
            if slot is not None:
                return slot
            closed, message = self._closed, self._too_late(timeout)
        if self.on_event:
            self._tell("timeout")
        if closed:
            raise PoolClosed(f"pool {self.name!r} was closed while this request waited")
        raise PoolTimeout(message) from self._connect_error

    def _queue(self, waiter, timeout, first_in_line):
        # Under the lock.
        if self._closed:
            raise PoolClosed(f"pool {self.name!r} is closed")
        if self._idle:  # somebody returned one since we looked
            slot = self._idle.pop()
            self._in_use[id(slot.conn)] = slot
            waiter.wake(slot)
        elif not timeout:
            raise PoolTimeout(self._too_late(timeout))
        elif self.max_waiting and len(self._waiting) >= self.max_waiting:
            raise TooManyRequests(
                f"pool {self.name!r}: no more than max_waiting={self.max_waiting} requests may "
                f"wait ({self._count()}); try again later"
            )
        else:
            (self._waiting.appendleft if first_in_line else self._waiting.append)(waiter)
            if self._hopeless():
                raise PoolDeadlock(self._too_late(None))

    def _leave_queue(self, waiter):
        # Under the lock.
        if waiter.slot is None and waiter in self._waiting:
            self._waiting.remove(waiter)
        return waiter.slot

    def _hopeless(self):
        # Under the lock. Only what is held in a `with` block counts: a thread that is inside one
        # and waits cannot come to its end. A bare getconn may be returned by anybody.
        if not self._detect_deadlock or self._pending or len(self._in_use) < self.max_size:
            return False
        asleep = {waiter.thread for waiter in self._waiting}
        return all(slot.in_with and slot.thread in asleep for slot in self._in_use.values())

    # -- growing ---------------------------------------------------------------------------------

    def _reserve(self):
        # Under the lock. The pending slot that _grow() must be called with, or None: one connect
        # at a time, and only while somebody waits and there is room.
        room = self._size() < self.max_size and not self._closed
        if self._growing or not self._waiting or not room:
            return None
        self._growing = True
        slot = _Slot()
        self._pending.add(slot)
        return slot

    def _grow(self, slot):
        # The requester does not connect by itself: a connection that somebody returns in the
        # meantime serves it sooner, and a connect that hangs must not hold it up.
        try:
            threading.Thread(target=self._connect_while_needed, args=(slot,), daemon=True).start()
        except RuntimeError:  # no more threads
            self._connect_while_needed(slot)

    def _connect_while_needed(self, slot):
        pause = 0.05
        while slot:
            try:
                self._open(slot)
                self._settle(slot)
                pause = 0.05
            except Exception as error:
                self._connect_error = error
                # The slot is free already. Leave the server alone for a while.
                sleep(pause * uniform(0.5, 1.0))
                pause = min(2 * pause, 2.0)
            with self._lock:
                self._growing = False
                slot = self._reserve()

    def _open(self, slot):
        """Connect, for a slot that is pending; if that fails, free the slot."""
        slot.number = next(self._numbers)
        if self.on_event:
            self._tell("opening", slot.number)
        try:
            slot.fill(self._driver.connect(), self.max_lifetime)
            if self._configure:
                self._configure(slot.conn)
                if not slot.session.clean(None):
                    raise PoolError(f"pool {self.name!r}: configure broke its connection")
        except BaseException:
            if self.on_event:
                self._tell("failed", slot.number)
            self._close(slot)
            raise
        self._connect_error = None
        if self.on_event:
            self._tell("opened", slot.number)

    def _fill(self):
        """Open connections, in the caller's thread, until there are `min_size`."""
        while True:
            with self._lock:
                if self._closed or self._size() >= self.min_size:
                    return
                slot = _Slot()
                self._pending.add(slot)
            self._open(slot)
            self._settle(slot)

    # -- returning -------------------------------------------------------------------------------

    def _give_back(self, slot, loan, close=False):
        spotless = not close and self._reset in ("rollback", None) and slot.session.spotless()
        if self.on_event:
            self._tell("return", slot.number)
        with self._lock:
            # Of two threads that return the same checkout, one finds it gone.
            if slot.loan != loan or self._in_use.pop(id(slot.conn), None) is None:
                raise PoolError(self._not_lent(slot.conn))
            slot.loan += 1
            placed = spotless and self._place(slot)
            if not placed:
                self._pending.add(slot)
            oldest = self._pop_oldest()
            self._came_back.set()
        if not placed:
            usable = False
            try:
                usable = not close and (spotless or slot.session.clean(self._reset))
            finally:
                self._settle(slot, usable)
        if oldest:
            self._close(oldest)

    def _take_back(self, slot, usable=True):
        """Undo a checkout that came to nothing: nobody has used the connection."""
        with self._lock:
            self._in_use.pop(id(slot.conn), None)
            slot.loan += 1
            self._pending.add(slot)
        self._settle(slot, usable)

    def _settle(self, slot, usable=True):
        """End a slot's time as pending: hand it over, keep it idle, or close it."""
        with self._lock:
            self._pending.discard(slot)
            placed = usable and self._place(slot)
            if not placed:
                self._pending.add(slot)
        if not placed:
            self._close(slot)

    def _place(self, slot):
        # Under the lock. Hand the slot to the first who waits, or keep it idle. False: the pool
        # does not want it any more, and the caller must close it.
        now = slot.idle_since = monotonic()
        if self._closed or now >= slot.expires or slot.opened < self._drained:
            return False
        if len(self._idle) + len(self._in_use) >= self.max_size:  # after a resize()
            return False
        if self._waiting:
            waiter = self._waiting.popleft()
            slot.thread = waiter.thread
            self._in_use[id(slot.conn)] = slot
            waiter.wake(slot)
        else:
            self._idle.append(slot)
        return True

    def _pop_oldest(self):
        # Under the lock. The bottom of the stack is what has been idle for longest. The slot that
        # is returned is pending, and the caller must close it.
        if not self._idle:
            return None
        oldest, now = self._idle[0], monotonic()
        surplus = self._size() > self.min_size and now - oldest.idle_since >= self.max_idle
        if not surplus and now < oldest.expires:
            return None
        self._pending.add(oldest)
        return self._idle.pop(0)

    # -- closing ---------------------------------------------------------------------------------

    def _close(self, slot):
        """Close the connection of a slot that is pending, then free the slot."""
        try:
            if slot.session:
                slot.session.close()
        except Exception:
            pass  # it was broken: closing is all that was left to do with it
        finally:
            if self.on_event and slot.session:
                self._tell("closed", slot.number)
            with self._lock:
                self._pending.discard(slot)
                opening = self._reserve()
                self._came_back.set()
            if opening:
                self._grow(opening)

    def close(self, timeout: float = 5.0) -> list[Holder]:
        """Lend nothing any more, close what is idle, and wait for what is checked out.

        Those who wait for a connection get PoolClosed. Waits at most `timeout` seconds for other
        threads to return theirs, and returns the holders that have not: the connection of each is
        closed when it comes back, never under its client. Closing twice is fine.
        """
        deadline = monotonic() + seconds("timeout", timeout)
        with self._lock:
            self._closed = True
            waiting, idle = list(self._waiting), self._idle[:]
            self._waiting.clear()
            self._idle.clear()
            self._pending.update(idle)
        for waiter in waiting:
            waiter.wake(None)
        for slot in idle:
            self._close(slot)
        while True:
            self._came_back.clear()
            with self._lock:
                # Whoever closes the pool cannot return its own checkouts while it waits here.
                others = any(s.thread is not current_thread() for s in self._in_use.values())
                busy = others or self._pending
            if not busy or not self._came_back.wait(max(0.0, deadline - monotonic())):
                return self.holders()

    closeall = close  # psycopg2's name for it

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.close()

    # -- running it ------------------------------------------------------------------------------

    def resize(self, min_size: int, max_size: int):
        """Change the limits of the running pool.

        Opens connections up to the new `min_size`. Idle ones above `max_size` are closed now,
        those in use when they are returned.
        """
        min_size, max_size = sizes(min_size, max_size)
        with self._lock:
            self.min_size, self.max_size = min_size, max_size
            surplus = self._idle[: max(0, self._size() - max_size)]
            del self._idle[: len(surplus)]
            self._pending.update(surplus)
            opening = self._reserve()
        for slot in surplus:
            self._close(slot)
        if opening:
            self._grow(opening)
        self._fill()

    def drain(self):
        """Replace every connection: close what is idle now, and what is in use on its return."""
        with self._lock:
            self._drained = monotonic()
            idle = self._idle[:]
            self._idle.clear()
            self._pending.update(idle)
        for slot in idle:
            self._close(slot)
        self._fill()

    def check(self):
        """Ask the server about each idle connection, close what is dead or expired, and open
        connections up to `min_size` again."""
        for _ in range(len(self._idle)):
            with self._lock:
                if not self._idle:
                    break
                slot = self._idle.pop(0)
                self._pending.add(slot)
            usable = False
            try:
                usable = slot.session.alive() and slot.session.ping()
            finally:
                self._settle(slot, usable)
        self._fill()

    # -- words -----------------------------------------------------------------------------------

    def _size(self):
        return len(self._idle) + len(self._in_use) + len(self._pending)

    def _count(self):
        places = self._in_use, self._idle, self._pending, self._waiting
        return PoolStats(self.max_size, *map(len, places))

    def _too_late(self, timeout):
        # Under the lock.
        now = monotonic()
        held = sorted(self._in_use.values(), key=lambda slot: slot.since)
        names = [
            str(Holder(now - s.since, describe(s.code, s.line), s.thread.name, None))
            for s in held[:5]
        ]
        if len(held) > 5:
            names.append(f"{len(held) - 5} more")
        held_by = "; held by: " + ", ".join(names) if names else ""
        if timeout is None:
            what = "deadlock: whoever holds a connection waits here for another one"
            hint = "check out once, and hand the connection on"
        else:
            what = f"no connection within {timeout:.2f} s"
            hint = "return every connection, sooner, or raise max_size"
        if self._connect_error is not None:
            hint = "the server did not let us in, see the cause above"
        return f"pool {self.name!r}: {what} ({self._count()}){held_by}; {hint}"

    def _not_lent(self, conn):
        if conn is None:
            return f"can't return None to pool {self.name!r}: putconn takes a connection"
        known = any(slot.conn is conn for slot in list(self._idle))
        why = "it was returned already" if known else "it is not checked out from this pool"
        return f"can't return {_short(conn)} to pool {self.name!r}: {why}"

    def _tell(self, kind, number=None, where=None):
        try:
            self.on_event(self.name, kind, number, where)
        except Exception as error:  # an observer must never cost a connection
            self.on_event = None
            warnings.warn(
                f"on_event of pool {self.name!r} raised {error!r}: it is called no more",
                RuntimeWarning,
                stacklevel=3,
            )


class _Slot:
    """Room for one connection, and what the pool knows about the one in it."""

    def __init__(self):
        self.session = self.conn = self.number = None
        self.loan = 0  # which checkout this is: an older one cannot be returned again
        self.since, self.code, self.line, self.in_with = 0.0, None, 0, False
        self.thread = current_thread()

    def fill(self, session, max_lifetime):
        self.session, self.conn = session, session.conn
        self.opened = self.idle_since = monotonic()
        # Connections that were opened together must not all expire in the same moment.
        self.expires = self.opened + max_lifetime * uniform(0.95, 1.0)

    def lend_to(self, frame, in_with):
        self.since = monotonic()
        self.thread = current_thread()
        self.code, self.line = frame.f_code, frame.f_lineno
        self.in_with = in_with


class _Waiter:
    """A request in the queue. It sleeps on a lock that nobody else has: whoever hands it a slot
    unlocks it. An Event would do the same, at thirty times the price."""

    def __init__(self):
        self.thread = current_thread()
        self.slot = None
        self._bed = threading.Lock()
        self._bed.acquire()

    def sleep(self, seconds):
        self._bed.acquire(timeout=min(max(0.0, seconds), TIMEOUT_MAX))

    def wake(self, slot):
        self.slot = slot
        self._bed.release()


class _Lending:
    """What `with pool.connection()` runs: one checkout, one end of transaction, one return."""

    __slots__ = ("_pool", "_timeout", "_slot", "_loan")

    def __init__(self, pool, timeout):
        self._pool, self._timeout = pool, timeout

    def __enter__(self):
        self._slot = self._pool._checkout(self._timeout, sys._getframe(1), in_with=True)
        self._loan = self._slot.loan
        return self._slot.conn

    def __exit__(self, exc_type, exc, traceback):
        pool, slot, loan = self._pool, self._slot, self._loan
        if slot.loan != loan:  # returned inside the block: it may be another client's by now
            if exc_type is None:
                raise PoolError(pool._not_lent(slot.conn))
            return
        try:
            if exc_type is None:
                slot.session.commit()
        finally:
            pool._give_back(slot, loan)


_names = count(1)
_pools = WeakSet()
_NO_KEYS = "; poolkit's getconn takes a timeout where psycopg2's takes a key"


def live_pools() -> list:
    """List the pools of this process that are not closed."""
    return [pool for pool in _pools if not pool.closed]


def _forget_parents_connections():
    # In a forked child: the sockets are shared with the parent, so a word on one of them, even a
    # good-bye, would end the parent's session. Each pool starts again, with none.
    for pool in _pools:
        inherited = [*pool._idle, *pool._in_use.values()]
        for slot in inherited:
            slot.loan += 1
        closed = pool._closed
        pool._start_empty()
        pool._closed, pool._inherited = closed, inherited


if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
    os.register_at_fork(after_in_child=_forget_parents_connections)


def _short(conn):
    return f"<{type(conn).__module__}.{type(conn).__name__} at {id(conn):#x}>"
