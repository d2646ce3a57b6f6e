"""What the pool moves about: slots with a connection in them, and the requests that wait for one.

A **client** is here what asked for a connection: a tuple of its thread, the code object and line
that asked, and whether that was a `with` block.
"""

import threading
from random import uniform
from time import monotonic
from typing import NamedTuple

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

    def __repr__(self):
        return f"<Holder: {self}>"


class Slot:
    """Room for one connection, and what the pool knows about the one in it."""

    __slots__ = (
        "session",  # what the driver knows of the connection; None until it is open
        "conn",
        "number",  # 1, 2, 3 … in the order of opening
        "opened",  # these four: seconds, on the clock of time.monotonic()
        "expires",
        "idle_since",
        "since",  # when it was lent
        "client",  # to whom
        "loan",  # which checkout this is: an older one cannot be returned again
    )

    def __init__(self, number):
        self.number = number
        self.session = self.conn = self.client = None
        self.opened = monotonic()
        self.loan = 0

    def fill(self, session, max_lifetime):
        self.session, self.conn = session, session.conn
        self.idle_since = monotonic()
        # Connections that were opened together must not all expire in the same moment.
        self.expires = self.opened + max_lifetime * uniform(0.95, 1.0)

    def holder(self, now) -> Holder:
        thread, code, line, _ = self.client
        return Holder(now - self.since, describe(code, line), thread.name, self.conn)


def holders(slots) -> list[Holder]:
    """List who has the connections in these slots, the longest first."""
    now = monotonic()
    return [slot.holder(now) for slot in sorted(slots, key=lambda slot: slot.since)]


class Waiter:
    """A request in the queue. It sleeps on a lock that nobody else has: whoever hands it a slot
    unlocks it. An Event would do the same, at thirty times the price."""

    __slots__ = ("client", "slot", "_bed")

    def __init__(self, client):
        self.client = client
        self.slot = None
        self._bed = threading.Lock()
        self._bed.acquire()

    def sleep(self, seconds):
        self._bed.acquire(timeout=min(max(0.0, seconds), threading.TIMEOUT_MAX))

    def wake(self, slot):
        self.slot = slot
        self._bed.release()
