"""What happened to a pool, and when.

A pool tells each thing that happens to its `on_event`. A `Recorder` is something to put there: it
keeps small frozen records, cheaply and from any thread, and draws nothing. Plots and tables are
made of the records afterwards.

    record = Recorder()
    pool = ConnectionPool(dsn, on_event=record)     # or, for any pool: record.watch(pool)
    …
    checkouts(record.events)                        # who held which connection, from when to when
"""

import sys
from itertools import count
from threading import Lock, current_thread
from time import monotonic
from typing import NamedTuple
from weakref import WeakKeyDictionary

from .where import describe


class Event(NamedTuple):
    """One thing that happened. Its `kind` is one of

    opening, opened, failed    a connect begins, succeeds, fails
    waiting                    a request found nothing and joined the queue
    checkout, return           a connection is lent, and comes back
    timeout, refused           a request gave up waiting; a pool that cannot wait said no
    closed                     a connection was closed
    """

    at: float  # seconds, on the clock of time.monotonic()
    kind: str
    pool: str  # the pool's name
    client: str  # the name of the thread it happened in
    conn: int | None  # which connection of that pool: 1, 2, 3 … in the order of opening
    where: str | None  # the line of code that asked, for "waiting", "checkout" and "refused"


class Checkout(NamedTuple):
    """One connection in one client's hands."""

    pool: str
    conn: int
    client: str
    where: str | None
    start: float  # seconds, time.monotonic()
    end: float | None  # None: it never came back


class Wait(NamedTuple):
    """One request's time in the queue."""

    pool: str
    client: str
    start: float  # seconds, time.monotonic()
    end: float | None  # None: it waits still
    outcome: str  # "checkout", "timeout" or "waiting"


class Recorder:
    """Keeps the events of every pool that it is given to, in the order in which they happened."""

    def __init__(self):
        self.events: list[Event] = []

    def __call__(self, pool: str, kind: str, conn: int | None = None, where: str | None = None):
        # list.append is atomic, so threads need no lock here.
        self.events.append(Event(monotonic(), kind, pool, current_thread().name, conn, where))

    def __repr__(self):
        return f"<Recorder: {len(self.events)} events>"

    def clear(self):
        """Forget everything recorded so far."""
        self.events.clear()

    def watch(self, pool, name: str | None = None):
        """Listen to `pool` from now on, and return it.

        One of psycopg2's own pools has no `on_event`: its methods are wrapped instead. Connections
        that it has open already are recorded as opened now.
        """
        if hasattr(pool, "on_event"):
            pool.on_event = self
        else:
            _wrap_psycopg2_pool(pool, self, name or type(pool).__name__)
        return pool

    def unwatch(self, pool):
        """Stop listening to `pool`."""
        if hasattr(pool, "on_event"):
            pool.on_event = None
        else:
            getattr(pool.getconn, "restore", lambda: None)()


def checkouts(events, until: float | None = None) -> list[Checkout]:
    """Pair each checkout with its return.

    What is out at the end has `end=None`; events after `until` (seconds, time.monotonic()) are
    ignored. A connection that is closed while checked out ends there.
    """
    open_now, done = {}, []
    for event in _up_to(events, until):
        key = event.pool, event.conn
        if event.kind == "checkout":
            open_now[key] = event
        elif event.kind in ("return", "closed") and key in open_now:
            out = open_now.pop(key)
            done.append(Checkout(*key, out.client, out.where, out.at, event.at))
    done += [Checkout(*key, out.client, out.where, out.at, None) for key, out in open_now.items()]
    return sorted(done, key=lambda checkout: checkout.start)


def waits(events, until: float | None = None) -> list[Wait]:
    """Pair each entry into the queue with how it ended: "checkout", "timeout", or "waiting" still.

    A request that was refused at once has not waited and is not listed.
    """
    # A thread waits in one place at a time, so its name and the pool's say which wait ended.
    queue, done = {}, []
    for event in _up_to(events, until):
        key = event.pool, event.client
        if event.kind == "waiting":
            queue.setdefault(key, event)  # it may have to wait again: what it got was dead
        elif event.kind in ("checkout", "timeout") and key in queue:
            done.append(Wait(*key, queue.pop(key).at, event.at, event.kind))
    done += [Wait(*key, event.at, None, "waiting") for key, event in queue.items()]
    return sorted(done, key=lambda wait: wait.start)


def _up_to(events, until):
    # Two threads may append in another order than their clocks say, by microseconds.
    return sorted(
        (event for event in events if until is None or event.at <= until), key=lambda e: e.at
    )


def _wrap_psycopg2_pool(pool, record, name):
    numbers, numbering, following = WeakKeyDictionary(), Lock(), count(1)
    getconn, putconn, closeall = pool.getconn, pool.putconn, pool.closeall
    before = dict(vars(pool))  # another recorder may listen already

    def restore():
        for method in ("getconn", "putconn", "closeall"):
            del vars(pool)[method]
            vars(pool).update({method: before[method]} if method in before else {})

    def number(conn):
        with numbering:
            new = conn not in numbers
            if new:
                numbers[conn] = next(following)
        if new:
            record(name, "opened", numbers[conn])
        return numbers[conn]

    def watched_getconn(key=None):
        frame = sys._getframe(1)
        where = describe(frame.f_code, frame.f_lineno)
        try:
            conn = getconn(key)
        except Exception:
            record(name, "refused", None, where)
            raise
        record(name, "checkout", number(conn), where)
        return conn

    def watched_putconn(conn=None, key=None, close=False):
        if conn in numbers:
            record(name, "return", numbers[conn])
        putconn(conn, key, close)
        if conn in numbers and conn.closed:
            record(name, "closed", numbers[conn])

    def watched_closeall():
        conns = [*pool._pool, *pool._used.values()]
        closeall()
        for conn in conns:
            record(name, "closed", number(conn))

    for conn in pool._pool:
        number(conn)
    watched_getconn.restore = restore
    pool.getconn, pool.putconn, pool.closeall = watched_getconn, watched_putconn, watched_closeall
