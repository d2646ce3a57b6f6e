"""A database that is not there: it connects at once, does what a test tells it to, and remembers.

    fake = FakeDriver()
    pool = fake.pool(max_size=2)                  # a ConnectionPool on it, with no min_size
    fake.fail("ping", OSError("gone"))            # every ping raises, until fake.mend("ping")
    with fake.block("connect") as gate: …         # a connect waits for gate.open(), or for the end
    fake.calls                                    # [("connect", 1), ("alive", 1), …]

At every call it makes sure that the pool's lock can be had: no I/O is ever done under the lock.
"""

import threading
from collections import Counter
from contextlib import contextmanager
from time import monotonic, sleep

from poolkit import ConnectionPool


def until(condition, timeout=5.0):
    """Wait for a state: until `condition()` is true, and return that. Raises AssertionError after
    `timeout` seconds."""
    deadline = monotonic() + timeout
    while not (value := condition()):
        assert monotonic() < deadline, "it did not come to that"
        sleep(0.0005)
    return value


class Client(threading.Thread):
    """A thread that calls `task(*args)` at once; `result()` waits for it and returns, or raises,
    what the task did."""

    def __init__(self, task, *args):
        super().__init__(daemon=True)
        self._task, self._args = task, args
        self._value = self._error = None
        self.start()

    def run(self):
        try:
            self._value = self._task(*self._args)
        except BaseException as error:
            self._error = error

    def result(self, timeout=5.0):
        self.join(timeout)
        assert not self.is_alive(), "it is still at it"
        if self._error is not None:
            raise self._error
        return self._value


class Clock:
    """A clock that stands still until it is told to go on: clock.now += 60."""

    def __init__(self, monkeypatch, now=1000.0):
        self.now = now
        for module in ("pool", "slots"):
            monkeypatch.setattr(f"poolkit.{module}.monotonic", lambda: self.now)


class FakeDriver:
    def __init__(self):
        self.calls = []  # (what, number of the connection)
        self.connections = []  # every FakeConnection that was ever opened
        self.together = Counter()  # what -> how many at most were at it at the same time
        self.under_lock = []  # calls that the pool made while it held its lock
        self.watched = None  # the pool
        self._failing = {}
        self._gates = {}
        self._now = Counter()
        self._counting = threading.Lock()

    def pool(self, **arguments):
        return WatchedPool(
            driver=self, **{"min_size": 0, "name": "test", "timeout": 5.0} | arguments
        )

    @property
    def open(self):
        """The connections that are open now."""
        return [conn for conn in self.connections if not conn.closed]

    def count(self, what):
        return sum(call == what for call, _ in list(self.calls))

    def fail(self, what, error, times=None):
        """Let every call of that kind raise `error`, or the next few."""
        self._failing[what] = [error, times]

    def mend(self, what):
        self._failing.pop(what, None)

    @contextmanager
    def block(self, what):
        """Let calls of that kind wait until the gate is opened, or the block ends."""
        gate = self._gates[what] = Gate()
        try:
            yield gate
        finally:
            del self._gates[what]
            gate.open()

    def connect(self):
        conn = FakeConnection(len(self.connections) + 1)
        self.called("connect", conn.number)
        self.connections.append(conn)
        return FakeSession(self, conn)

    def called(self, what, number):
        if self.watched is not None:
            if self.watched._lock.acquire(timeout=2.0):
                self.watched._lock.release()
            else:
                self.under_lock.append(what)
        with self._counting:
            self.calls.append((what, number))
            self._now[what] += 1
            self.together[what] = max(self.together[what], self._now[what])
        try:
            if gate := self._gates.get(what):
                gate.enter()
            self._raise(what)
        finally:
            with self._counting:
                self._now[what] -= 1

    def _raise(self, what):
        error, times = self._failing.get(what, (None, None))
        if error is None:
            return
        if times == 1:
            self.mend(what)
        elif times:
            self._failing[what][1] -= 1
        raise error


class WatchedPool(ConnectionPool):
    """A pool that its fake driver knows from the very start."""

    def _start_empty(self):
        super()._start_empty()
        self._driver.watched = self


class FakeConnection:
    def __init__(self, number):
        self.number = number
        self.closed = False
        self.dead = False  # the server has closed it
        self.mute = False  # … without a word: only a ping finds out
        self.hopeless = False  # it cannot be cleaned

    def __repr__(self):
        return f"<connection {self.number}>"


class FakeSession:
    """What drivers.py asks of a session."""

    def __init__(self, driver, conn):
        self.driver, self.conn = driver, conn

    def alive(self):
        self.driver.called("alive", self.conn.number)
        return not (self.conn.dead or self.conn.closed)

    def ping(self):
        self.driver.called("ping", self.conn.number)
        return not (self.conn.dead or self.conn.mute or self.conn.closed)

    def commit(self):
        self.driver.called("commit", self.conn.number)

    def clean(self, reset="rollback"):
        self.driver.called("clean", self.conn.number)
        return not (self.conn.hopeless or self.conn.closed)

    def remember(self):
        self.driver.called("remember", self.conn.number)

    def close(self):
        self.driver.called("close", self.conn.number)
        self.conn.closed = True


class Gate:
    """Where blocked calls wait. `waiting` says how many do."""

    def __init__(self):
        self.waiting = 0
        self._opened = threading.Event()

    def enter(self):
        self.waiting += 1
        assert self._opened.wait(10.0), "nobody opened the gate"

    def open(self):
        self._opened.set()
