"""A server that looks far away: what is late, what is counted, and what is left afterwards."""

import socket
import threading
import time
from contextlib import closing

import psycopg2
import pytest
from psycopg2.extensions import parse_dsn

from classroom.distance import Distance
from poolkit import together

pytestmark = pytest.mark.server


@pytest.fixture
def far(dsn):
    """A Distance of nothing, until a test sets its `rtt`."""
    with Distance(dsn) as far:
        yield far


def trips_of(far, function, *args):
    before = far.trips
    function(*args)
    return far.trips - before


def ask(conn, sql="select 1"):
    with conn.cursor() as cur:
        cur.execute(sql)
        return cur.fetchone()[0]


def seconds(function, *args):
    before = time.monotonic()
    function(*args)
    return time.monotonic() - before


def test_the_same_server_answers_through_it(dsn, far):
    with closing(psycopg2.connect(dsn)) as near, closing(psycopg2.connect(far.dsn)) as conn:
        mine = "select current_user || current_database() || current_setting('application_name')"
        assert ask(conn, mine) == ask(near, mine)
        assert conn.info.port != near.info.port


def test_a_statement_is_one_round_trip_and_a_transaction_two_more(far):
    with closing(psycopg2.connect(far.dsn)) as conn:
        assert trips_of(far, lambda: (ask(conn), conn.commit())) == 3
        conn.autocommit = True
        assert trips_of(far, ask, conn) == 1
        assert trips_of(far, ask, conn, "select repeat('x', 5000000)") == 1


def test_a_connect_with_a_password_is_four_round_trips(server, far):
    if server.kind != "private":
        pytest.skip("how a server checks who connects is its own affair; try: unset POOLKIT_DSN")
    conns = []
    assert trips_of(far, lambda: conns.append(psycopg2.connect(far.dsn))) == 4
    assert trips_of(far, conns[0].close) == 0


def test_every_round_trip_takes_as_long_as_it_says(far):
    far.rtt = 0.03
    before = time.monotonic()
    with closing(psycopg2.connect(far.dsn)) as conn:
        assert time.monotonic() - before >= 0.03 * far.trips
        assert seconds(lambda: (ask(conn), conn.commit())) >= 3 * 0.03
        conn.autocommit = True
        assert seconds(ask, conn) >= 0.03


def test_the_distance_may_change_while_connections_are_open(far):
    with closing(psycopg2.connect(far.dsn)) as conn:
        conn.autocommit = True
        far.rtt = 0.25
        assert seconds(ask, conn) >= 0.25
        far.rtt = 0.0
        assert seconds(ask, conn) < 0.25


def test_connections_do_not_wait_for_each_other(far):
    far.rtt = 0.1

    def connect(_):
        with closing(psycopg2.connect(far.dsn)) as conn:
            return ask(conn)

    before = time.monotonic()
    assert [outcome.result for outcome in together(connect, 6)] == [1] * 6
    assert time.monotonic() - before < 0.1 * far.trips / 2  # one by one: all of it


def test_what_is_sent_arrives_whole_and_in_order(far):
    far.rtt = 0.002
    sent = "".join(f"{n:07}" for n in range(300_000))
    with closing(psycopg2.connect(far.dsn)) as conn, conn.cursor() as cur:
        cur.execute("select %s || 'end'", (sent,))
        assert cur.fetchone()[0] == sent + "end"


def test_the_servers_refusal_comes_through(far):
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        psycopg2.connect(far.dsn, password="wrong")


def test_the_end_of_a_backend_comes_through(far):
    with closing(psycopg2.connect(far.dsn)) as conn:
        with pytest.raises(psycopg2.OperationalError):
            ask(conn, "select pg_terminate_backend(pg_backend_pid())")


def test_closing_it_cuts_what_is_connected(dsn):
    with Distance(dsn) as far:
        conn = psycopg2.connect(far.dsn)
    with pytest.raises(psycopg2.OperationalError):
        ask(conn)
    with pytest.raises(psycopg2.OperationalError, match="refused"):
        psycopg2.connect(far.dsn)
    conn.close()


def test_it_leaves_no_thread_and_may_be_closed_twice(dsn):
    before = threading.active_count()
    far = Distance(dsn)
    with closing(psycopg2.connect(far.dsn)):
        assert threading.active_count() == before + 2
        far.close()
    far.close()
    assert threading.active_count() == before


def test_its_address_shows_no_password(dsn, far):
    assert parse_dsn(dsn)["password"] in str(far.dsn)
    assert parse_dsn(dsn)["password"] not in repr(far.dsn)


def test_who_says_nothing_does_not_reach_the_server(far):
    with socket.create_connection(("127.0.0.1", int(parse_dsn(far.dsn)["port"]))):
        pass
    with closing(psycopg2.connect(far.dsn)) as conn:
        assert ask(conn) == 1


@pytest.mark.parametrize("rtt", [-0.001, float("nan"), float("inf")])
def test_a_distance_that_is_none_is_refused(rtt):
    with pytest.raises(ValueError, match="rtt must be a number of seconds"):
        Distance("no server is asked", rtt)
