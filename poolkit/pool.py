"""A connection pool that you can read in one sitting.

A connection is always in exactly one place:

    idle       open, and nobody is using it
    in use     checked out by a client
    pending    being opened, cleaned or closed: it holds a slot, but nobody can have it

Clients that find nothing idle are **waiting**, first come first served. One lock guards all of
that, but for one step: a return leaves *in use* without it. Nothing slow happens while it is held:
whatever talks to the server runs outside.
"""

import sys
from collections import deque
from itertools import count
from threading import TIMEOUT_MAX, Condition, Lock, current_thread
from time import monotonic
from weakref import WeakValueDictionary

from . import arguments, messages, registry
from .arguments import seconds, sizes, whole
from .lending import Lending
from .messages import tell
from .opening import fill, grow
from .slots import Holder, PoolStats, Waiter, list_holders

_names = count(1)
_NO_KEYS = "; there are no keys here: getconn takes a timeout where psycopg2's takes a key"


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
                        restores psycopg2's settings (autocommit and the like), "discard" ends all
                        that the session had (a round trip), a function is called with it, None
                        ends the transaction only
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
        self._driver = arguments.driver(driver, dsn, connect_kwargs, self.name)
        self._numbers = count(1)
        self.closed = False
        self._inherited = []  # in a forked child: the parent's slots, never to be touched
        self._start_empty()
        try:
            fill(self)
        except BaseException:
            self.close(timeout=0)
            raise
        registry.add(self)

    def _start_empty(self):
        self._lock = Lock()  # guards what follows; only a return leaves _in_use without it
        self._slots = set()  # all of them; what is neither idle nor in use is pending
        self._idle = []  # slots, the most recently used on the right
        self._in_use = {}  # id of a connection -> its slot
        self._waiting = deque()  # waiters, first come first served
        self._growing = False  # is a thread opening connections for those who wait?
        self._gone = Condition(self._lock)  # a slot was freed: wakes close()
        self._connect_error = None  # why the last connect failed, until one succeeds
        self._known = WeakValueDictionary()  # id -> connection, of all that it has opened

    def _start_again(self):
        # In a forked child: the threads that waited or connected exist in the parent only.
        for slot in self._slots:
            slot.client = None
        self._inherited += self._slots
        self._start_empty()

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
        self._give_back(slot, slot.client, close)

    def stats(self) -> PoolStats:
        """Count what is where, in one instant."""
        with self._lock:
            return self._count()

    def holders(self, older_than: float = 0.0) -> list[Holder]:
        """List who has had a connection for more than `older_than` seconds, the longest first."""
        with self._lock:
            held = list_holders(self._in_use.values())
        return [holder for holder in held if holder.age >= older_than]

    def __repr__(self):
        state = " closed," if self.closed else ""
        return f"<ConnectionPool {self.name!r}:{state} {self.stats()}>"

    # -- checking out ----------------------------------------------------------------------------

    def _checkout(self, timeout, frame, in_with=False):
        timeout = self.timeout if timeout is None else seconds("timeout", timeout, _NO_KEYS)
        client = current_thread(), frame.f_code, frame.f_lasti, in_with  # see slots.py
        now = monotonic()
        deadline = now + timeout
        slot = None
        try:
            with self._lock:
                if self._idle and not self.closed:
                    slot = self._idle[-1]  # not pop(): Ctrl-C would find it in neither place
                    self._lend(slot, client, now)
                    del self._idle[-1]
            while True:  # with a condition, Python 3.13 would jump back outside of this `try`
                if slot and self._usable(slot, deadline):
                    break
                slot = self._wait(client, timeout, deadline, dead=slot)
            if self.on_event:
                tell(self, "checkout", slot.number, client)
            return slot
        except BaseException:  # Ctrl-C, too, must not cost the pool a slot
            self._take_back(slot, client, usable=False)
            raise

    def _usable(self, slot, deadline):
        if slot.since >= slot.expires or not slot.session.alive():
            return False
        if slot.since - slot.idle_since < self.check_idle:
            return True
        # A dead line can take many seconds to say so. In overtime none is asked, or lent unasked.
        return slot.since <= deadline and slot.session.ping()

    def _wait(self, client, timeout, deadline, dead):
        """Stand in line, and return the slot that is handed over: it is in use already.

        `dead` is what this client got when it was its turn: a slot whose connection died, or grew
        old, while nobody used it. So it is its turn still.
        """
        waiter, queued = Waiter(client), False
        try:
            self._join(waiter, timeout, dead)
            if waiter.slot is None:
                queued = True
                tell(self, "waiting", None, client)
                grow(self)
                waiter.sleep(deadline - monotonic())
            with self._lock:
                # It can be handed over in the very moment in which the time runs out: look again.
                if waiter.slot is None:
                    self._leave(waiter)
                    raise messages.closed(self) if self.closed else messages.too_late(self, timeout)
            return waiter.slot
        except BaseException:
            with self._lock:
                self._leave(waiter)
            self._take_back(waiter.slot, client, usable=True)
            tell(self, "timeout" if queued else "refused", None, client)
            raise

    def _join(self, waiter, timeout, dead):
        """Get a slot at once, or a place in the line, or a refusal."""
        try:
            with self._lock:
                if dead and dead.client is waiter.client:  # else somebody returned it under us
                    self._in_use.pop(dead.key, None)
                if self.closed:
                    raise messages.closed(self)
                if self._idle:  # somebody returned one since we looked
                    waiter.slot = self._idle[-1]
                    self._lend(waiter.slot, waiter.client, monotonic())
                    del self._idle[-1]
                elif not timeout:
                    raise messages.too_late(self, timeout)
                elif self.max_waiting and len(self._waiting) >= self.max_waiting and not dead:
                    raise messages.too_many(self)
                else:
                    (self._waiting.appendleft if dead else self._waiting.append)(waiter)
                    if self._hopeless():
                        raise messages.deadlock(self)
        finally:
            self._take_back(dead, waiter.client, usable=False)  # makes room for the first

    def _leave(self, waiter):
        # Under the lock.
        if waiter in self._waiting:
            self._waiting.remove(waiter)

    def _hopeless(self):
        # Under the lock. Only what is held in a `with` block counts: a thread that is inside one
        # and waits cannot come to its end. A bare getconn may be returned by anybody.
        clients = [slot.client for slot in list(self._in_use.values())]  # returns go on
        if not self._detect_deadlock or len(clients) < self.max_size:
            return False
        asleep = {waiter.client[0] for waiter in self._waiting}
        return all(in_with and thread in asleep for thread, _, _, in_with in clients)

    def _lend(self, slot, client, now):
        # Under the lock.
        slot.since, slot.client = now, client
        self._in_use[slot.key] = slot

    # -- returning -------------------------------------------------------------------------------

    def _give_back(self, slot, client, close=False):
        try:
            if slot.client is not client:
                raise KeyError
            # No lock, since this is one step: of two threads that return it, one finds it gone.
            del self._in_use[slot.key]
        except KeyError:
            raise self._not_lent(slot.conn) from None
        slot.client = client = (*client,)  # a copy, as a new token: the slot is still ours
        try:
            if self.on_event:
                tell(self, "return", slot.number)
            slot.idle_since = monotonic()
            usable = not close and slot.session.clean(self._reset)
            self._settle(slot, usable)
        except BaseException:
            self._take_back(slot, client, usable=False)
            raise

    def _take_back(self, slot, client, usable):
        """Undo a checkout that came to nothing, or complete a return that was interrupted."""
        if slot and slot.client is client:  # else it is done already
            self._in_use.pop(slot.key, None)
            self._settle(slot, usable)

    def _settle(self, slot, usable):
        """End a slot's time as pending: hand it to the first who waits, or keep it idle, or close
        it if the pool does not want it any more."""
        with self._lock:
            idle, came_back = self._idle, slot.idle_since
            wanted = (
                usable
                and came_back < slot.expires
                and len(self._slots) <= self.max_size  # unless it was resized
                and not self.closed
            )
            if wanted and self._waiting:
                waiter = self._waiting[0]
                self._lend(slot, waiter.client, monotonic())
                waiter.slot = slot
                del self._waiting[0]
                waiter.bed.release()
            elif wanted:
                slot.client = None
                idle.append(slot)
            stale = idle and self._stale(idle[0], came_back)
        if not wanted:
            self._close(slot)
        if stale:
            self._examine(self._stale)

    # -- opening and closing: see opening.py, too --------------------------------------------------

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
                slot.client = None
                self._slots.discard(slot)
                self._gone.notify_all()
            grow(self)

    def _close_idle(self, unwanted):
        """Close every idle slot that is unwanted(slot, now)."""
        while self._examine(unwanted):
            pass

    def _examine(self, chosen, healthy=lambda slot: False):
        """Take the lowest of the stack that is chosen(slot, now), and close it unless it is
        healthy(slot). Return it; None: there is none."""
        slot, token = None, object()
        try:
            with self._lock:
                now = monotonic()
                slot = next((slot for slot in self._idle if chosen(slot, now)), None)
                if slot:
                    slot.client = token
                    self._idle.remove(slot)
            if slot:
                self._settle(slot, healthy(slot))
            return slot
        except BaseException:
            self._take_back(slot, token, usable=False)
            raise

    def _stale(self, slot, now):
        # Under the lock.
        surplus = now - slot.idle_since >= self.max_idle and len(self._slots) > self.min_size
        return surplus or now >= slot.expires

    def close(self, timeout: float = 5.0) -> list[Holder]:
        """Lend nothing any more, close what is idle, and wait for what is checked out.

        Those who wait for a connection get PoolClosed. Waits at most `timeout` seconds for other
        threads to return theirs, and returns the holders that have not: the connection of each is
        closed when it comes back, never under its client. Closing twice is fine.
        """
        deadline = monotonic() + seconds("timeout", timeout)
        with self._lock:
            self.closed = True
            for waiter in self._waiting:
                waiter.bed.release()
            self._waiting.clear()
        self._close_idle(lambda slot, now: True)
        with self._lock:
            self._gone.wait_for(self._rest_is_mine, min(deadline - monotonic(), TIMEOUT_MAX))
            return list_holders(self._in_use.values())

    closeall = close  # psycopg2's name for it

    def _rest_is_mine(self):
        # Under the lock. Whoever closes the pool cannot return its own while it waits for that.
        in_use = list(self._in_use.values())
        return len(self._slots) == sum(slot.client[0] is current_thread() for slot in in_use)

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
        self._close_idle(lambda slot, now: len(self._slots) > self.max_size)
        grow(self)
        fill(self)

    def drain(self):
        """Replace every connection: close what is idle now, and what is in use on its return."""
        with self._lock:
            for slot in self._slots:
                slot.expires = slot.idle_since  # whenever it comes back, its time is over
        self._close_idle(lambda slot, now: now >= slot.expires)
        fill(self)

    def check(self):
        """Ask the server about each idle connection, close what is dead, expired or has been idle
        for too long, and open connections up to `min_size` again."""
        for slot in list(self._idle):
            self._examine(
                lambda one, now, this=slot: one is this,
                healthy=lambda slot: slot.session.alive() and slot.session.ping(),
            )
        self._close_idle(self._stale)
        fill(self)

    # -- words -----------------------------------------------------------------------------------

    def _count(self):
        # Under the lock.
        in_use, idle = len(self._in_use), len(self._idle)
        pending = len(self._slots) - in_use - idle
        return PoolStats(self.max_size, in_use, idle, pending, len(self._waiting))

    def _not_lent(self, conn):
        return messages.not_lent(self, conn, known=self._known.get(id(conn), self) is conn)
