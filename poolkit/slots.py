"""What the pool moves about: slots with a connection in them, and the requests that wait for one.

A **client** is here what asked for a connection: a tuple of its thread, the code object and the
instruction in it that asked, and whether that was a `with` block. Each checkout makes a new one, so
it also says which checkout is meant.
"""

import threading
from random import uniform
from time import monotonic
from typing import NamedTuple

from .where import where


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
        "key",  # the connection's id: what the pool finds it by
        "number",  # 1, 2, 3 … in the order of opening
        "expires",  # these three: seconds, on the clock of time.monotonic()
        "idle_since",  # when it came back, or was opened
        "since",  # when it was lent
        "client",  # to whom, or who has it in hand since; None: it is idle, or new, or gone
    )

    def __init__(self, number, max_lifetime):
        self.number = number
        self.session = self.conn = self.key = self.client = None
        self.idle_since = monotonic()
        # Connections that were opened together must not all expire in the same moment.
        self.expires = self.idle_since + max_lifetime * uniform(0.95, 1.0)

    def fill(self, session):
        self.session, self.conn, self.key = session, session.conn, id(session.conn)
        self.idle_since = monotonic()


def list_holders(slots) -> list[Holder]:
    """List who has the connections in these slots, the longest first."""
    now = monotonic()
    held = [(slot.since, slot.client, slot.conn) for slot in list(slots)]
    return [
        Holder(now - since, where(client), client[0].name, conn)
        for since, client, conn in sorted(held, key=lambda one: one[0])
        if client  # else it was returned in this moment
    ]


class Waiter:
    """A request in the queue. It sleeps on a lock that nobody else has: whoever hands it a slot
    releases it. An Event would do the same, at thirty times the price."""

    __slots__ = ("client", "slot", "bed")

    def __init__(self, client):
        self.client = client
        self.slot = None
        self.bed = threading.Lock()
        self.bed.acquire()

    def sleep(self, seconds):
        self.bed.acquire(timeout=min(max(0.0, seconds), threading.TIMEOUT_MAX))
