"""Clients that come and go on one pool, while somebody watches.

A `workload.run()` is fixed before it begins. Here the clients, the job and the pool's size may
change as it goes:

    live = Live(pool, job, clients=8)
    live.start(seconds=30)
    live.clients = 16              # eight more sit down
    live.samples[-1]               # how it goes
    live.stop(); live.close()

Nobody who asks for something waits for it. One thread, the conductor, does it all in turn: it seats
the clients, takes a sample ten times a second, and ends what was forgotten. Clients only record.
"""

import threading
from collections import deque
from itertools import count
from queue import Empty, Queue
from time import monotonic, sleep
from typing import NamedTuple

from .errors import PoolClosed, PoolError
from .pool import ConnectionPool, PoolStats
from .recorder import Recorder
from .workload import Request, Run

TICK = 0.1  # seconds from one sample to the next
LOOK = 0.25  # seconds from one look at the server's own count to the next
SETTLE = 0.4  # seconds after a change in which the server's own count is still looked at
ONE_IN = 5  # of so many requests one does not return its connection, while `leaking`


class Sample(NamedTuple):
    """How it goes, at one moment. "Lately" is the last second."""

    at: float  # seconds since the start
    stats: PoolStats
    leaked: int  # how many of those in use will not come back by themselves
    clients: int
    throughput: float  # requests served per second, lately
    wait_ms: float  # 99 % of those served lately had waited at most this long; nan: nobody was
    failed: int  # requests that got no connection, or whose job raised, since the start
    server: int | None  # how many connections the server counts, if it was asked and has answered


class Live:
    """An experiment on `pool` that may be changed as it runs.

    clients     how many threads do `job(conn)` over and over, each time on a connection of its own
    leaking     while true, one request in five keeps its connection; `reset()` gives those back
    timeout     seconds that a request waits for its connection
    seconds     how long it lasts, unless `start()` or `run()` say otherwise
    observe     a function that asks the server how many connections it has: called in a thread of
                its own, at most four times a second
    samples     the Samples since the start, ten a second; at rest the last one is kept up to date
    """

    def __init__(
        self, pool: ConnectionPool, job, *, clients=8, timeout=1.0, seconds=30.0, observe=None
    ):
        self.pool, self.job, self.observe = pool, job, observe
        self.clients, self.timeout, self.seconds = clients, timeout, seconds
        self.leaking = self.closed = False
        self._seats, self._threads = 0, {}  # client i goes on as long as i < seats
        self._numbers = count(1)  # of the requests
        self._finished = deque()  # Requests that nobody has counted yet
        self._leaked = deque()  # connections
        self._looker, self._next_look, self._server, self._blind = None, 0.0, None, ""
        self._wishes, self._working = Queue(), True
        self._kept = None  # every Request of a run(), and of nothing else
        self._clear()
        self._settled = self._started + SETTLE
        self._conductor = threading.Thread(
            target=self._conduct, name=f"{pool.name}-conductor", daemon=True
        )
        self._conductor.start()

    # -- what may be asked for: none of it waits, except run() and close() -----------------------

    def start(self, seconds: float | None = None):
        """Let the clients begin, with new samples. After `seconds` they stop by themselves."""
        self._wish(lambda: self._begin(seconds))

    def stop(self):
        """Let each client end its request, and rest."""
        self._wish(self._halt)

    def resize(self, max_size: int):
        """Change how many connections the pool may have."""
        self._wish(lambda: self.pool.resize(min(self.pool.min_size, max_size), max_size))

    def reset(self):
        """Return what was leaked, leak no more, and begin new samples. Whoever runs goes on."""
        self._wish(self._start_over)

    def close(self, timeout: float = 5.0):
        """Stop, return what was leaked, and close the pool. Waits at most `timeout` seconds for
        jobs that run; a connection still in use then is closed when its job ends."""
        if not self.closed:
            self.closed = True
            self._wishes.put(lambda: self._end(0.8 * timeout))
        self._conductor.join(timeout)
        self.pool.close(timeout=0)  # it is, unless something that hangs holds up the conductor

    def run(self, seconds: float = 1.0, each_tick=lambda: None) -> Run:
        """Start, wait until it is over, and return all that was recorded, as `workload.run` does.

        `each_tick()` is called now and then, in the thread that waits. Raises PoolClosed.
        """
        if self.closed or self.pool.closed:
            raise PoolClosed(f"pool {self.pool.name!r} is closed; make a new one")
        if self.running or self._seated():
            self.stop()
            self._rest(each_tick)
        record, self._kept = Recorder(), []
        record.watch(self.pool)
        try:
            self.start(seconds)
            self._rest(each_tick)
        finally:
            self.stop()
            record.unwatch(self.pool)
            made, self._kept = sorted(self._kept, key=lambda request: request.start), None
        clients = max(sample.clients for sample in self.samples)
        ended = max((request.end for request in made), default=self._started)
        return Run(self.pool.name, clients, made, record.events, ended - self._started)

    @property
    def running(self) -> bool:
        """Whether the clients are to go on."""
        return monotonic() < self._ends and not self.pool.closed

    @property
    def busy(self) -> bool:
        """Whether something is still under way that a later sample would show."""
        underway = self._working or self._wishes.unfinished_tasks > 0
        return underway and self._conductor.is_alive()

    @property
    def problem(self) -> str:
        """What went wrong, on one line; "" if nothing did."""
        if self.pool.closed and not self.closed:
            return f"pool {self.pool.name!r} was closed; run the cell again for a new one"
        if self._failure:
            return self._failure
        # Some may be served all the same, by the connections that are open.
        if (error := self.pool._connect_error) is not None:
            return f"no new connection could be opened: {one_line(error)}"
        return self._blind

    def _wish(self, wish):
        if not self.closed:
            self._wishes.put(wish)

    def _rest(self, each_tick):
        while self.busy:
            each_tick()
            sleep(TICK / 2)

    # -- the clients -----------------------------------------------------------------------------

    def _client(self, i):
        while i < self._seats:
            request = self._request(f"client-{i + 1}")
            if isinstance(request.error, PoolClosed):
                return
            self._finished.append(request)
            if request.error is not None:
                sleep(0.02)  # what fails at once would fail a million times a second

    def _request(self, name):
        start, got, error = monotonic(), None, None
        try:
            if self.leaking and next(self._numbers) % ONE_IN == 0:
                conn = self.pool.getconn(self.timeout)
                got = monotonic()
                try:
                    self.job(conn)
                finally:
                    # The leak is that there is no putconn here. Whoever had to wait until the
                    # leaking was over does not begin it again.
                    self._leaked.append(conn) if self.leaking else self.pool.putconn(conn)
            else:
                with self.pool.connection(self.timeout) as conn:
                    got = monotonic()
                    self.job(conn)
        except Exception as failure:
            error = failure.with_traceback(None)  # its frames would hold the connection
        return Request(name, start, got, monotonic(), error)

    # -- the conductor: what follows runs in its thread ------------------------------------------

    def _conduct(self):
        over = False
        while not over:
            try:
                wish = self._wishes.get(timeout=TICK if self._working else None)
            except Empty:
                wish = None
            try:
                over = wish() if wish else False
                self._seat_clients()
                self._look()
                self._take_sample()
            except Exception as error:  # no more threads, say
                self._failure = one_line(error)
            now, active = monotonic(), self._seats or self._seated()
            if wish or active:
                self._settled = now + (SETTLE if self.observe else 0.0)
            self._working = bool(active) or now < self._settled
            if wish:
                self._wishes.task_done()

    def _begin(self, seconds=None):
        self.seconds = self.seconds if seconds is None else seconds
        self._clear()
        self._ends = self._started + self.seconds

    def _clear(self):
        self._started = self._ends = monotonic()
        self._lately, self._failed, self._failure = deque(), 0, ""
        self._finished.clear()
        self.samples = [self._sample()]

    def _halt(self):
        self._ends = monotonic()

    def _start_over(self):
        running, self.leaking = self.running, False
        self._return_leaked()
        self._begin() if running else self._clear()

    def _end(self, timeout):
        deadline = monotonic() + timeout
        self._halt()
        self._seats, self.leaking = 0, False
        self._return_leaked()
        self.pool.close(timeout)
        for thread in self._threads.values():
            thread.join(max(0.0, deadline - monotonic()))
        return True

    def _return_leaked(self):
        while self._leaked:
            try:
                self.pool.putconn(self._leaked.popleft())
            except PoolError:
                pass  # somebody else has returned it

    def _seat_clients(self):
        self._seats = self.clients if self.running else 0
        for i in range(self._seats):
            if i not in self._threads or not self._threads[i].is_alive():
                self._threads[i] = threading.Thread(
                    target=self._client, args=(i,), name=f"client-{i + 1}", daemon=True
                )
                self._threads[i].start()

    def _seated(self):
        return sum(thread.is_alive() for thread in self._threads.values())

    def _look(self):
        # In a thread, because a server that hangs must hold up nothing else.
        waiting = self._looker is not None and self._looker.is_alive()
        if self.observe is None or waiting or monotonic() < self._next_look:
            return
        self._next_look = monotonic() + LOOK
        self._looker = threading.Thread(target=self._ask_the_server, daemon=True)
        self._looker.start()

    def _ask_the_server(self):
        try:
            self._server, self._blind = self.observe(), ""
        except Exception as error:
            self._server = None
            self._blind = f"the server's own count is missing: {one_line(error)}"

    def _take_sample(self):
        kept = self._kept
        while self._finished:
            request = self._finished.popleft()
            self._lately.append(request)
            if kept is not None:
                kept.append(request)
            if request.error is not None:
                self._failed += 1
                self._failure = self._describe(request)
        while self._lately and self._lately[0].end < monotonic() - 1:
            self._lately.popleft()
        if self.running:
            self.samples.append(self._sample())
        else:  # the numbers of the last second stay as they were when it ended
            measured = self.samples[-1]
            self.samples[-1] = self._sample()._replace(
                at=measured.at, throughput=measured.throughput, wait_ms=measured.wait_ms
            )

    def _sample(self):
        age = monotonic() - self._started
        stats = self.pool.stats()
        lately = Run("", 0, self._lately, [], min(1.0, max(TICK, age)))
        return Sample(
            age,
            stats,
            min(len(self._leaked), stats.in_use),
            self._seated(),
            lately.throughput,
            lately.wait_ms(0.99),
            self._failed,
            None if self.closed else self._server,  # it was counted before the end
        )

    def _describe(self, request):
        requests = "request" if self._failed == 1 else "requests"
        after = max(0.0, request.end - self._started)
        return f"{self._failed:,} {requests} failed, the last at {after:.1f} s: " + one_line(
            request.error
        )


def one_line(error: BaseException) -> str:
    """Say what an error says, on one line: its kind, its first words, and the cause behind it or
    what to try. Who holds which connection is left out: the picture shows how many do."""
    words = _first_line(error)
    if isinstance(error, PoolError) and error.__cause__ is not None:
        words = f"{words.split(' (')[0]}, because: {_first_line(error.__cause__)}"
    elif isinstance(error, PoolError) and "; " in words:
        what, *_, hint = words.split("; ")
        words = f"{what}; {hint}"
    words = words if len(words) <= 240 else words[:239] + "…"
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


def _first_line(error):
    return next(iter(str(error).strip().splitlines()), "")
