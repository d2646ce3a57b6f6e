"""Notebook 02, the syntax: building a pool, and work that outlives its checkout."""

import psycopg2
from psycopg2.pool import AbstractConnectionPool, SimpleConnectionPool, ThreadedConnectionPool

from classroom.flights import board
from poolkit import together

from .judge import connect_beside
from .task import Exercise

# -- 02.open_pool --------------------------------------------------------------------------------


def open_pool(dsn):
    return ThreadedConnectionPool(2, 4, dsn)


def check_open_pool(judge, open_pool):
    pool = judge.call(open_pool, judge.dsn).result
    judge.expect(pool is not None, "it returned None: is a return missing?")
    judge.expect(
        isinstance(pool, AbstractConnectionPool),
        f"it returned a {type(pool).__name__}, and a pool of psycopg2.pool was expected",
    )
    pool = judge.watch(pool)
    at_once = judge.until(2)
    judge.expect(
        at_once == 2, f"the server has {at_once} connections of the new pool, and not two: minconn"
    )
    clients = 8
    outcomes = together(lambda i: pool.getconn(), clients=clients)
    served = sum(outcome.error is None for outcome in outcomes)
    judge.expect(
        served <= 4,
        f"{clients} threads asked at once and {served} were served, more than four: "
        "which of the two classes counts correctly with threads?",
    )
    judge.expect(
        served == 4, f"{clients} threads asked at once and {served} were served, not four: maxconn"
    )


def opens_nothing(dsn):
    return ()


def opens_a_connection(dsn):
    return psycopg2.connect(dsn)


def opens_the_simple_one(dsn):
    return SimpleConnectionPool(2, 4, dsn)


def opens_all_at_once(dsn):
    return ThreadedConnectionPool(4, 4, dsn)


def opens_the_wrong_way_round(dsn):
    return ThreadedConnectionPool(4, 2, dsn)


def opens_too_few(dsn):
    return ThreadedConnectionPool(2, 3, dsn)


OPEN_POOL = Exercise(
    name="02.open_pool",
    minutes=4,
    task="Write `open_pool(dsn)`: it returns one of psycopg2's pools for that address, which opens "
    "two connections at once and never has more than four, whoever asks.",
    accept=[
        "the server has two connections as soon as the pool is built",
        "of eight threads that ask at the same moment, four are served",
    ],
    hints=[
        "Three arguments: how many it opens and keeps, how many it may have, and the address.",
        "Only one of the two classes of `psycopg2.pool` counts correctly when threads share it.",
        "`ThreadedConnectionPool(minconn, maxconn, dsn)`, and `return` it.",
    ],
    solution=open_pool,
    check=check_open_pool,
    wrong=[
        (opens_nothing, "it returned a tuple"),
        (opens_a_connection, "a pool of psycopg2.pool was expected"),
        (opens_the_simple_one, "which of the two classes"),
        (opens_all_at_once, "has 4 connections of the new pool"),
        (opens_the_wrong_way_round, "has 4 connections of the new pool"),
        (opens_too_few, "3 were served, not four"),
    ],
)


# -- 02.count_passenger --------------------------------------------------------------------------


def count_passenger(pool, origin):
    conn = pool.getconn()
    try:
        passengers = board(conn, origin)
        conn.commit()
        return passengers
    finally:
        pool.putconn(conn)


def check_count_passenger(judge, count_passenger):
    def counted(origin="LGA"):
        return judge.value("select passengers from board.boarding where origin = %s", (origin,))

    pool = judge.psycopg2_pool(1, 2)
    before = counted()
    found = judge.call(count_passenger, pool, "LGA").result
    judge.expect_only(pool)
    judge.expect_returned("after a passenger was counted")
    judge.expect(
        counted() == before + 1,
        f"the table says {counted()} passengers, and {before + 1} were expected: "
        "a return rolls back what was not committed",
    )
    judge.expect_equal(found, before + 1, "for LGA")
    judge.call(count_passenger, pool, "an airport that is not there", raises=ValueError)
    judge.expect_returned("when there was no such airport")


def counts_nobody(pool, origin):
    return 1


def counts_beside(pool, origin):
    conn = connect_beside(pool)
    passengers = board(conn, origin)
    conn.commit()
    conn.close()
    return passengers


def counts_without_commit(pool, origin):
    conn = pool.getconn()
    try:
        return board(conn, origin)
    finally:
        pool.putconn(conn)


def commits_too_late(pool, origin):
    conn = pool.getconn()
    try:
        return board(conn, origin)
    finally:
        pool.putconn(conn)
        conn.commit()


def counts_without_return(pool, origin):
    conn = pool.getconn()
    passengers = board(conn, origin)
    conn.commit()
    return passengers


def counts_without_finally(pool, origin):
    conn = pool.getconn()
    passengers = board(conn, origin)
    conn.commit()
    pool.putconn(conn)
    return passengers


COUNT_PASSENGER = Exercise(
    name="02.count_passenger",
    minutes=5,
    task="Write `count_passenger(pool, origin)` for psycopg2's pool: it counts one passenger with "
    "`board(conn, origin)` and returns the new count. The count is still in the table afterwards, "
    "and the connection is back in the pool.",
    accept=[
        "the table has one passenger more",
        "the connection is back after every call, also for an airport that does not exist",
    ],
    hints=[
        "`putconn` rolls back what was not committed. Who ends the transaction, and when?",
        "`conn.commit()` comes after `board` and before `putconn`; `putconn` belongs into a "
        "`finally`, so that an error does not jump over it.",
    ],
    solution=count_passenger,
    check=check_count_passenger,
    wrong=[
        (counts_nobody, "the pool that the function is given was never used"),
        (counts_beside, "beside the pool"),
        (counts_without_commit, "a return rolls back"),
        (commits_too_late, "a return rolls back"),
        (counts_without_return, "not returned after a passenger was counted"),
        (counts_without_finally, "not returned when there was no such airport"),
    ],
)
