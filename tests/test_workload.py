"""The timing harness: what a run counts and measures."""

import threading

import psycopg2
import pytest
from fake import Client, FakeDriver, until
from psycopg2.pool import ThreadedConnectionPool

from poolkit import PoolTimeout, Recorder, Request, Run, Unpooled, checkouts, run, together


@pytest.fixture
def fake():
    driver = FakeDriver()
    yield driver
    assert driver.under_lock == []


def nothing(conn):
    pass


def made(*requests):
    """A Run of what was asked for: (client, start, got, end), in seconds."""
    done = [Request(*request, None) for request in requests]
    return Run("test", 2, done, [], 2.0)


def test_together_calls_the_task_once_in_each_thread_at_the_same_moment():
    gate = threading.Barrier(5)

    def task(i):
        gate.wait(5)  # which they pass only if all of them are at it
        return i * i

    outcomes = together(task, clients=5)
    assert [outcome.result for outcome in outcomes] == [0, 1, 4, 9, 16]
    assert [outcome.client for outcome in outcomes] == [f"client-{n}" for n in range(1, 6)]
    assert max(outcome.start for outcome in outcomes) <= min(outcome.end for outcome in outcomes)


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3)])
def test_together_keeps_what_a_task_raises(error):
    def task(i):
        if i:
            raise error

    first, second = together(task, clients=2)
    assert (first.error, second.error, second.result) == (None, error, None)


def test_together_says_how_many_still_run():
    gate = threading.Event()
    with pytest.raises(TimeoutError, match="1 of 2 clients still run after 0.02 s"):
        together(lambda i: i and gate.wait(5), clients=2, timeout=0.02)
    gate.set()


def test_together_leaves_nobody_at_the_gate_if_a_thread_cannot_start(monkeypatch):
    started, start = [], threading.Thread.start

    def second_fails(thread):
        if len(started) == 2:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", second_fails)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        together(lambda i: i, clients=3)
    for thread in started:
        thread.join(5)
        assert not thread.is_alive()


def test_a_run_makes_as_many_requests_as_asked_for_and_returns_them_all(fake):
    pool = fake.pool(max_size=2)
    done = run(pool, nothing, clients=4, requests=50)
    assert len(done.requests) == len(done.served) == 50
    assert done.errors == []
    assert all(r.start <= r.got <= r.end for r in done.requests)
    assert done.requests == sorted(done.requests, key=lambda request: request.start)
    assert pool.stats().in_use == pool.stats().waiting == 0
    assert 0 < done.elapsed < 5
    assert done.throughput == pytest.approx(50 / done.elapsed)
    assert repr(done).startswith("<Run 'test': 4 clients, 50 requests in ")


def test_a_run_lasts_as_long_as_asked_for(fake):
    done = run(fake.pool(max_size=2), nothing, clients=2, duration=0.03)
    assert 0.03 <= done.elapsed < 2.0 and done.requests


def test_a_run_records_its_pool_and_leaves_its_observer_in_place(fake):
    mine = Recorder()
    pool = fake.pool(max_size=2, on_event=mine)
    done = run(pool, nothing, clients=2, requests=10)
    assert pool.on_event is mine
    assert [event[1:] for event in done.events] == [event[1:] for event in mine.events]
    assert len(checkouts(done.events)) == 10
    pool.on_event = None
    run(pool, nothing, clients=1, requests=1)
    assert pool.on_event is None


def test_an_error_is_kept_with_its_request_and_the_client_goes_on(fake):
    failing = iter([ValueError("first")])

    def job(conn):
        if error := next(failing, None):
            raise error

    done = run(fake.pool(), job, clients=1, requests=3)
    assert [repr(error) for error in done.errors] == ["ValueError('first')"]
    assert [request.got is not None for request in done.requests] == [True, True, True]
    assert len(done.served) == 2


def test_a_request_that_never_got_a_connection_says_so(fake):
    pool = fake.pool(min_size=1)
    pool.getconn()
    done = run(pool, nothing, clients=2, requests=4, timeout=0.001)
    assert {type(error) for error in done.errors} == {PoolTimeout}
    assert {request.got for request in done.requests} == {None}
    assert done.throughput == done.fairness == 0
    assert done.latency_ms() != done.latency_ms()  # nan: there is nothing to measure


def test_what_ends_a_client_ends_the_run(fake):
    def job(conn):
        raise SystemExit("out of memory")

    pool = fake.pool(max_size=2)
    with pytest.raises(SystemExit, match="out of memory"):
        run(pool, job, clients=2, requests=10)
    assert pool.on_event is None and pool.stats().in_use == 0


def test_a_run_that_is_interrupted_stops_its_clients(fake, monkeypatch):
    pool = fake.pool(max_size=2)

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "join", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(pool, nothing, clients=2, duration=60)
    until(lambda: not any(t.name.startswith("client-") for t in threading.enumerate()))
    assert pool.on_event is None


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({}, ValueError, "give either requests=… or duration=…, and not both"),
        ({"requests": 1, "duration": 1.0}, ValueError, "and not both"),
        ({"requests": 0}, ValueError, "requests must be a whole number of at least 1, got 0"),
        ({"requests": 2.5}, ValueError, "requests must be .* got 2.5"),
        ({"requests": 1, "clients": 0}, ValueError, "clients must be .* at least 1, got 0"),
        ({"duration": -1}, ValueError, "duration must be finite and not negative, got -1"),
        ({"duration": "1"}, TypeError, "duration must be a number of seconds, got '1'"),
        ({"requests": 1, "think": -1}, ValueError, "think must be finite .* got -1"),
    ],
)
def test_bad_arguments_are_refused_by_name_and_value(fake, arguments, error, says):
    with pytest.raises(error, match=says):
        run(fake.pool(), nothing, **arguments)
    assert fake.calls == []


def test_fairness_is_1_for_equal_shares_and_one_by_clients_for_a_monopoly():
    assert made(("client-1", 0, 0, 1), ("client-2", 0, 0, 1)).fairness == 1
    assert made(("client-1", 0, 0, 1), ("client-1", 1, 1, 2)).fairness == 0.5
    assert made().fairness == 0


def test_quantiles_are_of_those_that_were_served_in_ms():
    done = made(*(("client-1", 0.0, 0.001 * n, 0.002 * n) for n in range(100)))
    done.requests.append(Request("client-2", 0.0, None, 9.0, ValueError()))
    assert done.latency_ms(0.0) == 0
    assert done.latency_ms() == pytest.approx(100)
    assert done.latency_ms(1.0) == pytest.approx(198)
    assert done.wait_ms(0.99) == pytest.approx(99)


def test_the_table_has_one_row_for_each_request_in_order():
    done = made(("client-2", 5.0, 5.25, 5.5), ("client-1", 4.0, 4.0, 4.5))
    done.requests.append(Request("client-1", 6.0, None, 6.5, ValueError("no")))
    table = done.table()
    assert list(table.columns) == ["client", "start_s", "wait_ms", "job_ms", "total_ms", "error"]
    assert table["client"].tolist() == ["client-1", "client-2", "client-1"]
    assert table["start_s"].tolist() == [0, 1, 2]
    assert table["wait_ms"].tolist()[:2] == [0, 250]
    assert table["job_ms"].isna().tolist() == [False, False, True]
    assert table["total_ms"].tolist() == [500, 500, 500]
    assert table["error"].tolist() == ["", "", "ValueError"]
    assert len(made().table()) == 0


def test_a_pool_is_fair_and_a_run_shows_it(fake):
    pool = fake.pool(min_size=2)
    held, other = pool.getconn(), pool.getconn()
    begun = Client(lambda: run(pool, nothing, clients=6, requests=120))
    until(lambda: pool.stats().waiting == 6)
    pool.putconn(held), pool.putconn(other)
    assert begun.result().fairness > 0.95


@pytest.mark.server
@pytest.mark.parametrize("kind", ["psycopg2", "unpooled"])
def test_a_run_takes_psycopg2s_own_pool_and_none_at_all(dsn, kind):
    def job(conn):
        with conn.cursor() as cursor:
            cursor.execute("SELECT 1")

    if kind == "unpooled":
        pool, name = Unpooled(dsn), "unpooled"
    else:
        pool, name = ThreadedConnectionPool(1, 2, dsn), "ThreadedConnectionPool"
    done = run(pool, job, clients=2, requests=10)
    assert (done.label, len(done.served), len(checkouts(done.events))) == (name, 10, 10)
    assert "getconn" not in vars(pool)
    crowd = run(pool, lambda conn: until(lambda: False, 0.02), clients=4, requests=4, label="crowd")
    assert crowd.label == "crowd"
    if kind == "psycopg2":
        assert any(isinstance(error, psycopg2.pool.PoolError) for error in crowd.errors)
        assert len(pool._used) == 0
    pool.closeall()
