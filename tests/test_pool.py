"""What the pool promises, against a fake database: read the names from top to bottom."""

import gc
import inspect
import os
import pickle
import re
import select
import signal
import sys
import threading
import traceback
import warnings
import weakref
from contextlib import contextmanager
from time import monotonic

import pytest
from fake import Client, Clock, FakeDriver, FakeSession, until
from psycopg2.extensions import parse_dsn

import poolkit.opening
from poolkit import (
    ConnectionPool,
    PoolClosed,
    PoolDeadlock,
    PoolError,
    PoolTimeout,
    Recorder,
    TooManyRequests,
    checkouts,
    waits,
)
from poolkit.drivers import Psycopg2
from poolkit.registry import live_pools


@pytest.fixture
def fake():
    driver = FakeDriver()
    yield driver
    assert driver.under_lock == []


@pytest.fixture
def pauses(monkeypatch):
    """The pauses between failing connects, none of which is really made."""
    made = []
    monkeypatch.setattr(poolkit.opening, "sleep", made.append)
    monkeypatch.setattr(poolkit.opening, "uniform", lambda low, high: high)
    return made


def looks(pool, state):
    return repr(pool) == f"<ConnectionPool 'test': {state}>"


def take(pool, n):
    return [pool.getconn() for _ in range(n)]


def growing(before):
    """The threads that pools have started, of those that were not there before."""
    return [
        thread
        for thread in threading.enumerate()
        if thread not in before and not isinstance(thread, Client)
    ]


def wait_in_line(pool, n, timeout=60):
    """Start n clients that wait, one after the other."""
    clients = []
    for _ in range(n):
        before = pool.stats().waiting
        clients.append(Client(pool.getconn, timeout))
        until(lambda before=before: pool.stats().waiting == before + 1)
    return clients


@contextmanager
def interrupted(when):
    """A block in which the main thread gets Ctrl-C as soon as `when()` is true."""
    main = threading.main_thread().ident

    def interrupt():
        until(when)
        signal.pthread_kill(main, signal.SIGINT)

    client = Client(interrupt)
    with pytest.raises(KeyboardInterrupt):
        yield
    client.result()


@contextmanager
def undisturbed():
    """A block in which no other thread gets a turn, unless this one waits for something."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(60)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)


class LockWithADelay:
    """A pool's lock. The first time that it is taken when `when()` is true, `act()` comes first."""

    def __init__(self, lock, when, act):
        self._lock, self._when, self._act = lock, when, act

    def __enter__(self):
        if self._act is not None and self._when():
            act, self._act = self._act, None
            act()
        self._lock.acquire()

    def __exit__(self, *exc_info):
        self._lock.release()

    def __getattr__(self, name):
        return getattr(self._lock, name)


def before_the_lock(pool, when, act):
    pool._lock = LockWithADelay(pool._lock, when, act)


def forked(task):
    """Do `task()` in a forked child: says "went well", or what it raised, or that it hangs."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # from Python 3.12 on: that there are other threads
        pid = os.fork()
    if not pid:
        said = "nothing"
        try:
            task()
            said = "went well"
        except BaseException:
            said = traceback.format_exc()
        finally:
            os.write(writing, said.encode()[-4000:])
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as told:
        if not select.select([told], [], [], 5.0)[0]:
            os.kill(pid, signal.SIGKILL)
        said = told.read() or "it hangs"
    os.waitpid(pid, 0)
    return said


needs_fork = pytest.mark.skipif(
    not hasattr(os, "fork"), reason="nothing forks on Windows; try: the same on Linux"
)


# -- opening ------------------------------------------------------------------------------------


@pytest.mark.promise(1)
def test_the_constructor_opens_min_size_connections(fake):
    pool = fake.pool(min_size=2, max_size=4)
    assert repr(pool) == "<ConnectionPool 'test': 0 of 4 in use, 2 idle, 0 pending, 0 waiting>"
    assert str(pool.stats()) == "0 of 4 in use, 2 idle, 0 pending, 0 waiting"
    assert fake.count("connect") == 2


@pytest.mark.promise(1)
def test_the_constructor_raises_what_the_driver_raises_and_closes_what_it_opened(fake):
    connect = fake.connect

    def third_fails():
        if fake.count("connect") == 2:
            raise OSError("no such host")
        return connect()

    fake.connect = third_fails
    with pytest.raises(OSError, match="no such host"):
        fake.pool(min_size=3)
    assert len(fake.connections) == 2 and fake.open == []


@pytest.mark.promise(1, 8)
def test_ctrl_c_in_the_constructor_closes_what_it_opened(fake):
    fake.fail("remember", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        fake.pool(min_size=2, configure=lambda conn: None)
    assert len(fake.connections) == 1 and fake.open == []


@pytest.mark.promise(2)
def test_without_a_max_size_a_pool_stays_as_small_as_it_began(fake):
    assert fake.pool(min_size=3).max_size == 3
    assert fake.pool(min_size=0).max_size == 1


@pytest.mark.promise(2)
@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"min_size": -1}, ValueError, "min_size must be a whole number of at least 0, got -1"),
        ({"max_size": 0}, ValueError, "max_size must be a whole number of at least 1, got 0"),
        ({"max_size": 2.0}, ValueError, "max_size must be a whole number of at least 1, got 2.0"),
        ({"max_size": True}, ValueError, "max_size .* got True"),
        ({"max_size": "4"}, ValueError, "max_size .* got '4'"),
        (
            {"min_size": 3, "max_size": 2},
            ValueError,
            "min_size must not exceed .* 3 > 2",
        ),
        ({"timeout": -1}, ValueError, "timeout must be finite and not negative, got -1"),
        ({"timeout": float("nan")}, ValueError, "timeout must be finite .* got nan"),
        ({"timeout": float("inf")}, ValueError, "timeout must be finite .* got inf"),
        ({"timeout": 10**400}, ValueError, "timeout must be finite"),
        ({"timeout": None}, TypeError, "timeout must be a number of seconds, got None"),
        ({"timeout": "5"}, TypeError, "timeout must be a number of seconds, got '5'"),
        ({"max_waiting": -1}, ValueError, "max_waiting must be a whole number .* got -1"),
        ({"max_lifetime": 0}, ValueError, "max_lifetime must be more than 0"),
        ({"max_lifetime": "1h"}, TypeError, "max_lifetime must be a number of seconds, got '1h'"),
        ({"max_idle": -0.5}, ValueError, "max_idle must be finite and not negative, got -0.5"),
        ({"check_idle": False}, TypeError, "check_idle must be a number of seconds, got False"),
        ({"reset": "DISCARD ALL"}, ValueError, "reset must be .*, got 'DISCARD ALL'"),
        ({"configure": "SET"}, TypeError, "configure must be a function, got 'SET'"),
        ({"on_event": []}, TypeError, r"on_event must be a function, got \[\]"),
        ({"minconn": 1, "maxconn": 2}, TypeError, "maxconn and minconn: here they are called"),
        ({"dsn": 4}, TypeError, "dsn must be a string, .*; sizes go by name: max_size=4"),
        ({"dsn": "host=here"}, TypeError, "give either a driver, or a dsn"),
        ({"port": 5432}, TypeError, "give either a driver, or a dsn"),
    ],
)
def test_bad_arguments_are_refused_by_name_and_value(fake, arguments, error, says):
    with pytest.raises(error, match=says):
        fake.pool(**arguments)
    assert fake.calls == []


@pytest.mark.promise(2)
@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (
            lambda pool, conn: pool.getconn("alice"),
            TypeError,
            "got 'alice'; there are no keys here",
        ),
        (lambda pool, conn: pool.getconn(-1), ValueError, "timeout must be finite"),
        (lambda pool, conn: pool.connection("alice").__enter__(), TypeError, "got 'alice'"),
        (lambda pool, conn: pool.putconn(None), PoolError, "can't return None to pool 'test'"),
        (lambda pool, conn: pool.putconn(object()), PoolError, "it is not one of this pool's"),
        (lambda pool, conn: pool.putconn([]), PoolError, "it is not one of this pool's"),
        (lambda pool, conn: pool.putconn(conn, "alice"), TypeError, "close must be True or False"),
        (lambda pool, conn: pool.resize(3, 2), ValueError, "got 3 > 2"),
        (lambda pool, conn: pool.resize(0, 0), ValueError, "max_size .* got 0"),
        (lambda pool, conn: pool.close(timeout=-1), ValueError, "timeout must be finite"),
        (lambda pool, conn: pool.close(timeout="soon"), TypeError, "got 'soon'"),
    ],
)
def test_a_bad_call_leaves_the_pool_as_it_was(fake, call, error, says):
    pool = fake.pool(min_size=1, max_size=2)
    conn = pool.getconn()
    with pytest.raises(error, match=says):
        call(pool, conn)
    assert looks(pool, "1 of 2 in use, 0 idle, 0 pending, 0 waiting")
    pool.putconn(conn)
    assert looks(pool, "0 of 2 in use, 1 idle, 0 pending, 0 waiting")


def test_every_error_can_be_pickled(fake):
    pool = fake.pool(min_size=1)
    pool.getconn()
    with pytest.raises(PoolTimeout) as caught:
        pool.getconn(0)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), str(again)) == (PoolTimeout, str(caught.value))
    assert isinstance(again, TimeoutError)


@pytest.mark.promise(22)
def test_what_is_not_said_about_patience_is_said_by_the_driver():
    driver = Psycopg2("host=here connect_timeout=3", keepalives_idle=99)
    told = parse_dsn(driver.dsn) | driver.kwargs
    assert told == {
        "host": "here",
        "connect_timeout": "3",
        "keepalives_idle": 99,
        "keepalives_interval": 10,
        "keepalives_count": 3,
        "tcp_user_timeout": 10_000,
    }
    assert Psycopg2().kwargs["connect_timeout"] == 10


# -- lending ------------------------------------------------------------------------------------


def test_its_really_a_pool(fake):
    pool = fake.pool(min_size=1)
    conn = pool.getconn()
    pool.putconn(conn)
    assert pool.getconn() is conn
    assert fake.count("connect") == 1


@pytest.mark.promise(4)
def test_idle_connections_are_a_stack(fake):
    pool = fake.pool(min_size=3)
    a, b, c = take(pool, 3)
    for conn in (b, c, a):
        pool.putconn(conn)
    assert take(pool, 3) == [a, c, b]


@pytest.mark.promise(9)
def test_a_healthy_connection_is_lent_and_returned_without_a_round_trip(fake):
    pool = fake.pool(min_size=1)
    fake.calls.clear()
    pool.putconn(pool.getconn())
    assert fake.calls == [("alive", 1), ("clean", 1)]


@pytest.mark.promise(5)
def test_waiting_is_first_come_first_served(fake):
    pool = fake.pool(max_size=1)
    conn = pool.getconn()
    served = []

    def client(i):
        with pool.connection():
            served.append(i)

    clients = []
    for i in range(5):
        clients.append(Client(client, i))
        until(lambda i=i: pool.stats().waiting == i + 1)
    assert looks(pool, "1 of 1 in use, 0 idle, 0 pending, 5 waiting")
    pool.putconn(conn)
    for client in clients:
        client.result()
    assert served == [0, 1, 2, 3, 4]


@pytest.mark.promise(5)
def test_whoever_returns_and_asks_again_goes_to_the_end_of_the_line(fake):
    pool, served = fake.pool(max_size=1), []

    def client(i):
        for _ in range(5):
            with pool.connection():
                served.append(i)
                until(lambda: pool.stats().waiting == min(3, 20 - len(served)))

    for each in [Client(client, i) for i in range(4)]:
        each.result()
    assert served == served[:4] * 5 and set(served) == {0, 1, 2, 3}


@pytest.mark.promise(5)
def test_a_returned_connection_goes_straight_to_the_first_in_line(fake):
    pool = fake.pool(min_size=1)
    conn = pool.getconn()
    (client,) = wait_in_line(pool, 1)
    pool.putconn(conn)
    # Whether the client has woken up already does not matter: nobody can come in between.
    assert looks(pool, "1 of 1 in use, 0 idle, 0 pending, 0 waiting")
    with pytest.raises(PoolTimeout):
        pool.getconn(0)
    assert client.result() is conn


@pytest.mark.promise(16)
def test_a_connection_that_is_handed_over_says_at_once_who_has_it(fake):
    pool = fake.pool(min_size=1)
    conn = pool.getconn()

    def task():
        return pool.getconn()

    client = Client(task)
    until(lambda: pool.stats().waiting)
    with undisturbed():  # so that the client has not woken up yet
        pool.putconn(conn)
        (holder,) = pool.holders()
    assert holder.thread == client.name and holder.where.endswith(" in task")


@pytest.mark.promise(3, 5)
def test_idle_and_waiting_never_meet(fake):
    pool = fake.pool(max_size=2)
    bad = []

    def look(*event):
        stats = pool.stats()
        if stats.idle and stats.waiting or stats.in_use + stats.idle + stats.pending > 2:
            bad.append(stats)

    pool.on_event = look

    def client():
        for _ in range(30):
            with pool.connection():
                pass

    for each in [Client(client) for _ in range(6)]:
        each.result()
    assert bad == [] and len(fake.connections) <= 2
    assert looks(pool, f"0 of 2 in use, {len(fake.open)} idle, 0 pending, 0 waiting")


@pytest.mark.promise(6)
def test_timeout_zero_takes_what_is_there_and_waits_for_nothing(fake):
    pool = fake.pool(min_size=1, max_size=2)
    conn = pool.getconn(timeout=0)
    with pytest.raises(PoolTimeout, match="no connection within 0.00 s"):
        pool.getconn(timeout=0)
    pool.putconn(conn)
    conn.dead = True
    with pytest.raises(PoolTimeout):
        pool.getconn(timeout=0)  # it was there, and it was dead
    assert looks(pool, "0 of 2 in use, 0 idle, 0 pending, 0 waiting")


@pytest.mark.promise(6)
def test_the_timeout_of_a_call_overrides_the_pools(fake):
    pool = fake.pool(min_size=1, timeout=0.02)
    pool.getconn()
    with pytest.raises(PoolTimeout, match="within 0.02 s"):
        pool.getconn()
    with pytest.raises(PoolTimeout, match="within 0.01 s"):
        with pool.connection(0.01):
            pass


@pytest.mark.promise(6)
def test_a_client_that_waits_in_vain_waits_for_as_long_as_it_said_and_not_much_longer(fake):
    pool = fake.pool(min_size=1, timeout=0.01)
    pool.getconn()
    for timeout, seconds in [(None, 0.01), (0.03, 0.03)]:
        began = monotonic()
        with pytest.raises(PoolTimeout):
            pool.getconn(timeout)
        assert seconds <= monotonic() - began < seconds + 2


@pytest.mark.promise(6)
def test_the_longest_timeout_is_not_too_long(fake):
    pool = fake.pool(min_size=1)
    conn = pool.getconn()
    (client,) = wait_in_line(pool, 1, timeout=sys.float_info.max)
    pool.putconn(conn)
    conn = client.result()
    closing = Client(pool.close, sys.float_info.max)
    until(lambda: pool.closed)
    pool.putconn(conn)
    assert closing.result() == []


@pytest.mark.promise(16)
def test_a_timeout_says_what_the_pool_looked_like_and_who_holds_it(fake):
    pool = fake.pool(min_size=2)

    def hold_one():
        return pool.getconn()

    hold_one(), hold_one()
    with pytest.raises(PoolTimeout) as caught:
        pool.getconn(0.01)
    assert re.fullmatch(
        r"pool 'test': no connection within 0\.01 s "
        r"\(2 of 2 in use, 0 idle, 0 pending, 0 waiting\); held by: "
        r"MainThread for 0\.\d s at test_pool\.py:\d+ in hold_one, "
        r"MainThread for 0\.\d s at test_pool\.py:\d+ in hold_one; "
        r"return every connection, sooner, or raise max_size",
        str(caught.value),
    )
    assert caught.value.__cause__ is None


@pytest.mark.promise(16)
def test_a_timeout_names_five_holders_and_counts_the_others(fake):
    pool = fake.pool(min_size=7)
    take(pool, 7)
    with pytest.raises(PoolTimeout) as caught:
        pool.getconn(0)
    assert str(caught.value).count("MainThread") == 5 and ", 2 more;" in str(caught.value)


@pytest.mark.promise(16)
def test_holders_are_listed_the_longest_first(fake, monkeypatch):
    clock = Clock(monkeypatch)
    pool = fake.pool(min_size=2)
    first = pool.getconn()
    clock.now += 60
    second = pool.getconn()
    clock.now += 5
    assert [(h.conn, h.age) for h in pool.holders()] == [(first, 65), (second, 5)]
    assert [h.conn for h in pool.holders(older_than=60)] == [first]
    assert str(pool.holders()[1]).startswith("MainThread for 5.0 s at test_pool.py:")


@pytest.mark.promise(7)
def test_a_client_that_times_out_leaves_the_line(fake):
    pool = fake.pool(min_size=1)
    conn = pool.getconn()
    with pytest.raises(PoolTimeout):
        pool.getconn(0.001)
    assert looks(pool, "1 of 1 in use, 0 idle, 0 pending, 0 waiting")
    pool.putconn(conn)
    assert looks(pool, "0 of 1 in use, 1 idle, 0 pending, 0 waiting")


@pytest.mark.promise(6)
def test_a_client_woken_as_it_times_out_still_takes_the_connection(fake):
    pool = fake.pool(min_size=1)
    conn = pool.getconn()
    deadline = monotonic() + 0.02
    # The time runs out; before the client has the lock, somebody returns a connection.
    before_the_lock(pool, lambda: monotonic() >= deadline, lambda: pool.putconn(conn))
    assert pool.getconn(0.02) is conn
    assert looks(pool, "1 of 1 in use, 0 idle, 0 pending, 0 waiting")


@pytest.mark.promise(7)
def test_a_pool_that_was_full_for_long_is_whole_again_when_all_is_returned(fake):
    pool = fake.pool(max_size=5)
    held = take(pool, 5)
    clients = [Client(pool.getconn, 0.001) for _ in range(20)]
    for client in clients:
        with pytest.raises(PoolTimeout):
            client.result()
    assert looks(pool, "5 of 5 in use, 0 idle, 0 pending, 0 waiting")
    for conn in held:
        pool.putconn(conn)
    assert sorted(conn.number for conn in take(pool, 5)) == [1, 2, 3, 4, 5]


@pytest.mark.promise(7)
def test_who_had_its_turn_and_found_a_dead_connection_is_not_refused_now(fake):
    pool = fake.pool(min_size=1, max_waiting=1)
    conn = pool.getconn()
    (first,) = wait_in_line(pool, 1)
    conn.dead = True
    with fake.block("alive") as gate:
        pool.putconn(conn)
        until(lambda: gate.waiting)
        (second,) = wait_in_line(pool, 1)  # there is room in the line: the first has left it
    pool.putconn(first.result())
    assert second.result().number == 2


@pytest.mark.promise(7)
def test_max_waiting_counts_those_who_really_wait(fake):
    pool = fake.pool(min_size=1, max_waiting=2)
    conn = pool.getconn()
    for _ in range(3):
        with pytest.raises(PoolTimeout):
            pool.getconn(0.001)  # they come and go
    clients = wait_in_line(pool, 2)
    for _ in range(3):
        with pytest.raises(TooManyRequests) as caught:
            pool.getconn()
    assert str(caught.value) == (
        "pool 'test': no more than max_waiting=2 requests may wait "
        "(1 of 1 in use, 0 idle, 0 pending, 2 waiting); try again later"
    )
    assert pool.stats().waiting == 2
    pool.putconn(conn)
    pool.putconn(clients[0].result())
    pool.putconn(clients[1].result())
    assert pool.getconn() is conn


# -- growing ------------------------------------------------------------------------------------


@pytest.mark.promise(3, 15)
def test_the_pool_grows_when_somebody_waits_and_no_further_than_max_size(fake):
    pool = fake.pool(max_size=3)
    take(pool, 3)
    assert looks(pool, "3 of 3 in use, 0 idle, 0 pending, 0 waiting")
    with pytest.raises(PoolTimeout):
        pool.getconn(0.005)
    assert len(fake.connections) == 3


@pytest.mark.promise(15)
def test_connects_are_made_one_at_a_time(fake):
    pool = fake.pool(max_size=4)
    with fake.block("connect") as gate:
        clients = wait_in_line(pool, 6)
        until(lambda: gate.waiting == 1)
        assert looks(pool, "0 of 4 in use, 0 idle, 1 pending, 6 waiting")
    until(lambda: pool.stats().in_use == 4)
    assert fake.together["connect"] == 1
    for i, client in enumerate(clients):
        pool.putconn(client.result())
        assert pool.stats().waiting == max(0, 1 - i)
    assert len(fake.connections) == 4


@pytest.mark.promise(15)
def test_a_connect_that_hangs_holds_nobody_up(fake):
    pool = fake.pool(min_size=1, max_size=2)
    conn = pool.getconn()
    with fake.block("connect"):
        (client,) = wait_in_line(pool, 1)
        until(lambda: fake.count("connect") == 2)
        pool.putconn(conn)
        assert client.result() is conn
        pool.putconn(conn)
        assert pool.getconn(0) is conn
        assert looks(pool, "1 of 2 in use, 0 idle, 1 pending, 0 waiting")
    until(lambda: looks(pool, "1 of 2 in use, 1 idle, 0 pending, 0 waiting"))


@pytest.mark.promise(15)
def test_a_spike_is_served_by_what_is_returned_and_opens_one_connection_too_many_at_most(fake):
    pool = fake.pool(min_size=5, max_size=35)

    def client():
        with pool.connection():
            until(lambda: gate.waiting)

    with fake.block("connect") as gate:
        for each in [Client(client) for _ in range(35)]:
            each.result()
        assert looks(pool, "0 of 35 in use, 5 idle, 1 pending, 0 waiting")
    until(lambda: not pool.stats().pending)
    assert len(fake.connections) == 6


@pytest.mark.promise(3, 15)
def test_a_connect_that_failed_frees_its_place_and_is_tried_again(fake, pauses):
    pool = fake.pool(max_size=1)
    fake.fail("connect", OSError("refused"), times=8)
    conn = pool.getconn()
    assert conn.number == 1 and fake.count("connect") == 9
    assert pauses == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]
    assert looks(pool, "1 of 1 in use, 0 idle, 0 pending, 0 waiting")


@pytest.mark.promise(15)
def test_failing_connects_never_run_side_by_side(fake, monkeypatch):
    pool = fake.pool(max_size=4)
    paused = threading.Semaphore(0)
    monkeypatch.setattr(poolkit.opening, "sleep", lambda seconds: paused.acquire(timeout=5))
    fake.fail("connect", OSError("refused"))
    clients = wait_in_line(pool, 3)
    until(lambda: fake.count("connect") == 1 and not pool.stats().pending)
    assert looks(pool, "0 of 4 in use, 0 idle, 0 pending, 3 waiting")  # in the pause after it
    paused.release()
    until(lambda: fake.count("connect") == 2 and not pool.stats().pending)
    fake.mend("connect")
    paused.release()
    assert {client.result().number for client in clients} == {1, 2, 3}
    assert fake.together["connect"] == 1


@pytest.mark.promise(16)
def test_a_timeout_carries_the_error_of_the_last_connect(fake, pauses):
    pool = fake.pool(max_size=1)
    refused = OSError("connection refused")
    fake.fail("connect", refused)
    with pytest.raises(PoolTimeout, match="no new one could be opened, see the cause") as caught:
        pool.getconn(0.02)
    assert caught.value.__cause__ is refused
    fake.mend("connect")
    pool.resize(0, 2)
    pool.getconn()
    with fake.block("connect"), pytest.raises(PoolTimeout, match="raise max_size") as caught:
        pool.getconn(0.001)
    assert caught.value.__cause__ is None  # the last connect was not that one: it succeeded


@pytest.mark.promise(16)
def test_a_connect_that_failed_is_not_blamed_for_a_pool_that_is_all_lent(fake, pauses):
    pool = fake.pool(min_size=1, max_size=2)
    pool.getconn()
    fake.fail("connect", OSError("refused"))
    with pytest.raises(PoolTimeout) as caught:
        pool.getconn(0.01)
    assert caught.value.__cause__ is not None
    pool.resize(0, 1)
    with pytest.raises(PoolTimeout) as caught:
        pool.getconn(0)
    assert caught.value.__cause__ is None


@pytest.mark.promise(15)
def test_growth_survives_whatever_a_connect_raises(fake, pauses):
    pool = fake.pool(max_size=1)
    fake.fail("connect", SystemExit("configure gave up"), times=2)
    assert pool.getconn().number == 1


@pytest.mark.promise(15)
def test_without_threads_the_client_connects_by_itself(fake, monkeypatch):
    pool = fake.pool(max_size=2)

    def start(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    first = pool.getconn()
    fake.fail("connect", OSError("refused"))
    with pytest.raises(PoolTimeout) as caught:
        pool.getconn(0.01)
    assert caught.value.__cause__.args == ("refused",)
    assert fake.count("connect") == 2  # it did not insist
    fake.fail("connect", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        pool.getconn(0.01)
    assert looks(pool, "1 of 2 in use, 0 idle, 0 pending, 0 waiting")
    fake.fail("connect", OSError("refused"))
    pool.putconn(first, close=True)  # returning never raises what a connect does
    fake.mend("connect")
    assert pool.getconn(0.01).number == 2


@pytest.mark.promise(15)
def test_nobody_left_in_line_ends_the_growth(fake, pauses):
    pool = fake.pool(max_size=5)
    with fake.block("connect") as gate:
        with pytest.raises(PoolTimeout):
            pool.getconn(0.001)
        until(lambda: gate.waiting == 1)
    until(lambda: looks(pool, "0 of 5 in use, 1 idle, 0 pending, 0 waiting"))
    assert fake.count("connect") == 1


def test_configure_is_called_once_with_each_new_connection_and_its_work_is_kept(fake):
    seen = []
    pool = fake.pool(max_size=2, configure=seen.append)
    a, b = take(pool, 2)
    pool.putconn(a)
    assert pool.getconn() is a
    assert seen == [a, b]
    assert [call for call in fake.calls if call[1] == 1][:3] == [
        ("connect", 1),
        ("commit", 1),
        ("remember", 1),
    ]


@pytest.mark.promise(1, 15)
def test_a_configure_that_raises_costs_no_slot(fake):
    def configure(conn):
        raise ValueError("no such setting")

    with pytest.raises(ValueError, match="no such setting"):
        fake.pool(min_size=1, configure=configure)
    assert fake.open == []
    pool = fake.pool(max_size=1, configure=configure)
    with pytest.raises(PoolTimeout) as caught:
        pool.getconn(0.01)
    assert caught.value.__cause__.args == ("no such setting",)
    until(lambda: fake.open == [] and not pool.stats().pending)


# -- what is lent is alive ----------------------------------------------------------------------


@pytest.mark.promise(9)
def test_a_dead_idle_connection_is_never_lent(fake):
    pool = fake.pool(min_size=2)
    a, b = take(pool, 2)
    pool.putconn(a), pool.putconn(b)
    b.dead = True
    assert pool.getconn() is a
    assert b.closed
    pool.putconn(a)
    a.dead = True
    assert pool.getconn().number == 3
    assert looks(pool, "1 of 2 in use, 0 idle, 0 pending, 0 waiting")


@pytest.mark.promise(5, 9)
def test_who_finds_a_dead_connection_keeps_its_turn(fake):
    pool = fake.pool(min_size=1, max_size=1)
    conn = pool.getconn()
    conn.dead = True
    served = []

    def client(i):
        with pool.connection():
            served.append(i)

    clients = []
    for i in range(3):
        clients.append(Client(client, i))
        until(lambda i=i: pool.stats().waiting == i + 1)
    pool.putconn(conn)
    for client in clients:
        client.result()
    assert served == [0, 1, 2]


@pytest.mark.promise(10)
def test_long_idle_connections_are_asked_before_they_are_lent(fake, monkeypatch):
    clock = Clock(monkeypatch)
    pool = fake.pool(min_size=2, check_idle=30)
    clock.now += 29
    a = pool.getconn()
    assert fake.count("ping") == 0
    clock.now += 1
    b = pool.getconn()
    assert fake.count("ping") == 1
    pool.putconn(b)
    clock.now += 29
    assert pool.getconn() is b and fake.count("ping") == 1
    pool.putconn(b)
    clock.now += 30
    b.mute = True
    assert pool.getconn().number == 3 and b.closed
    assert pool.holders()[0].conn is a


@pytest.mark.promise(6, 10)
def test_a_call_whose_time_is_over_asks_no_second_connection(fake, monkeypatch):
    clock = Clock(monkeypatch)
    pool = fake.pool(min_size=3, max_size=3, check_idle=30)
    clock.now += 60
    for conn in fake.connections:
        conn.mute = True
    ping = fake.called

    def slow_ping(what, number):
        ping(what, number)
        if what == "ping":
            clock.now += 10  # as long as TCP takes to give up

    fake.called = slow_ping
    with fake.block("connect"), pytest.raises(PoolTimeout):
        pool.getconn(timeout=5)
    assert fake.count("ping") == 1 and fake.open == []


@pytest.mark.promise(9)
def test_nothing_older_than_max_lifetime_is_lent(fake, monkeypatch):
    clock = Clock(monkeypatch)
    pool = fake.pool(min_size=1, max_lifetime=3600)
    clock.now += 3601
    assert pool.getconn().number == 2
    assert fake.connections[0].closed


@pytest.mark.promise(4)
def test_what_grew_old_in_use_is_closed_on_return(fake, monkeypatch):
    clock = Clock(monkeypatch)
    pool = fake.pool(min_size=1, max_lifetime=3600)
    conn = pool.getconn()
    clock.now += 3601
    pool.putconn(conn)
    assert conn.closed and looks(pool, "0 of 1 in use, 0 idle, 0 pending, 0 waiting")


@pytest.mark.promise(4)
def test_what_grew_old_in_use_is_closed_also_above_a_young_one(fake, monkeypatch):
    clock = Clock(monkeypatch)
    pool = fake.pool(min_size=1, max_lifetime=3600, max_idle=10_000)
    old = pool.getconn()
    clock.now += 3000
    pool.resize(2, 2)
    clock.now += 700
    pool.putconn(old)
    assert [conn.number for conn in fake.open] == [2]


@pytest.mark.promise(9)
def test_connections_opened_together_do_not_expire_together(fake, monkeypatch):
    clock = Clock(monkeypatch, now=0.0)
    pool = fake.pool(min_size=20, max_lifetime=1000)
    left = {}
    for clock.now in range(949, 1001):
        pool.check()
        left[clock.now] = sum(not conn.closed for conn in fake.connections[:20])
    assert left[949] == 20 and left[1000] == 0
    assert len(set(left.values())) > 5  # they go little by little


@pytest.mark.promise(4)
def test_each_return_closes_one_expired_connection_from_the_bottom(fake, monkeypatch):
    clock = Clock(monkeypatch)
    pool = fake.pool(min_size=4, max_lifetime=1000, check_idle=10_000)
    clock.now += 940
    hot = pool.getconn()
    pool.putconn(hot, close=True)
    pool.check()  # opens a young one
    clock.now += 100  # the three at the bottom have expired
    for left in (3, 2, 1):
        pool.putconn(pool.getconn())
        assert pool.stats().idle == left
    pool.putconn(pool.getconn())
    assert looks(pool, "0 of 4 in use, 1 idle, 0 pending, 0 waiting")


@pytest.mark.promise(20)
def test_surplus_that_was_idle_for_too_long_is_closed_one_at_each_return(fake, monkeypatch):
    clock = Clock(monkeypatch)
    pool = fake.pool(min_size=1, max_size=4, max_idle=600, check_idle=10_000)
    for conn in take(pool, 4):
        pool.putconn(conn)
    clock.now += 599
    pool.putconn(pool.getconn())
    assert pool.stats().idle == 4
    clock.now += 1
    for left in (3, 2, 1, 1, 1):
        pool.putconn(pool.getconn())
        assert pool.stats().idle == left
    assert [conn.number for conn in fake.open] == [4]  # the one in use stays


# -- returning ----------------------------------------------------------------------------------


@pytest.mark.promise(11)
def test_a_block_commits_and_returns(fake):
    pool = fake.pool(min_size=1)
    fake.calls.clear()
    with pool.connection() as conn:
        assert conn is fake.connections[0]
        assert looks(pool, "1 of 1 in use, 0 idle, 0 pending, 0 waiting")
    assert [call for call, _ in fake.calls] == ["alive", "commit", "clean"]
    assert looks(pool, "0 of 1 in use, 1 idle, 0 pending, 0 waiting")


@pytest.mark.promise(11)
def test_an_exception_in_a_block_is_not_committed_and_costs_no_connection(fake):
    pool = fake.pool(min_size=1)
    with pytest.raises(ZeroDivisionError), pool.connection():
        1 / 0  # noqa: B018
    assert fake.count("commit") == 0
    assert looks(pool, "0 of 1 in use, 1 idle, 0 pending, 0 waiting")


@pytest.mark.promise(11)
@pytest.mark.parametrize("error", [OSError("lost"), KeyboardInterrupt(), SystemExit()])
def test_a_commit_that_fails_is_raised_and_costs_no_connection(fake, error):
    pool = fake.pool(min_size=1)
    fake.fail("commit", error)
    with pytest.raises(type(error)), pool.connection():
        pass
    assert looks(pool, "0 of 1 in use, 1 idle, 0 pending, 0 waiting")


@pytest.mark.promise(11)
def test_a_failing_return_never_replaces_the_bodys_error(fake):
    pool = fake.pool(min_size=1)
    fake.fail("close", OSError("broken pipe"))
    with pytest.raises(ZeroDivisionError), pool.connection() as conn:
        conn.hopeless = True
        1 / 0  # noqa: B018
    assert looks(pool, "0 of 1 in use, 0 idle, 0 pending, 0 waiting")


@pytest.mark.promise(12)
@pytest.mark.parametrize("wrong", ["hopeless", "closed"])
def test_a_connection_that_cannot_be_cleaned_is_closed_and_putconn_does_not_raise(fake, wrong):
    pool = fake.pool(min_size=1)
    conn = pool.getconn()
    setattr(conn, wrong, True)
    pool.putconn(conn)
    assert conn.closed and looks(pool, "0 of 1 in use, 0 idle, 0 pending, 0 waiting")
    assert pool.getconn().number == 2


@pytest.mark.promise(13)
@pytest.mark.parametrize("reset", ["rollback", "discard", None, print])
def test_each_connection_is_cleaned_on_return_in_the_way_that_the_pool_was_told(
    fake, monkeypatch, reset
):
    told = []
    monkeypatch.setattr(FakeSession, "clean", lambda session, reset: told.append(reset) or True)
    pool = fake.pool(min_size=1, reset=reset)
    pool.putconn(pool.getconn())
    with pool.connection():
        pass
    assert told == [reset, reset]


@pytest.mark.promise(12)
def test_close_true_closes_on_return(fake):
    pool = fake.pool(min_size=1)
    conn = pool.getconn()
    pool.putconn(conn, close=True)
    assert conn.closed and fake.count("clean") == 0
    assert looks(pool, "0 of 1 in use, 0 idle, 0 pending, 0 waiting")


@pytest.mark.promise(12)
def test_a_bad_return_makes_room_for_those_who_wait(fake):
    pool = fake.pool(min_size=1)
    conn = pool.getconn()
    (client,) = wait_in_line(pool, 1)
    conn.hopeless = True
    pool.putconn(conn)
    assert client.result().number == 2


@pytest.mark.promise(3)
def test_while_it_is_cleaned_a_connection_is_pending(fake):
    pool, before = fake.pool(min_size=1, max_size=1), threading.enumerate()
    conn = pool.getconn()
    with fake.block("clean") as gate:
        returning = Client(pool.putconn, conn)
        until(lambda: gate.waiting)
        assert looks(pool, "0 of 1 in use, 0 idle, 1 pending, 0 waiting")
        (client,) = wait_in_line(pool, 1)
        with pytest.raises(PoolTimeout):
            pool.getconn(0.001)  # who waits makes the pool grow, if it may: then there is a thread
        until(lambda: not growing(before))
        assert fake.count("connect") == 1  # there is no room for another
    returning.result()
    assert client.result() is conn


@pytest.mark.promise(14)
def test_a_second_return_and_a_foreign_one_are_told_apart(fake):
    pool, other = fake.pool(min_size=1), FakeDriver().pool(min_size=1)
    conn = pool.getconn()
    pool.putconn(conn)
    with pytest.raises(PoolError, match="can't return <fake.FakeConnection at .*returned already"):
        pool.putconn(conn)
    with pytest.raises(PoolError, match="to pool 'test': it is not one of this pool's"):
        pool.putconn(other.getconn())
    conn = pool.getconn()
    pool.putconn(conn, close=True)
    with pytest.raises(PoolError, match="returned already"):
        pool.putconn(conn)
    assert looks(pool, "0 of 1 in use, 0 idle, 0 pending, 0 waiting")


@pytest.mark.promise(14)
def test_of_two_returns_that_race_exactly_one_wins(fake):
    pool = fake.pool(min_size=1)
    for _ in range(20):
        conn = pool.getconn()
        gate = threading.Barrier(2)

        def give_back(conn=conn, gate=gate):
            gate.wait()
            try:
                pool.putconn(conn)
            except PoolError:
                return 0
            return 1

        assert sum(client.result() for client in [Client(give_back), Client(give_back)]) == 1
        assert looks(pool, "0 of 1 in use, 1 idle, 0 pending, 0 waiting")


@pytest.mark.promise(14)
def test_a_block_returns_its_own_checkout_and_no_other(fake):
    pool = fake.pool(min_size=1)
    with pytest.raises(PoolError, match="returned already"), pool.connection() as conn:
        pool.putconn(conn)
        assert pool.getconn() is conn  # lent again, to somebody else
    assert fake.count("commit") == 0
    assert looks(pool, "1 of 1 in use, 0 idle, 0 pending, 0 waiting")
    with pytest.raises(ZeroDivisionError):
        pool.putconn(conn)
        with pool.connection() as conn:
            pool.putconn(conn)
            1 / 0  # noqa: B018
    assert looks(pool, "0 of 1 in use, 1 idle, 0 pending, 0 waiting")


@pytest.mark.promise(14)
def test_a_block_does_not_return_what_was_lent_again_while_it_committed(fake):
    pool = fake.pool(min_size=1)

    def block():
        with pool.connection():
            pass

    with fake.block("commit") as gate:
        client = Client(block)
        until(lambda: gate.waiting)
        pool.putconn(fake.connections[0])
        conn = pool.getconn()
    with pytest.raises(PoolError, match="returned already"):
        client.result()
    assert [holder.conn for holder in pool.holders()] == [conn]


@pytest.mark.promise(11)
def test_a_generator_that_is_given_up_returns_its_connection(fake):
    pool = fake.pool(min_size=1)

    def rows():
        with pool.connection():
            yield 1
            yield 2

    reading = rows()
    next(reading)
    assert pool.stats().in_use == 1
    reading.close()
    assert looks(pool, "0 of 1 in use, 1 idle, 0 pending, 0 waiting")
    assert fake.count("commit") == 0


# -- Ctrl-C -------------------------------------------------------------------------------------


@pytest.mark.promise(8)
def test_ctrl_c_while_waiting_leaves_the_line(fake):
    pool = fake.pool(min_size=1)
    conn = pool.getconn()
    with interrupted(when=lambda: pool.stats().waiting == 1):
        pool.getconn()
    assert looks(pool, "1 of 1 in use, 0 idle, 0 pending, 0 waiting")
    pool.putconn(conn)
    assert looks(pool, "0 of 1 in use, 1 idle, 0 pending, 0 waiting")


@pytest.mark.promise(8)
def test_ctrl_c_as_a_connection_is_handed_over_passes_it_on(fake):
    pool = fake.pool(min_size=1)
    conn = pool.getconn()
    deadline = monotonic() + 0.02

    def hand_over_and_interrupt():
        pool.putconn(conn)
        raise KeyboardInterrupt

    before_the_lock(pool, lambda: monotonic() >= deadline, hand_over_and_interrupt)
    with pytest.raises(KeyboardInterrupt):
        pool.getconn(0.02)
    assert looks(pool, "0 of 1 in use, 1 idle, 0 pending, 0 waiting")
    assert pool.getconn(0) is conn


@pytest.mark.promise(8)
def test_ctrl_c_between_queueing_and_growing_does_not_end_growth(fake):
    pool = fake.pool(max_size=1)

    def interrupt(name, kind, number, where):
        if kind == "waiting":
            raise KeyboardInterrupt

    pool.on_event = interrupt
    with pytest.raises(KeyboardInterrupt):
        pool.getconn()
    pool.on_event = None
    assert looks(pool, "0 of 1 in use, 0 idle, 0 pending, 0 waiting")
    assert pool.getconn().number == 1


@pytest.mark.promise(8)
def test_ctrl_c_as_the_growing_thread_starts_does_not_end_growth(fake, monkeypatch):
    pool = fake.pool(max_size=1)

    def start(thread):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(KeyboardInterrupt):
            pool.getconn()
    assert looks(pool, "0 of 1 in use, 0 idle, 0 pending, 0 waiting")
    assert pool.getconn().number == 1


@pytest.mark.promise(8)
@pytest.mark.parametrize("what", ["alive", "ping"])
def test_ctrl_c_while_polling_frees_the_slot(fake, what):
    pool = fake.pool(min_size=1, check_idle=0)
    fake.fail(what, KeyboardInterrupt(), times=1)
    with pytest.raises(KeyboardInterrupt):
        pool.getconn()
    # Nobody knows how far the question had come: it is not lent again.
    assert fake.open == [] and looks(pool, "0 of 1 in use, 0 idle, 0 pending, 0 waiting")
    assert pool.getconn().number == 2


@pytest.mark.promise(8)
def test_ctrl_c_while_discarding_a_dead_one_frees_the_slot(fake):
    pool = fake.pool(min_size=1)
    fake.connections[0].dead = True
    fake.fail("close", KeyboardInterrupt(), times=1)
    with pytest.raises(KeyboardInterrupt):
        pool.getconn()
    assert fake.count("close") == 1
    until(lambda: not pool.stats().pending)  # a connect had begun, since somebody waited
    assert pool.stats()[1:] == (0, len(fake.connections) - 1, 0, 0)
    assert pool.getconn().number == 2


@pytest.mark.promise(8)
@pytest.mark.parametrize("how", ["putconn", "with"])
def test_ctrl_c_while_cleaning_frees_the_slot(fake, how):
    pool = fake.pool(min_size=1)
    fake.fail("clean", KeyboardInterrupt(), times=1)
    with pytest.raises(KeyboardInterrupt):
        if how == "with":
            with pool.connection():
                pass
        else:
            pool.putconn(pool.getconn())
    assert fake.open == [] and looks(pool, "0 of 1 in use, 0 idle, 0 pending, 0 waiting")


@pytest.mark.promise(8)
def test_ctrl_c_while_cleaning_makes_room_for_those_who_wait(fake):
    pool = fake.pool(min_size=1)
    conn = pool.getconn()
    (client,) = wait_in_line(pool, 1)
    fake.fail("clean", KeyboardInterrupt(), times=1)
    with pytest.raises(KeyboardInterrupt):
        pool.putconn(conn)
    assert client.result().number == 2


@pytest.mark.promise(8)
def test_ctrl_c_while_cleaning_does_not_spare_the_expired(fake, monkeypatch):
    clock = Clock(monkeypatch)
    pool = fake.pool(min_size=2, max_lifetime=100, check_idle=1000)
    young = pool.getconn()
    clock.now += 101
    fake.fail("clean", KeyboardInterrupt(), times=1)
    with pytest.raises(KeyboardInterrupt):
        pool.putconn(young)
    assert not pool.stats().pending and len(fake.open) == pool.stats().idle


@pytest.mark.promise(8)
@pytest.mark.parametrize("what", ["close", "drain", "resize", "check"])
def test_ctrl_c_while_closing_loses_nothing(fake, what):
    pool = fake.pool(min_size=4)
    if what == "check":
        for conn in fake.connections:
            conn.dead = True
    fake.fail("close", KeyboardInterrupt(), times=1)
    with pytest.raises(KeyboardInterrupt):
        {
            "close": pool.close,
            "drain": pool.drain,
            "check": pool.check,
            "resize": lambda: pool.resize(0, 1),
        }[what]()
    assert pool.stats() == (pool.max_size, 0, 3, 0, 0)
    assert pool.close() == []
    assert pool.stats() == (pool.max_size, 0, 0, 0, 0)
    assert [conn.number for conn in fake.open] == [1]  # the very close that was interrupted


@pytest.mark.promise(8)
def test_ctrl_c_while_a_connect_of_check_runs_frees_the_slot(fake):
    pool = fake.pool(min_size=1)
    fake.connections[0].dead = True
    fake.fail("connect", KeyboardInterrupt(), times=1)
    with pytest.raises(KeyboardInterrupt):
        pool.check()
    assert looks(pool, "0 of 1 in use, 0 idle, 0 pending, 0 waiting")


@pytest.mark.promise(8)
def test_ctrl_c_while_close_waits_leaves_a_closed_pool(fake):
    pool = fake.pool(min_size=1)
    client = Client(pool.getconn)
    conn = client.result()
    with interrupted(when=lambda: pool.closed):
        pool.close()
    assert [holder.conn for holder in pool.close(timeout=0)] == [conn]
    pool.putconn(conn)
    assert conn.closed


# -- deadlock -----------------------------------------------------------------------------------


@pytest.mark.promise(17)
def test_a_thread_that_waits_for_itself_is_told_at_once(fake):
    pool = fake.pool(max_size=2)

    def nested():
        with pool.connection(), pool.connection(), pool.connection():
            pass

    with pytest.raises(PoolDeadlock) as caught:
        nested()
    assert re.fullmatch(
        r"pool 'test': deadlock: whoever holds a connection waits here for another one "
        r"\(2 of 2 in use, 0 idle, 0 pending, 1 waiting\); held by: "
        r"MainThread for 0\.\d s at test_pool\.py:\d+ in nested, "
        r"MainThread for 0\.\d s at test_pool\.py:\d+ in nested; "
        r"check out once, and hand the connection on",
        str(caught.value),
    )
    assert looks(pool, "0 of 2 in use, 2 idle, 0 pending, 0 waiting")


@pytest.mark.promise(17)
def test_threads_that_wait_for_each_other_are_told_and_the_rest_goes_on(fake):
    pool = fake.pool(max_size=3)
    gate = threading.Barrier(3)

    def client():
        with pool.connection():
            gate.wait(5)
            try:
                with pool.connection():
                    return "served"
            except PoolDeadlock:
                return "deadlock"

    clients = [Client(client) for _ in range(3)]
    assert sorted(client.result() for client in clients) == ["deadlock", "served", "served"]
    assert looks(pool, "0 of 3 in use, 3 idle, 0 pending, 0 waiting")


@pytest.mark.promise(17)
def test_a_bare_getconn_is_no_deadlock(fake):
    pool = fake.pool(max_size=2)
    conn = pool.getconn()
    with pool.connection():
        with pytest.raises(PoolTimeout) as caught:
            pool.getconn(0.005)
        assert type(caught.value) is PoolTimeout
        Client(lambda: (until(lambda: pool.stats().waiting), pool.putconn(conn)))
        assert pool.getconn() is conn  # anybody may return it: here another thread did


@pytest.mark.promise(17)
def test_while_one_is_being_cleaned_there_is_no_deadlock(fake):
    pool = fake.pool(max_size=2)
    other = pool.getconn()
    with pool.connection(), fake.block("clean") as gate:
        returning = Client(pool.putconn, other)
        until(lambda: gate.waiting)
        Client(lambda: (until(lambda: pool.stats().waiting), gate.open()))
        assert pool.getconn() is other
        returning.result()


@pytest.mark.promise(17)
def test_where_there_is_room_there_is_no_deadlock(fake, pauses):
    pool = fake.pool(max_size=2)
    with pool.connection(), fake.block("connect"), pytest.raises(PoolTimeout) as caught:
        pool.getconn(0.005)
    assert type(caught.value) is PoolTimeout


@pytest.mark.promise(17)
def test_a_holder_that_does_not_wait_is_no_deadlock(fake):
    pool = fake.pool(max_size=2)
    release = threading.Event()

    def other():
        with pool.connection():
            release.wait(5)

    client = Client(other)
    until(lambda: pool.stats().in_use == 1)
    with pool.connection():
        with pytest.raises(PoolTimeout) as caught:
            pool.getconn(0.005)
        assert type(caught.value) is PoolTimeout
        release.set()
        client.result()
        pool.putconn(pool.getconn())


@pytest.mark.promise(17)
def test_a_thread_with_a_dead_ones_ident_is_not_taken_for_it(fake):
    def enter(pool):
        lending = pool.connection()
        lending.__enter__()
        return lending, threading.get_ident()

    def ask(pool):
        with pytest.raises(PoolTimeout) as caught:
            pool.getconn(0.001)
        return type(caught.value), threading.get_ident()

    for _ in range(100):  # until the system gives an ident to a second thread: mostly at once
        pool = fake.pool(max_size=1)
        lending, dead = Client(enter, pool).result()
        error, ident = Client(ask, pool).result()
        assert error is PoolTimeout
        lending.__exit__(None, None, None)
        if ident == dead:
            return
    pytest.skip("no thread got the ident of one that had ended")


@pytest.mark.promise(17)
def test_detecting_deadlocks_can_be_switched_off(fake):
    pool = fake.pool(max_size=1, detect_deadlock=False)
    with pool.connection(), pytest.raises(PoolTimeout) as caught:
        pool.getconn(0.005)
    assert type(caught.value) is PoolTimeout


# -- closing ------------------------------------------------------------------------------------


@pytest.mark.promise(18)
def test_a_closed_pool_lends_nothing_and_nobody_waits_for_it(fake):
    with fake.pool(min_size=2) as pool:
        assert pool in live_pools()
    assert pool.closed and fake.open == []
    assert repr(pool) == (
        "<ConnectionPool 'test': closed, 0 of 2 in use, 0 idle, 0 pending, 0 waiting>"
    )
    assert pool not in live_pools()
    with pytest.raises(PoolClosed, match="pool 'test' is closed"):
        Client(pool.getconn, 60).result()
    with pytest.raises(PoolClosed), pool.connection():
        pass
    assert pool.close() == pool.closeall() == []
    pool.drain(), pool.check(), pool.resize(2, 3)
    assert fake.open == []


@pytest.mark.promise(18)
def test_nothing_is_lent_from_the_moment_in_which_close_begins(fake):
    pool = fake.pool(min_size=3)
    with fake.block("close") as gate:
        closing = Client(pool.close)
        until(lambda: gate.waiting)  # at the first of three
        with pytest.raises(PoolClosed):
            pool.getconn(0)
    assert closing.result() == [] and fake.open == []


@pytest.mark.promise(18)
def test_close_wakes_everybody_in_line(fake):
    pool = fake.pool(min_size=1)
    pool.getconn()
    clients = wait_in_line(pool, 3)
    pool.close()
    for client in clients:
        with pytest.raises(PoolClosed, match="'test' is closed"):
            client.result()
    assert pool.stats().waiting == 0


@pytest.mark.promise(18)
def test_close_waits_for_what_others_have_checked_out(fake):
    pool = fake.pool(min_size=2)
    conn = Client(pool.getconn).result()
    closing = Client(pool.close)
    until(lambda: pool.closed and pool.stats() == (2, 1, 0, 0, 0))
    assert not conn.closed  # never under its client
    pool.putconn(conn)
    assert conn.closed and closing.result() == []


@pytest.mark.promise(18)
def test_two_who_close_at_once_both_come_back(fake):
    pool = fake.pool(min_size=1)
    conn = Client(pool.getconn).result()
    closing = [Client(pool.close, 60) for _ in range(3)]
    until(lambda: pool.closed)
    pool.putconn(conn)
    assert [client.result() for client in closing] == [[], [], []]


@pytest.mark.promise(18)
def test_close_returns_who_still_holds_and_their_returns_are_closed(fake):
    pool = fake.pool(min_size=1)
    conn = Client(pool.getconn).result()
    (holder,) = pool.close(timeout=0.005)
    assert holder.conn is conn and not conn.closed
    pool.putconn(conn)
    assert conn.closed
    assert repr(pool).startswith("<ConnectionPool 'test': closed, 0 of 1 in use, 0 idle, 0 pending")


@pytest.mark.promise(18)
def test_close_never_waits_for_the_callers_own_checkouts(fake):
    pool = fake.pool(min_size=2)

    def task():
        mine = pool.getconn()
        with pool.connection() as block:
            assert [holder.conn for holder in pool.close(timeout=60)] == [mine, block]
        assert block.closed and not mine.closed
        pool.putconn(mine)
        assert mine.closed

    Client(task).result()  # which comes at once


@pytest.mark.promise(18)
def test_close_while_connecting_waits_for_the_connect_and_closes_it(fake):
    pool = fake.pool(max_size=1)
    with fake.block("connect") as gate:
        (client,) = wait_in_line(pool, 1)
        until(lambda: gate.waiting)
        closing = Client(pool.close)
        with pytest.raises(PoolClosed):
            client.result()
        assert closing.is_alive()
        assert pool.stats() == (1, 0, 0, 1, 0)
    assert closing.result() == [] and fake.open == []


@pytest.mark.promise(18)
def test_close_gives_up_on_a_connect_that_hangs(fake):
    pool = fake.pool(max_size=1)
    with fake.block("connect") as gate:
        wait_in_line(pool, 1)
        until(lambda: gate.waiting)
        assert pool.close(timeout=0.005) == []
        assert pool.stats().pending == 1
    until(lambda: fake.connections and not fake.open)
    assert pool.stats().pending == 0


@pytest.mark.promise(15, 18)
def test_close_during_a_back_off_ends_growth(fake, monkeypatch):
    pool, before = fake.pool(max_size=1), threading.enumerate()
    pause = threading.Event()
    monkeypatch.setattr(poolkit.opening, "sleep", lambda seconds: pause.wait(5))
    fake.fail("connect", OSError("refused"), times=1)
    (client,) = wait_in_line(pool, 1)
    until(lambda: fake.count("connect") == 1 and not pool.stats().pending)
    assert pool.close(timeout=60) == []
    with pytest.raises(PoolClosed):
        client.result()
    pause.set()
    until(lambda: not growing(before))
    assert fake.count("connect") == 1


@pytest.mark.promise(18)
def test_close_survives_connections_that_cannot_be_closed(fake):
    pool = fake.pool(min_size=3)
    fake.fail("close", OSError("broken pipe"))
    assert pool.close() == []
    assert fake.count("close") == 3


@needs_fork
@pytest.mark.promise(19)
def test_a_forked_child_starts_empty_and_closes_nothing_of_its_parents(fake):
    pool = fake.pool(min_size=2)
    conn = pool.getconn()

    def child():
        assert looks(pool, "0 of 2 in use, 0 idle, 0 pending, 0 waiting")
        with pytest.raises(PoolError, match="not one of this pool's"):
            pool.putconn(conn)
        with pool.connection() as mine:
            assert mine.number == 3
        assert [holder.conn for holder in pool.close()] == []
        assert [call for call in fake.calls if call[0] == "close"] == [("close", 3)]

    with pool._lock:  # as a thread that the child does not have may have it
        assert forked(child) == "went well"
    assert looks(pool, "1 of 2 in use, 1 idle, 0 pending, 0 waiting")


@needs_fork
@pytest.mark.promise(19)
def test_in_a_forked_child_the_parents_connections_are_kept_and_never_finalized(fake):
    fake.pool(min_size=2)
    kept = weakref.WeakSet(fake.connections)
    fake.connections.clear()

    def child():
        gc.collect()
        assert len(kept) == 2  # else what a driver does at an object's end would reach the server

    assert forked(child) == "went well"


def test_a_pool_that_is_dropped_is_forgotten(fake):
    pool = fake.pool(min_size=1)
    gone = weakref.ref(pool)
    fake.watched = None
    del pool
    gc.collect()
    assert gone() is None


# -- running it ---------------------------------------------------------------------------------


@pytest.mark.promise(20)
def test_resize_up_opens_what_min_size_asks_for(fake):
    pool = fake.pool(max_size=1)
    pool.resize(2, 4)
    assert (pool.min_size, pool.max_size) == (2, 4)
    assert looks(pool, "0 of 4 in use, 2 idle, 0 pending, 0 waiting")


@pytest.mark.promise(20)
def test_resize_up_serves_those_who_wait(fake):
    pool = fake.pool(max_size=1)
    pool.getconn()
    clients = wait_in_line(pool, 2)
    pool.resize(0, 3)
    assert {client.result().number for client in clients} == {2, 3}


@pytest.mark.promise(20)
def test_resize_down_closes_the_surplus_now_or_on_return(fake):
    pool = fake.pool(min_size=5)
    held = take(pool, 3)
    pool.resize(0, 2)
    assert looks(pool, "3 of 2 in use, 0 idle, 0 pending, 0 waiting")
    pool.putconn(held[0])
    assert looks(pool, "2 of 2 in use, 0 idle, 0 pending, 0 waiting")
    assert held[0].closed
    pool.putconn(held[1])
    pool.putconn(held[2])
    assert looks(pool, "0 of 2 in use, 2 idle, 0 pending, 0 waiting")


@pytest.mark.promise(20)
def test_resize_down_below_what_is_lent_does_not_serve_those_who_wait(fake):
    pool = fake.pool(min_size=3)
    held = take(pool, 3)
    (client,) = wait_in_line(pool, 1)
    pool.resize(0, 1)
    pool.putconn(held[0])
    pool.putconn(held[1])
    assert looks(pool, "1 of 1 in use, 0 idle, 0 pending, 1 waiting")
    pool.putconn(held[2])
    assert client.result() is held[2]


@pytest.mark.promise(3, 20)
def test_resize_while_connecting_never_exceeds_the_new_limit(fake):
    pool = fake.pool(max_size=2)
    conn = pool.getconn()
    with fake.block("connect") as gate:
        (client,) = wait_in_line(pool, 1)
        until(lambda: gate.waiting)
        pool.resize(0, 1)
    until(lambda: looks(pool, "1 of 1 in use, 0 idle, 0 pending, 1 waiting"))
    assert fake.open == [conn]
    pool.putconn(conn)
    assert client.result() is conn


def test_drain_replaces_every_connection(fake):
    pool = fake.pool(min_size=3)
    held = pool.getconn()
    pool.drain()
    assert looks(pool, "1 of 3 in use, 2 idle, 0 pending, 0 waiting")
    assert [conn.number for conn in fake.open] == [held.number, 4, 5]
    pool.putconn(held)
    assert held.closed


def test_drain_replaces_what_was_being_opened(fake):
    pool = fake.pool(max_size=1)
    with fake.block("connect") as gate:
        (client,) = wait_in_line(pool, 1)
        until(lambda: gate.waiting)
        pool.drain()  # new credentials, say: the connect under way has the old ones
    assert client.result().number == 2
    assert fake.connections[0].closed


@pytest.mark.promise(20)
def test_check_closes_the_dead_and_fills_up(fake):
    pool = fake.pool(min_size=3)
    fake.connections[0].dead = True
    fake.connections[2].mute = True
    pool.check()
    assert [conn.number for conn in fake.open] == [2, 4, 5]
    assert looks(pool, "0 of 3 in use, 3 idle, 0 pending, 0 waiting")


@pytest.mark.promise(20)
def test_check_closes_surplus_however_often_it_is_called(fake, monkeypatch):
    clock = Clock(monkeypatch)
    pool = fake.pool(min_size=1, max_size=3, max_idle=600)
    for conn in take(pool, 3):
        pool.putconn(conn)
    for _ in range(9):
        clock.now += 60
        pool.check()
    assert pool.stats().idle == 3
    clock.now += 60
    pool.check()
    assert pool.stats().idle == 1


def test_check_raises_what_the_server_says_and_loses_nothing(fake):
    pool = fake.pool(min_size=2)
    fake.connections[0].dead = True
    fake.fail("connect", OSError("refused"))
    with pytest.raises(OSError, match="refused"):
        pool.check()
    assert looks(pool, "0 of 2 in use, 1 idle, 0 pending, 0 waiting")


# -- telling ------------------------------------------------------------------------------------


def test_the_pool_tells_what_happens_in_order(fake):
    record = Recorder()
    with fake.pool(max_size=1, on_event=record) as pool:
        with pool.connection(), pytest.raises(PoolDeadlock):
            pool.getconn()
        conn = pool.getconn()
        with pytest.raises(PoolTimeout):
            pool.getconn(0.001)
        pool.putconn(conn)
    assert [(event.kind, event.conn) for event in record.events] == [
        ("waiting", None),
        ("opening", 1),
        ("opened", 1),
        ("checkout", 1),
        ("refused", None),
        ("return", 1),
        ("checkout", 1),
        ("waiting", None),
        ("timeout", None),
        ("return", 1),
        ("closed", 1),
    ]
    assert [wait.outcome for wait in waits(record.events)] == ["checkout", "timeout"]
    assert all(checkout.end for checkout in checkouts(record.events))
    asked = [event for event in record.events if event.kind in ("waiting", "checkout", "refused")]
    assert all("test_pool.py:" in event.where for event in asked)


def test_a_return_is_told_before_the_next_checkout_of_that_connection(fake):
    record = Recorder()
    pool = fake.pool(max_size=2, on_event=record)

    def client():
        for _ in range(20):
            with pool.connection():
                pass

    for each in [Client(client) for _ in range(4)]:
        each.result()
    held = set()
    for event in record.events:
        if event.kind == "checkout":
            assert event.conn not in held
            held.add(event.conn)
        elif event.kind == "return":
            held.remove(event.conn)
    assert held == set()


def test_a_connect_that_fails_is_told(fake):
    record = Recorder()
    fake.fail("connect", OSError("refused"))
    with pytest.raises(OSError):
        fake.pool(min_size=1, on_event=record)
    assert [(event.kind, event.conn) for event in record.events] == [("opening", 1), ("failed", 1)]


KINDS = ["opening", "opened", "waiting", "checkout", "return", "closed"]


@pytest.mark.parametrize("kind", KINDS)
def test_an_on_event_that_raises_is_called_no_more_and_costs_nothing(fake, kind):
    def on_event(name, what, number, where):
        if what == kind:
            raise ValueError("no disk")

    with pytest.warns(RuntimeWarning, match=r"on_event of pool 'test' raised ValueError\('no disk"):
        pool = fake.pool(max_size=1, on_event=on_event)
        # connects here, so that the warning comes in this thread
        pool.resize(1, 1)
        conn = pool.getconn()
        with pytest.raises(PoolTimeout):
            pool.getconn(0.001)
        pool.putconn(conn)
        pool.drain()
    assert pool.on_event is None
    assert looks(pool, "0 of 1 in use, 1 idle, 0 pending, 0 waiting")


@pytest.mark.promise(8)
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeWarning])
@pytest.mark.parametrize("kind", [*KINDS, "timeout", "refused", "failed"])
@pytest.mark.filterwarnings("error")
def test_whatever_leaves_on_event_costs_no_slot(fake, pauses, kind, error):
    # A RuntimeWarning: what comes of an error in it where warnings are errors.
    seen = []

    def on_event(name, what, number, where):
        if what == kind and not seen:
            seen.append(what)
            raise KeyboardInterrupt if error is KeyboardInterrupt else ValueError("no disk")

    pool = fake.pool(max_size=1)
    pool.on_event = on_event

    def attempt(call, *args):
        try:
            return call(*args)
        except (KeyboardInterrupt, PoolError, OSError, RuntimeWarning):
            return None

    def lend_and_return():
        for conn in [attempt(pool.getconn, seconds) for seconds in (2, 0.001, 0)]:
            if conn is not None:
                attempt(pool.putconn, conn)

    fake.fail("connect", OSError("refused"), times=1)
    attempt(lend_and_return)
    attempt(lend_and_return)
    attempt(pool.drain)
    pool.on_event = None
    assert seen == [kind]
    until(lambda: not pool.stats().pending)
    assert pool.stats() == (1, 0, len(fake.open), 0, 0)
    pool.putconn(pool.getconn())
    assert looks(pool, "0 of 1 in use, 1 idle, 0 pending, 0 waiting")


def test_on_event_may_be_taken_away_at_any_time(fake):
    pool = fake.pool(min_size=1)

    def once(*event):
        pool.on_event = None

    pool.on_event = once
    pool.putconn(pool.getconn())
    assert looks(pool, "0 of 1 in use, 1 idle, 0 pending, 0 waiting")


# -- all at once --------------------------------------------------------------------------------


@pytest.mark.promise(21)
def test_nothing_is_asked_of_a_database_under_the_lock(fake, monkeypatch):
    clock = Clock(monkeypatch)
    with fake.pool(min_size=2, max_size=3, max_idle=60, configure=lambda conn: None) as pool:
        with pool.connection(), pool.connection(), pool.connection() as last:
            last.hopeless = True
        clock.now += 90
        pool.putconn(pool.getconn())
        pool.check(), pool.resize(1, 1), pool.drain()
    kinds = {what for what, _ in fake.calls}
    assert kinds == {"connect", "remember", "alive", "ping", "commit", "clean", "close"}
    assert fake.under_lock == []  # each of them had looked whether it can have the lock


@pytest.mark.promise(3)
def test_under_chaos_the_limit_holds_and_nothing_is_lost(fake, pauses):
    pool, before = fake.pool(max_size=4, check_idle=0, max_waiting=9), threading.enumerate()
    wrong = []

    def look(*event):
        stats = pool.stats()
        if stats.in_use + stats.idle + stats.pending > 4 or stats.idle and stats.waiting:
            wrong.append(stats)

    pool.on_event = look

    def client(i):
        for k in range(40):
            try:
                with pool.connection(0.05 if k % 5 else 0.0) as conn:
                    if (i + k) % 7 == 0:
                        conn.dead = True
                    if (i + k) % 11 == 0:
                        conn.hopeless = True
                    if (i * k) % 13 == 1:
                        raise ValueError
                if (i + k) % 9 == 0:
                    fake.fail("connect", OSError("refused"), times=1)
                if k == 20:
                    pool.drain()
            except (ValueError, PoolTimeout, TooManyRequests, OSError):
                pass

    for each in [Client(client, i) for i in range(12)]:
        each.result(20)
    until(lambda: not growing(before))
    assert wrong == []
    assert pool.stats() == (4, 0, len(fake.open), 0, 0)
    pool.close()
    assert fake.open == []


def test_what_the_constructor_takes_is_documented():
    names = list(ConnectionPool.__init__.__kwdefaults__)
    assert [name for name in names if name not in ("driver", "min_size", "max_size", "name")] == (
        re.findall(r"^(\w+) {2,}\w", inspect.getdoc(ConnectionPool), re.M)
    )
