"""The timing harness: some clients, a job, and what it cost each of them.

    run(pool, job, clients=8, requests=200)     many checkouts, measured one by one -> a Run
    together(task, clients=12)                  one call each, all let go at the same moment

Clients are threads. They only record; drawing and printing is left to whoever called.
"""

import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic, sleep
from typing import NamedTuple

from .arguments import seconds, whole
from .recorder import Event, Recorder


class Request(NamedTuple):
    """One checkout of one client. Times are seconds on the clock of time.monotonic()."""

    client: str
    start: float  # asked for a connection
    got: float | None  # had it; None: it never came
    end: float  # had done the job and given it back, or had failed
    error: Exception | None


class Outcome(NamedTuple):
    """What one task did. Times are seconds on the clock of time.monotonic()."""

    client: str
    result: object  # what it returned; None if it raised
    error: BaseException | None  # what it raised
    start: float
    end: float


@dataclass
class Run:
    """One measured run of `clients` clients on one pool."""

    label: str
    clients: int
    requests: list[Request]
    events: list[Event] = field(repr=False)
    elapsed: float  # seconds from the moment all were let go until the last had ended

    def __repr__(self):
        return (
            f"<Run {self.label!r}: {self.clients} clients, {len(self.requests)} requests "
            f"in {self.elapsed:.2f} s, {self.throughput:.0f}/s, {len(self.errors)} errors>"
        )

    @property
    def served(self) -> list[Request]:
        """The requests that ended without an error."""
        return [request for request in self.requests if request.error is None]

    @property
    def errors(self) -> list[Exception]:
        """What the other requests failed with."""
        return [request.error for request in self.requests if request.error is not None]

    @property
    def throughput(self) -> float:
        """Requests served per second."""
        return len(self.served) / self.elapsed if self.elapsed else 0.0

    @property
    def fairness(self) -> float:
        """Jain's index over the requests served per client: 1 is equal shares, 1/clients is one
        client having it all (R. Jain, D. Chiu, W. Hawe, DEC TR-301, 1984)."""
        shares = {f"client-{n + 1}": 0 for n in range(self.clients)}
        for request in self.served:
            shares[request.client] += 1
        squares = sum(share * share for share in shares.values())
        return sum(shares.values()) ** 2 / (self.clients * squares) if squares else 0.0

    def latency_ms(self, q: float = 0.5) -> float:
        """The time in ms from asking to done below which a fraction `q` of those served stayed."""
        return _quantile([request.end - request.start for request in self.served], q) * 1000

    def wait_ms(self, q: float = 0.5) -> float:
        """The time in ms from asking to having a connection, for a fraction `q` of those served."""
        return _quantile([request.got - request.start for request in self.served], q) * 1000

    def table(self):
        """All requests as a pandas DataFrame, in the order in which they were made: client,
        start_s (since the first), wait_ms, job_ms, total_ms, error."""
        import pandas as pd

        requests = sorted(self.requests, key=lambda request: request.start)
        first = requests[0].start if requests else 0.0
        rows = [
            (
                request.client,
                request.start - first,
                None if request.got is None else (request.got - request.start) * 1000,
                None if request.got is None else (request.end - request.got) * 1000,
                (request.end - request.start) * 1000,
                "" if request.error is None else f"{type(request.error).__name__}",
            )
            for request in requests
        ]
        columns = ["client", "start_s", "wait_ms", "job_ms", "total_ms", "error"]
        return pd.DataFrame(rows, columns=columns)


def run(
    pool,
    job,
    *,
    clients: int = 8,
    requests: int | None = None,
    duration: float | None = None,
    think: float = 0.0,
    timeout: float | None = None,
    label: str | None = None,
) -> Run:
    """Let `clients` threads check out a connection, do `job(conn)` and return it, again and again.

    They stop when `requests` have been made in all, or after `duration` seconds; give one of the
    two. Between two requests a client thinks for `think` seconds. `timeout` (seconds) is handed to
    the pool's `connection()`. An error is kept with its request and the client goes on. Takes
    poolkit's pools and psycopg2's own, which are returned to in a `finally`.
    """
    if (requests is None) == (duration is None):
        raise ValueError("give either requests=… or duration=…, and not both")
    if requests is not None:
        whole("requests", requests, 1)
    seconds("duration", duration or 0.0)
    seconds("think", think)
    tickets = iter(range(requests)) if requests is not None else None
    taking = threading.Lock()
    stop = threading.Event()
    began = 0.0  # when all were let go

    def more():
        if stop.is_set():
            return False
        if tickets is None:
            return monotonic() < began + duration
        with taking:
            return next(tickets, None) is not None

    def client(_):
        done = []
        while more():
            start, got, error = monotonic(), None, None
            try:
                with _lent(pool, timeout) as conn:
                    got = monotonic()
                    job(conn)
            except Exception as failure:
                error = failure
            done.append(Request(_own_name(), start, got, monotonic(), error))
            # A pool that refuses at once would be asked a million times a second.
            pause = max(think, 0.001) if got is None else think
            if pause:
                sleep(pause)
        return done

    def start_clock():
        nonlocal began
        began = monotonic()

    record = Recorder()
    before = getattr(pool, "on_event", None)
    record.watch(pool)
    if before is not None:
        pool.on_event = lambda *event: (before(*event), record(*event))
    try:
        patience = 60.0 + (duration or 0.0)
        outcomes = together(client, clients, timeout=patience, _at_start=start_clock)
    finally:
        stop.set()
        record.unwatch(pool)
        if before is not None:
            pool.on_event = before
    for outcome in outcomes:
        if outcome.error is not None:
            raise outcome.error
    made = sorted(
        (request for outcome in outcomes for request in outcome.result),
        key=lambda request: request.start,
    )
    elapsed = max(outcome.end for outcome in outcomes) - began
    name = label or getattr(pool, "name", None) or type(pool).__name__
    return Run(name, clients, made, record.events, elapsed)


def together(task, clients: int = 8, timeout: float = 30.0, _at_start=None) -> list[Outcome]:
    """Call `task(i)` once in each of `clients` threads, all let go at the same moment.

    Waits for all of them, at most `timeout` seconds, then raises TimeoutError that says how many
    still run. Returns one Outcome per client, in their order.
    """
    whole("clients", clients, 1)
    outcomes = [None] * clients
    gate = threading.Barrier(clients, action=_at_start)

    def body(i):
        try:
            gate.wait()
        except threading.BrokenBarrierError:
            return
        start, result, error = monotonic(), None, None
        try:
            result = task(i)
        except BaseException as failure:  # a thread ends with it, and nobody would know
            error = failure
        outcomes[i] = Outcome(_own_name(), result, error, start, monotonic())

    threads = [
        threading.Thread(target=body, args=(i,), name=f"client-{i + 1}", daemon=True)
        for i in range(clients)
    ]
    try:
        for thread in threads:
            thread.start()
    except BaseException:
        gate.abort()  # or those who were started would wait for the others for ever
        raise
    deadline = monotonic() + timeout
    for thread in threads:
        thread.join(max(0.0, deadline - monotonic()))
    running = sum(thread.is_alive() for thread in threads)
    if running:
        raise TimeoutError(f"{running} of {clients} clients still run after {timeout:g} s")
    return outcomes


def _own_name():
    return threading.current_thread().name


@contextmanager
def _lent(pool, timeout):
    if hasattr(pool, "connection"):
        with pool.connection(timeout) as conn:
            yield conn
        return
    conn = pool.getconn()  # psycopg2's own: no with block, and no patience
    try:
        yield conn
        conn.commit()
    finally:
        pool.putconn(conn)


def _quantile(values, q):
    if not values:
        return float("nan")
    values = sorted(values)
    return values[min(len(values) - 1, int(q * len(values)))]
