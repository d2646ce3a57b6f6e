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
from collections import deque
from itertools import count
from random import uniform
from threading import TIMEOUT_MAX, current_thread
from time import monotonic, sleep
from weakref import WeakSet

from . import arguments, messages
from .arguments import seconds, sizes, whole
from .lending import Lending
from .messages import tell
from .slots import Holder, PoolStats, Slot, Waiter, holders


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
    configure           a function, called with each new connection; its work is committed
    detect_deadlock     raise PoolDeadlock at once when nobody could ever return one
    on_event            called with (pool name, kind, number, where): see recorder.py

    Any number of threads may use a pool, but no signal handler and no `__del__`: they can come
    while their own thread has the lock.
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
        arguments.not_psycopg2s(dsn, connect_kwargs)
        self.name = name or f"pool-{next(_names)}"
        self.min_size, self.max_size = sizes(min_size, max_size)
        self.timeout = seconds("timeout", timeout)
        self.max_waiting = whole("max_waiting", max_waiting, 0)
        self.max_lifetime = arguments.lifetime(max_lifetime)
        self.max_idle = seconds("max_idle", max_idle)
        self.check_idle = seconds("check_idle", check_idle)
        self.on_event = arguments.function("on_event", on_event)
        self._reset = arguments.reset(reset)
        self._configure = arguments.function("configure", configure)
        self._detect_deadlock = detect_deadlock
        if driver is None:
            from .drivers import Psycopg2 as driver_class

            driver = driver_class(dsn, **{"fallback_application_name": self.name} | connect_kwargs)
        elif dsn or connect_kwargs:
            raise TypeError("give either a driver, or a dsn and what else to connect with")
        self._driver = driver
        self._numbers = count(1)
        self._inherited = []  # in a forked child: the parent's slots, never to be touched
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
        self._gone = threading.Condition(self._lock)  # a connection was closed: wakes close()
        self._drained = -math.inf  # what was opened before this moment is closed on return
        self._connect_error = None  # why the last connect failed, until one succeeds
        self._known = WeakSet()  # every connection that this pool has opened

    # -- what everybody uses ---------------------------------------------------------------------

    def connection(self, timeout: float | None = None):
        """Lend a connection to a `with` block, and take it back when the block ends.

        The block's transaction is committed at its end, or rolled back if an exception leaves it.
        Raises what `getconn` raises; and PoolError at the end of a block that swallowed an SQL
        error, because then nothing was committed.
        """
        return Lending(self, timeout)

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
            raise self._not_lent(conn)
        if close and close is not True:
            raise TypeError(f"close must be True or False, got {close!r}{_NO_KEYS}")
        self._give_back(slot, slot.loan, close)

    def stats(self) -> PoolStats:
        """Count what is where, in one instant."""
        with self._lock:
            return self._count()

    def holders(self, older_than: float = 0.0) -> list[Holder]:
        """List who has had a connection for more than `older_than` seconds, the longest first."""
        with self._lock:
            return [holder for holder in self._holders() if holder.age >= older_than]

    def __repr__(self):
        state = " closed," if self._closed else ""
        return f"<ConnectionPool {self.name!r}:{state} {self.stats()}>"

    @property
    def closed(self) -> bool:
        return self._closed

    # -- checking out ----------------------------------------------------------------------------

    def _checkout(self, timeout, frame, in_with=False):
        timeout = self.timeout if timeout is None else seconds("timeout", timeout, _NO_KEYS)
        client = current_thread(), frame.f_code, frame.f_lineno, in_with
        now = monotonic()
        deadline = now + timeout
        slot = None
        try:
            with self._lock:
                if self._idle and not self._closed:
                    slot = self._idle.pop()
                    self._lend(slot, client, now)
            may_ask = True
            while slot is None or not self._usable(slot, may_ask):
                slot = self._wait(client, timeout, deadline, dead=slot)
                # A dead line can take many seconds to say so. Ask no other one in overtime.
                may_ask = monotonic() < deadline
            if self.on_event:
                tell(self, "checkout", slot.number, client)
            return slot
        except BaseException:  # Ctrl-C, too, must not cost the pool a slot
            if slot is not None:
                self._take_back(slot, usable=False)
            raise

    def _usable(self, slot, may_ask):
        if slot.since >= slot.expires or not slot.session.alive():
            return False
        return slot.since - slot.idle_since < self.check_idle or may_ask and slot.session.ping()

    def _wait(self, client, timeout, deadline, dead):
        """Queue up, and return the slot that is handed over: it is in use already.

        `dead` is what this client got when it was its turn: a slot whose connection died, or grew
        old, while nobody used it. So it is its turn still.
        """
        waiter, told = Waiter(client), False
        try:
            try:
                if dead:
                    self._end_loan(dead, dead.loan)
                with self._lock:
                    self._queue(waiter, timeout, first_in_line=dead)
            finally:
                if dead:
                    self._settle(dead, usable=False)  # makes room, for the first in line
            if self.on_event and waiter.slot is None:
                told = True
                tell(self, "waiting", None, client)
            self._grow()
            waiter.sleep(deadline - monotonic())
            with self._lock:
                # It can be handed over in the very moment in which the time runs out: look again.
                if waiter.slot is None:
                    self._leave(waiter)
                    raise messages.closed(self) if self._closed else self._too_late(timeout)
            return waiter.slot
        except BaseException:
            with self._lock:
                self._leave(waiter)
            if waiter.slot is not None:
                self._take_back(waiter.slot, usable=True)
            if self.on_event:
                tell(self, "timeout" if told else "refused", None, client)
            raise

    def _queue(self, waiter, timeout, first_in_line):
        # Under the lock.
        if self._closed:
            raise messages.closed(self)
        if self._idle:  # somebody returned one since we looked
            slot = self._idle.pop()
            self._lend(slot, waiter.client, monotonic())
            waiter.wake(slot)
        elif not timeout:
            raise self._too_late(timeout)
        elif self.max_waiting and len(self._waiting) >= self.max_waiting:
            raise messages.too_many(self)
        else:
            (self._waiting.appendleft if first_in_line else self._waiting.append)(waiter)
            if self._hopeless():
                raise messages.deadlock(self)

    def _leave(self, waiter):
        # Under the lock.
        if waiter in self._waiting:
            self._waiting.remove(waiter)

    def _hopeless(self):
        # Under the lock. Only what is held in a `with` block counts: a thread that is inside one
        # and waits cannot come to its end. A bare getconn may be returned by anybody.
        if not self._detect_deadlock or len(self._in_use) < self.max_size:
            return False
        asleep = {waiter.client[0] for waiter in self._waiting}
        clients = [slot.client for slot in self._in_use.values()]
        return all(in_with and thread in asleep for thread, _, _, in_with in clients)

    def _too_late(self, timeout):
        # Under the lock. That a connect failed is to blame only where there was room for one.
        room = len(self._in_use) < self.max_size
        return messages.too_late(self, timeout, cause=self._connect_error if room else None)

    def _lend(self, slot, client, now):
        # Under the lock.
        slot.since, slot.client = now, client
        self._in_use[id(slot.conn)] = slot

    # -- growing ---------------------------------------------------------------------------------

    def _grow(self):
        """Start a thread that connects, if that would help somebody and none is at it.

        The requester does not connect by itself: a connection that is returned in the meantime
        serves it sooner, and a connect that hangs must not hold it up.
        """
        start = False
        try:
            with self._lock:
                start = self._wanted() and not self._growing
                self._growing = self._growing or start
            if start:
                threading.Thread(target=self._connect_while_wanted, daemon=True).start()
        except RuntimeError:  # no more threads: connect here, and do not insist
            try:
                self._connect_while_wanted(patient=False)
            except Exception:
                pass  # known as _connect_error
            finally:
                self._growing = False
        except BaseException:
            if start:
                self._growing = False
            raise

    def _wanted(self):
        # Under the lock.
        return bool(self._waiting) and not self._closed and self._size() < self.max_size

    def _connect_while_wanted(self, patient=True):
        pause = 0.05
        while slot := self._reserve():
            try:
                self._open(slot)
                pause = 0.05
            except BaseException as error:
                self._connect_error = error
                if not patient:
                    raise
                # The slot is free already. Leave the server alone for a while.
                sleep(pause * uniform(0.5, 1.0))
                pause = min(2 * pause, 2.0)

    def _reserve(self):
        with self._lock:
            self._growing = self._wanted()
            return self._new_slot() if self._growing else None

    def _new_slot(self):
        # Under the lock.
        slot = Slot(next(self._numbers))
        self._pending.add(slot)
        return slot

    def _fill(self):
        """Open connections, in the caller's thread, until there are `min_size`."""
        for _ in range(self.min_size):
            with self._lock:
                if self._closed or self._size() >= self.min_size:
                    return
                slot = self._new_slot()
            self._open(slot)

    def _open(self, slot):
        """Connect, for a slot that is pending, and settle it; if that fails, free it."""
        usable = False
        try:
            tell(self, "opening", slot.number)
            slot.fill(self._driver.connect(), self.max_lifetime)
            self._known.add(slot.conn)
            if self._configure:
                self._configure(slot.conn)
                slot.session.commit()
                slot.session.remember()
            self._connect_error = None
            tell(self, "opened", slot.number)
            usable = True
        except BaseException:
            tell(self, "failed", slot.number)
            raise
        finally:
            self._settle(slot, usable)

    # -- returning -------------------------------------------------------------------------------

    def _give_back(self, slot, loan, close=False):
        if not self._end_loan(slot, loan):
            raise self._not_lent(slot.conn)
        usable = False
        try:
            if self.on_event:
                tell(self, "return", slot.number)
            slot.idle_since = monotonic()
            usable = not close and slot.session.clean(self._reset)
        finally:
            self._settle(slot, usable)

    def _take_back(self, slot, usable):
        """Undo a checkout that came to nothing. If it is undone already, do nothing."""
        if self._end_loan(slot, slot.loan):
            self._settle(slot, usable)

    def _end_loan(self, slot, loan):
        """Make a slot in use pending. False: that loan has ended already."""
        with self._lock:
            # Of two threads that return the same checkout, one finds it gone.
            if slot.loan != loan or self._in_use.pop(id(slot.conn), None) is None:
                return False
            slot.loan += 1
            self._pending.add(slot)
            return True

    def _settle(self, slot, usable):
        """End a slot's time as pending: hand it to the first who waits, or keep it idle, or close
        it if the pool does not want it any more."""
        with self._lock:
            now, idle = monotonic(), self._idle
            wanted = (
                usable
                and now < slot.expires
                and slot.opened >= self._drained
                and len(idle) + len(self._in_use) < self.max_size  # unless it was resized
                and not self._closed
            )
            if wanted:
                self._pending.remove(slot)
                if self._waiting:
                    waiter = self._waiting.popleft()
                    self._lend(slot, waiter.client, now)
                    waiter.wake(slot)
                else:
                    idle.append(slot)
            stale = idle and self._stale(idle[0], now)
        if not wanted:
            self._close(slot)
        if stale:
            self._close_idle(self._stale)

    # -- closing ---------------------------------------------------------------------------------

    def _close(self, slot):
        """Close the connection of a slot that is pending, then free the slot."""
        try:
            if slot.session:
                try:
                    slot.session.close()
                finally:
                    tell(self, "closed", slot.number)
        except Exception:
            pass  # it was broken: closing is all that was left to do with it
        finally:
            with self._lock:
                self._pending.discard(slot)
                self._gone.notify_all()
            self._grow()

    def _close_idle(self, unwanted):
        """Close the lowest of the stack that is unwanted(slot, now). False: there is none."""
        with self._lock:
            now = monotonic()
            slot = next((slot for slot in self._idle if unwanted(slot, now)), None)
            if slot is None:
                return False
            self._idle.remove(slot)
            self._pending.add(slot)
        self._close(slot)
        return True

    def _stale(self, slot, now):
        # Under the lock.
        surplus = now - slot.idle_since >= self.max_idle and self._size() > self.min_size
        return surplus or now >= slot.expires

    def close(self, timeout: float = 5.0) -> list[Holder]:
        """Lend nothing any more, close what is idle, and wait for what is checked out.

        Those who wait for a connection get PoolClosed. Waits at most `timeout` seconds for other
        threads to return theirs, and returns the holders that have not: the connection of each is
        closed when it comes back, never under its client. Closing twice is fine.
        """
        deadline = monotonic() + seconds("timeout", timeout)
        with self._lock:
            self._closed = True
            while self._waiting:
                self._waiting.popleft().wake(None)
        while self._close_idle(lambda slot, now: True):
            pass
        me = current_thread()  # whoever closes the pool cannot return its own while it waits here
        with self._lock:
            self._gone.wait_for(
                lambda: not self._pending and all(s.client[0] is me for s in self._in_use.values()),
                timeout=min(deadline - monotonic(), TIMEOUT_MAX),
            )
            return self._holders()

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
        with self._lock:
            self.min_size, self.max_size = sizes(min_size, max_size)
        while self._close_idle(lambda *_: len(self._idle) + len(self._in_use) > self.max_size):
            pass
        self._grow()
        self._fill()

    def drain(self):
        """Replace every connection: close what is idle now, and what is in use on its return."""
        self._drained = monotonic()
        while self._close_idle(lambda slot, now: slot.opened < self._drained):
            pass
        self._fill()

    def check(self):
        """Ask the server about each idle connection, close what is dead, expired or has been idle
        for too long, and open connections up to `min_size` again."""
        for slot in list(self._idle):
            usable = False
            with self._lock:
                if slot not in self._idle:
                    continue
                self._idle.remove(slot)
                self._pending.add(slot)
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

    def _holders(self):
        return holders(self._in_use.values())

    def _not_lent(self, conn):
        return messages.not_lent(self, conn, known=conn in self._known)


_names = count(1)
_pools = WeakSet()
_NO_KEYS = "; there are no keys here: getconn takes a timeout where psycopg2's takes a key"


def live_pools() -> list:
    """List the pools of this process that are not closed."""
    return [pool for pool in _pools if not pool.closed]


def _forget_parents_connections():
    # In a forked child: the sockets are shared with the parent, so a word on one of them, even a
    # good-bye, would end the parent's session. Each pool starts again, with none.
    for pool in _pools:
        closed, slots = pool._closed, {*pool._idle, *pool._in_use.values(), *pool._pending}
        for slot in slots:
            slot.loan += 1
        pool._inherited += slots
        pool._start_empty()
        pool._closed = closed


if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
    os.register_at_fork(after_in_child=_forget_parents_connections)
