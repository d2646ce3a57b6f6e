"""The control without a pool has the same API, and no pool."""

import inspect

import psycopg2
import pytest
from fake import FakeDriver

from poolkit import ConnectionPool, PoolClosed, PoolError, Unpooled


@pytest.fixture
def fake():
    return FakeDriver()


def unpooled(fake, **arguments):
    return Unpooled(driver=fake, **arguments)


def test_each_checkout_connects_and_each_return_closes(fake):
    source = unpooled(fake)
    conn = source.getconn()
    assert repr(source) == "<Unpooled 'unpooled': 1 in use>"
    assert str(source.stats()) == "1 of 1 in use, 0 idle, 0 pending, 0 waiting"
    source.putconn(conn)
    assert conn.closed
    with source.connection() as other:
        assert other is not conn
    assert other.closed and fake.count("connect") == 2
    assert repr(source) == "<Unpooled 'unpooled': 0 in use>"


def test_a_block_commits_and_an_exception_does_not(fake):
    source = unpooled(fake)
    with source.connection():
        pass
    assert fake.count("commit") == 1
    with pytest.raises(KeyError), source.connection():
        raise KeyError
    assert fake.count("commit") == 1 and fake.open == []


@pytest.mark.parametrize("what", ["commit", "close"])
def test_a_commit_or_a_close_that_fails_is_raised_and_forgotten(fake, what):
    source = unpooled(fake)
    fake.fail(what, OSError("gone"))
    with pytest.raises(OSError, match="gone"), source.connection():
        pass
    assert source.stats().in_use == 0


def test_a_connect_that_fails_is_raised(fake):
    fake.fail("connect", OSError("refused"))
    with pytest.raises(OSError, match="refused"):
        unpooled(fake).getconn()


def test_holders_are_listed_the_longest_first(fake):
    source = unpooled(fake)
    first = source.getconn()
    second = source.getconn()
    assert [holder.conn for holder in source.holders()] == [first, second]
    assert source.holders()[0].where.startswith("test_unpooled.py:")
    assert source.holders(older_than=60) == []
    assert [holder.conn for holder in source.close()] == [first, second]


def test_once_closed_it_opens_nothing_but_takes_back(fake):
    with unpooled(fake, name="control") as source:
        conn = source.getconn()
    with pytest.raises(PoolClosed, match="pool 'control' is closed"):
        source.getconn()
    source.putconn(conn)
    assert conn.closed and source.closeall() == []


def test_a_second_return_and_a_foreign_one_are_told_apart(fake):
    source = unpooled(fake)
    conn = source.getconn()
    source.putconn(conn)
    with pytest.raises(PoolError, match="it was returned already"):
        source.putconn(conn)
    with pytest.raises(PoolError, match="it is not one of this pool's"):
        source.putconn(unpooled(FakeDriver()).getconn())
    with pytest.raises(PoolError, match="can't return None"):
        source.putconn(None)
    with pytest.raises(PoolError, match="returned already"), source.connection() as conn:
        source.putconn(conn)


def test_an_on_event_that_raises_is_called_no_more_and_costs_nothing(fake):
    def on_event(*event):
        raise ValueError("no disk")

    source = unpooled(fake, on_event=on_event)
    with pytest.warns(RuntimeWarning, match="it is called no more"), source.connection():
        pass
    assert fake.open == [] and source.on_event is None


@pytest.mark.parametrize("name", ["connection", "getconn", "putconn", "stats", "holders", "close"])
def test_it_is_called_as_a_pool_is(name):
    with_pool = inspect.signature(getattr(ConnectionPool, name)).parameters
    without = inspect.signature(getattr(Unpooled, name)).parameters
    assert list(with_pool) == list(without)


@pytest.mark.server
def test_every_checkout_has_a_backend_of_its_own(dsn):
    source = Unpooled(dsn)
    pids = []
    for _ in range(3):
        with source.connection() as conn, conn.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            pids.append(cursor.fetchone()[0])
    assert len(set(pids)) == 3
    with pytest.raises(PoolError, match="nothing was committed"), source.connection() as conn:
        with pytest.raises(psycopg2.errors.DivisionByZero), conn.cursor() as cursor:
            cursor.execute("SELECT 1/0")
    assert conn.closed
