"""Notebook 09, mixing: two steps that see each other, and the one door through which all go."""

from psycopg2.pool import ThreadedConnectionPool

from classroom.flights import board
from poolkit import ConnectionPool, PoolTimeout

from .judge import connect_beside
from .task import Exercise

# -- 09.one_door ---------------------------------------------------------------------------------

TOTAL = "select sum(passengers) from board.boarding"


def board_and_total(pool, origin):
    with pool.connection() as conn:
        passengers = board(conn, origin)
        with conn.cursor() as cur:
            cur.execute("select sum(passengers) from board.boarding")
            return passengers, cur.fetchone()[0]


def check_one_door(judge, board_and_total):
    def counted():
        return judge.value("select passengers from board.boarding where origin = 'LGA'")

    pool = judge.pool(max_size=2)
    before, total = counted(), judge.value(TOTAL)
    found = judge.call(board_and_total, pool, "LGA").result
    judge.expect_only(pool)
    judge.expect_returned("after a call that went well")
    judge.expect(
        found != (before + 1, total),
        "the total lacks the passenger who has just been counted: another connection does not see "
        "what is not committed",
    )
    judge.expect_equal(found, (before + 1, total + 1), "for LGA")
    judge.expect(
        counted() == before + 1,
        f"the table says {counted()} passengers, and {before + 1} were expected: was it committed?",
    )
    judge.expect(
        len(judge.checkouts(pool)) == 1,
        f"it checked out {len(judge.checkouts(pool))} times: between two checkouts others can "
        "count, and the two numbers would not belong together",
    )
    judge.call(board_and_total, pool, "an airport that is not there", raises=ValueError)
    judge.expect_returned("when there was no such airport")


def _total(conn):
    with conn.cursor() as cur:
        cur.execute(TOTAL)
        return cur.fetchone()[0]


def counts_nothing(pool, origin):
    return 1, 1


def counts_through_the_side_door(pool, origin):
    with pool.connection() as conn:
        passengers = board(conn, origin)
        beside = connect_beside(pool)
        total = _total(beside)
        beside.close()
        return passengers, total


def counts_with_a_second_checkout(pool, origin):
    with pool.connection() as conn:
        passengers = board(conn, origin)
        with pool.connection() as other:
            return passengers, _total(other)


def counts_one_after_the_other(pool, origin):
    with pool.connection() as conn:
        passengers = board(conn, origin)
    with pool.connection() as conn:
        return passengers, _total(conn)


def counts_the_total_first(pool, origin):
    with pool.connection() as conn:
        total = _total(conn)
        return board(conn, origin), total


def counts_and_forgets(pool, origin):
    conn = pool.getconn()
    try:
        return board(conn, origin), _total(conn)
    finally:
        pool.putconn(conn)


def counts_and_leaks(pool, origin):
    conn = pool.getconn()
    passengers = board(conn, origin)
    total = _total(conn)
    conn.commit()
    pool.putconn(conn)
    return passengers, total


ONE_DOOR = Exercise(
    name="09.one_door",
    minutes=5,
    task="Write `board_and_total(pool, origin)`: it counts a passenger with `board(conn, origin)` "
    "and returns the new count and the sum over all airports, with this passenger in it.",
    accept=[
        "both numbers include the passenger who has just been counted",
        "one checkout in each call, and no connection beside the pool",
        "the count is there afterwards, and the connection is back, also when it fails",
    ],
    hints=[
        "Who sees what a transaction has not committed yet? Only the connection it runs on.",
        "One `with pool.connection() as conn:`, first `board(conn, origin)`, then a cursor of the "
        "same `conn` for the sum.",
    ],
    solution=board_and_total,
    check=check_one_door,
    wrong=[
        (counts_nothing, "never used"),
        (counts_through_the_side_door, "beside the pool"),
        (counts_with_a_second_checkout, "the total lacks the passenger"),
        (counts_one_after_the_other, "it checked out 2 times"),
        (counts_the_total_first, "the total lacks the passenger"),
        (counts_and_forgets, "was it committed?"),
        (counts_and_leaks, "not returned when there was no such airport"),
    ],
)


# -- 09.open_door --------------------------------------------------------------------------------


def open_door(dsn):
    return ConnectionPool(dsn, max_size=3, options="-c statement_timeout=2s")


def check_open_door(judge, open_door):
    pool = judge.call(open_door, judge.dsn).result
    judge.expect(pool is not None, "it returned None: is a return missing?")
    judge.expect(
        isinstance(pool, ConnectionPool),
        f"it returned a {type(pool).__name__}, and a poolkit ConnectionPool was expected",
    )
    pool = judge.watch(pool)
    limits = []
    try:
        while len(limits) < 4:
            limits.append(_limit(pool.getconn(timeout=0.5)))
    except PoolTimeout:
        pass
    judge.expect(
        len(limits) == 3,
        f"{'four' if limits[3:] else len(limits)} could be checked out at once: at most three, "
        "and three, were asked for",
    )
    _expect_two_seconds(judge, limits, "connection")
    for holder in pool.holders():
        judge.rows("select pg_terminate_backend(%s, 2000)", (holder.conn.info.backend_pid,))
        pool.putconn(holder.conn)
    _expect_two_seconds(judge, [_limit(pool.getconn(timeout=1.0))], "connection opened later")


def _limit(conn):
    with conn.cursor() as cur:
        cur.execute("show statement_timeout")
        return cur.fetchone()[0]


def _expect_two_seconds(judge, limits, which):
    other = [limit for limit in limits if limit != "2s"]
    judge.expect(
        not other,
        f"of {len(limits)} {which}{'s' * (len(limits) > 1)} {len(other)} had another limit: "
        f"statement_timeout is {', '.join(dict.fromkeys(other))}, and 2s was expected",
    )


def opens_no_door(dsn):
    return ()


def opens_another_door(dsn):
    return ThreadedConnectionPool(1, 3, dsn, options="-c statement_timeout=2s")


def opens_without_a_limit(dsn):
    return ConnectionPool(dsn, max_size=3)


def opens_too_small(dsn):
    return ConnectionPool(dsn, options="-c statement_timeout=2s")


def opens_too_wide(dsn):
    return ConnectionPool(dsn, max_size=4, options="-c statement_timeout=2s")


def opens_with_milliseconds(dsn):
    return ConnectionPool(dsn, max_size=3, options="-c statement_timeout=2")


def opens_and_sets_the_first(dsn):
    pool = ConnectionPool(dsn, max_size=3)
    with pool.connection() as conn, conn.cursor() as cur:
        cur.execute("set statement_timeout = '2s'")
    return pool


def opens_and_sets_all_three(dsn):
    pool = ConnectionPool(dsn, min_size=3, max_size=3)
    with pool.connection() as one, pool.connection() as two, pool.connection() as three:
        for conn in (one, two, three):
            with conn.cursor() as cur:
                cur.execute("set statement_timeout = '2s'")
    return pool


def opens_and_sets_for_a_moment(dsn):
    def configure(conn):
        with conn.cursor() as cur:
            cur.execute("set local statement_timeout = '2s'")

    return ConnectionPool(dsn, max_size=3, configure=configure)


OPEN_DOOR = Exercise(
    name="09.open_door",
    minutes=4,
    task="Write `open_door(dsn)`: it returns a poolkit pool for that address with at most three "
    "connections, on each of which the server ends a statement after two seconds.",
    accept=[
        "three connections can be checked out at once, and not four",
        "`show statement_timeout` says `2s` on each, and on one that is opened later, too",
    ],
    hints=[
        "What you set on a connection that you have checked out, you have set on that one. Where "
        "can you say it for all that will ever be opened?",
        "Everything that the pool does not know is handed to `psycopg2.connect`: "
        '`options="-c …"`, as in the cell above. A function as `configure=…` does it, too.',
        "Without a unit, PostgreSQL takes `statement_timeout` as milliseconds.",
    ],
    solution=open_door,
    check=check_open_door,
    wrong=[
        (opens_no_door, "it returned a tuple"),
        (opens_another_door, "a poolkit ConnectionPool was expected"),
        (opens_without_a_limit, "statement_timeout is 0"),
        (opens_too_small, "1 could be checked out at once"),
        (opens_too_wide, "four could be checked out at once"),
        (opens_with_milliseconds, "statement_timeout is 2ms"),
        (opens_and_sets_the_first, "of 3 connections 2 had another limit"),
        (opens_and_sets_all_three, "of 1 connection opened later 1 had another limit"),
        (opens_and_sets_for_a_moment, "statement_timeout is 0"),
    ],
)
