"""What a recorder keeps, and what is made of it."""

from contextlib import closing

import psycopg2
import pytest
from fake import FakeDriver
from psycopg2.extensions import make_dsn
from psycopg2.pool import PoolError, SimpleConnectionPool, ThreadedConnectionPool

from poolkit import Checkout, Event, Recorder, Unpooled, Wait, checkouts, waits


def events(*rows):
    """Events of one pool: (at, kind, client, conn)."""
    return [Event(at, kind, "web", client, conn, "app.py:1") for at, kind, client, conn in rows]


def kinds(record):
    return [(event.kind, event.conn) for event in record.events]


def test_a_recorder_keeps_what_it_is_told_with_time_and_thread():
    record = Recorder()
    record("web", "checkout", 3, "app.py:12 in handle")
    record("web", "timeout")
    first, second = record.events
    assert first[1:] == ("checkout", "web", "MainThread", 3, "app.py:12 in handle")
    assert second[1:] == ("timeout", "web", "MainThread", None, None)
    assert 0 <= second.at - first.at < 1
    assert repr(record) == "<Recorder: 2 events>"
    record.clear()
    assert record.events == []


def test_watching_a_pool_begins_and_ends_at_any_time():
    record = Recorder()
    pool = FakeDriver().pool(min_size=1)
    assert record.watch(pool) is pool
    pool.putconn(pool.getconn())
    record.unwatch(pool)
    pool.putconn(pool.getconn())
    assert kinds(record) == [("checkout", 1), ("return", 1)]


def test_checkouts_pairs_each_checkout_with_its_return():
    happened = events(
        (1.0, "checkout", "a", 1),
        (2.0, "checkout", "b", 2),
        (3.0, "return", "a", 1),
        (4.0, "checkout", "b", 1),
        (5.0, "return", "c", 1),  # by another thread than took it
    )
    assert checkouts(happened) == [
        Checkout("web", 1, "a", "app.py:1", 1.0, 3.0),
        Checkout("web", 2, "b", "app.py:1", 2.0, None),
        Checkout("web", 1, "b", "app.py:1", 4.0, 5.0),
    ]
    assert [out.end for out in checkouts(happened, until=4.5)] == [3.0, None, None]


def test_a_connection_closed_under_its_client_ends_the_checkout():
    happened = events((1.0, "checkout", "a", 1), (2.0, "closed", "a", 1), (3.0, "return", "a", 1))
    assert [(out.start, out.end) for out in checkouts(happened)] == [(1.0, 2.0)]


def test_a_return_of_what_was_never_seen_lent_is_ignored():
    assert checkouts(events((1.0, "return", "a", 1), (2.0, "closed", "a", 1))) == []


def test_two_pools_are_kept_apart():
    ours = events((1.0, "checkout", "a", 1), (1.5, "waiting", "b", None))
    theirs = [event._replace(pool="batch") for event in ours]
    happened = ours + theirs + events((2.0, "return", "a", 1), (2.0, "checkout", "b", 1))
    assert [(out.pool, out.end) for out in checkouts(happened)][:2] == [
        ("web", 2.0),
        ("batch", None),
    ]
    assert {(wait.pool, wait.outcome) for wait in waits(happened)} == {
        ("web", "checkout"),
        ("batch", "waiting"),
    }


def test_waits_say_how_each_ended():
    happened = events(
        (1.0, "waiting", "a", None),
        (2.0, "waiting", "b", None),
        (3.0, "waiting", "c", None),
        (4.0, "checkout", "a", 1),
        (5.0, "timeout", "b", None),
        (6.0, "refused", "d", None),
    )
    assert waits(happened) == [
        Wait("web", "a", 1.0, 4.0, "checkout"),
        Wait("web", "b", 2.0, 5.0, "timeout"),
        Wait("web", "c", 3.0, None, "waiting"),
    ]
    assert [wait.outcome for wait in waits(happened, until=3.5)] == ["waiting"] * 3


def test_who_has_to_wait_again_has_waited_once():
    happened = events(
        (1.0, "waiting", "a", None),
        (2.0, "waiting", "a", None),  # what it got was dead
        (3.0, "checkout", "a", 2),
    )
    assert waits(happened) == [Wait("web", "a", 1.0, 3.0, "checkout")]


def test_events_out_of_order_are_put_in_order():
    happened = events((3.0, "return", "a", 1), (1.0, "checkout", "a", 1))
    assert [(out.start, out.end) for out in checkouts(happened)] == [(1.0, 3.0)]


def test_no_events_are_no_checkouts_and_no_waits():
    assert checkouts([]) == waits([]) == []


def test_unpooled_tells_the_same_story():
    record = Recorder()
    with Unpooled(driver=FakeDriver(), on_event=record).connection():
        pass
    assert kinds(record) == [
        (kind, 1) for kind in ("opening", "opened", "checkout", "return", "closed")
    ]
    assert record.events[2].where.startswith("test_recorder.py:")


@pytest.mark.server
@pytest.mark.parametrize("Pool", [SimpleConnectionPool, ThreadedConnectionPool])
def test_psycopg2s_own_pools_can_be_watched(dsn, Pool):
    record = Recorder()
    pool = record.watch(Pool(1, 2, dsn))
    a, b = pool.getconn(), pool.getconn(key="b")
    with pytest.raises(PoolError, match="exhausted"):
        pool.getconn()
    pool.putconn(b, key="b")
    pool.putconn(a)  # above minconn: psycopg2 closes it
    pool.closeall()
    assert kinds(record) == [
        ("opened", 1),
        ("checkout", 1),
        ("opened", 2),
        ("checkout", 2),
        ("refused", None),
        ("return", 2),
        ("return", 1),
        ("closed", 1),
        ("closed", 2),
    ]
    assert {event.pool for event in record.events} == {Pool.__name__}
    assert all("test_recorder.py:" in e.where for e in record.events if e.kind == "checkout")


@pytest.mark.server
def test_a_connection_that_psycopg2_closes_on_return_is_told(dsn):
    record = Recorder()
    pool = record.watch(SimpleConnectionPool(1, 3, dsn))
    for _ in range(3):
        conns = [pool.getconn() for _ in range(3)]
        for conn in conns:
            pool.putconn(conn)
        del conn, conns
    pool.closeall()
    closed = [event.conn for event in record.events if event.kind == "closed"]
    opened = [event.conn for event in record.events if event.kind == "opened"]
    assert sorted(opened) == sorted(closed) == [1, 2, 3, 4, 5, 6, 7]  # no number comes twice


@pytest.mark.server
def test_a_return_that_psycopg2_refuses_raises_as_ever(dsn):
    record = Recorder()
    pool = record.watch(SimpleConnectionPool(1, 2, dsn))
    with pytest.raises(PoolError, match="unkeyed"):
        pool.putconn(None)
    with closing(psycopg2.connect(dsn)) as foreign, pytest.raises(PoolError, match="unkeyed"):
        pool.putconn(foreign)
    pool.closeall()
    assert kinds(record) == [("opened", 1), ("closed", 1)]


@pytest.mark.server
def test_two_recorders_of_one_psycopg2_pool_both_listen_and_leave(dsn):
    first, second = Recorder(), Recorder()
    pool = second.watch(first.watch(SimpleConnectionPool(1, 1, dsn)))
    pool.putconn(pool.getconn())
    second.unwatch(pool)
    pool.putconn(pool.getconn())
    first.unwatch(pool)
    pool.putconn(pool.getconn())
    second.unwatch(pool)
    pool.closeall()
    assert (len(first.events), len(second.events)) == (5, 3)
    assert "getconn" not in vars(pool)


@pytest.mark.server
def test_a_connect_that_fails_is_told(dsn):
    record = Recorder()
    nowhere = Unpooled(make_dsn(dsn, dbname="no_such_database"), on_event=record)
    with pytest.raises(psycopg2.OperationalError):
        nowhere.getconn()
    assert kinds(record) == [("opening", 1), ("failed", 1)]
