"""Notebook 05, exhaustion: how long to wait, one checkout instead of two, and the smallest pool."""

import threading
from contextlib import ExitStack, contextmanager, suppress
from time import sleep

import psycopg2

from classroom.flights import board, lookup
from poolkit import PoolClosed, PoolError, PoolTimeout, TooManyRequests, together

from .judge import connect_beside
from .task import Exercise

# -- 05.busy -------------------------------------------------------------------------------------

BUSY = "busy, try again"


def flight_or_busy(pool, flight_id, seconds):
    try:
        with pool.connection(timeout=seconds) as conn:
            return lookup(conn, flight_id)[0]
    except (PoolTimeout, TooManyRequests):
        return "busy, try again"


@contextmanager
def exhausted(pool):
    """Hold the only connection of a pool; lend a function that returns it before the block ends."""
    # Unheard: what the check itself holds must not count as the answer's.
    heard, pool.on_event = pool.on_event, None
    held = [pool.getconn()]
    pool.on_event = heard

    def give_back():
        with suppress(IndexError):  # it is back already
            pool.putconn(held.pop())

    try:
        yield give_back
    finally:
        give_back()


@contextmanager
def meanwhile(task):
    """Let `task(over)` run in a thread; at the end of the block set `over` and wait for it."""
    over = threading.Event()
    thread = threading.Thread(target=task, args=(over,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def until_one_waits(pool, over):
    while pool.stats().waiting == 0 and not over.is_set() and not pool.closed:
        sleep(0.001)


def check_busy(judge, flight_or_busy):
    pool = judge.pool(max_size=1, timeout=2.0, max_waiting=1)
    name = lookup(judge.conn, 7)[0]

    judge.expect_equal(judge.call(flight_or_busy, pool, 7, 1.0).result, name, "for flight 7")
    judge.expect_only(pool)
    judge.expect_returned("after a call that went well")

    with exhausted(pool):
        found = judge.call(flight_or_busy, pool, 7, 0.05).result
    judge.expect_equal(found, BUSY, "when no connection came")
    waited = max((wait.end - wait.start for wait in judge.waits(pool)), default=0.0)
    judge.expect(
        waited < 1.5, f"it was told to wait for 0.05 s at the most, and waited for {waited:.1f} s"
    )

    with exhausted(pool) as give_back:

        def return_it(over):
            until_one_waits(pool, over)
            give_back()

        with meanwhile(return_it):
            found = judge.call(flight_or_busy, pool, 7, 1.5).result
    judge.expect(
        found != BUSY,
        "it was told to wait for up to 1.5 s, a connection came at once, and it said it was busy",
    )
    judge.expect_equal(found, name, "when it had to wait a moment")

    with exhausted(pool) as give_back:

        def stand_in_line(over):
            with suppress(PoolError):  # closed, if the answer took too long
                pool.putconn(pool.getconn())

        with meanwhile(stand_in_line):
            try:
                until_one_waits(pool, threading.Event())
                found = judge.call(flight_or_busy, pool, 7, 0.05).result
            finally:
                give_back()
    judge.expect_equal(found, BUSY, "when the queue was full")

    judge.call(flight_or_busy, pool, "seven", 1.0, raises=psycopg2.DataError)
    judge.expect_returned("when the query failed")
    pool.close()
    judge.call(flight_or_busy, pool, 7, 0.05, raises=PoolClosed)


def always_busy(pool, flight_id, seconds):
    return BUSY


def busy_by_itself(pool, flight_id, seconds):
    conn = connect_beside(pool)
    try:
        return lookup(conn, flight_id)[0]
    finally:
        conn.close()


def busy_never(pool, flight_id, seconds):
    with pool.connection(timeout=seconds) as conn:
        return lookup(conn, flight_id)[0]


def busy_when_the_pool_says_so(pool, flight_id, seconds):
    try:
        with pool.connection() as conn:
            return lookup(conn, flight_id)[0]
    except (PoolTimeout, TooManyRequests):
        return BUSY


def busy_without_waiting(pool, flight_id, seconds):
    try:
        with pool.connection(timeout=0) as conn:
            return lookup(conn, flight_id)[0]
    except (PoolTimeout, TooManyRequests):
        return BUSY


def busy_after_a_timeout_only(pool, flight_id, seconds):
    try:
        with pool.connection(timeout=seconds) as conn:
            return lookup(conn, flight_id)[0]
    except PoolTimeout:
        return BUSY


def busy_for_ever(pool, flight_id, seconds):
    try:
        with pool.connection(timeout=seconds) as conn:
            return lookup(conn, flight_id)[0]
    except PoolError:
        return BUSY


def busy_whatever_happens(pool, flight_id, seconds):
    try:
        with pool.connection(timeout=seconds) as conn:
            return lookup(conn, flight_id)[0]
    except Exception:
        return BUSY


def busy_and_leaking(pool, flight_id, seconds):
    try:
        conn = pool.getconn(timeout=seconds)
    except (PoolTimeout, TooManyRequests):
        return BUSY
    name = lookup(conn, flight_id)[0]
    pool.putconn(conn)
    return name


BUSY_PAGE = Exercise(
    name="05.busy",
    minutes=5,
    task="Write `flight_or_busy(pool, flight_id, seconds)` for poolkit's pool: it returns the "
    "flight's name, or `'busy, try again'` if no connection comes within `seconds` or the queue is "
    "full. Every other error is the caller's.",
    accept=[
        "the name is the first column of `lookup(conn, flight_id)`",
        "it waits, and for `seconds` at the most, whatever the pool's own timeout is",
        "a full queue is busy; a failed query and a closed pool are errors that reach the caller",
    ],
    hints=[
        "`pool.connection()` takes a `timeout`. Which two exceptions mean that the pool is busy?",
        "The tree of exceptions is at the top of `poolkit/errors.py`. `PoolError` is too wide a "
        "net: a closed pool will not be better in a minute.",
        "`try:` around `with pool.connection(timeout=seconds) as conn:`, and `except (PoolTimeout, "
        "TooManyRequests):` with the other return.",
    ],
    solution=flight_or_busy,
    check=check_busy,
    wrong=[
        (always_busy, "for flight 7 it returned 'busy, try again'"),
        (busy_by_itself, "beside the pool"),
        (busy_never, "your function raised PoolTimeout"),
        (busy_when_the_pool_says_so, "it was told to wait for 0.05 s at the most"),
        (busy_without_waiting, "a connection came at once"),
        (busy_after_a_timeout_only, "your function raised TooManyRequests"),
        (busy_for_ever, "let the error reach the caller"),
        (busy_whatever_happens, "let the error reach the caller"),
        (busy_and_leaking, "not returned when the query failed"),
    ],
)


# -- 05.hand_on ----------------------------------------------------------------------------------


def check_in(pool, flight_id, origin):
    with pool.connection() as conn:
        passengers = board(conn, origin)
        flight = lookup(conn, flight_id)
        if flight is None:
            raise LookupError(flight_id)
        return flight[0], passengers


def check_hand_on(judge, check_in):
    def counted():
        return judge.value("select passengers from board.boarding where origin = 'JFK'")

    pool = judge.pool(max_size=1)
    name, before = lookup(judge.conn, 7)[0], counted()
    found = judge.call(check_in, pool, 7, "JFK").result
    judge.expect_only(pool)
    judge.expect_returned("after a call that went well")
    judge.expect_equal(found, (name, before + 1), "for flight 7")
    judge.expect(
        counted() == before + 1,
        f"the table says {counted()} passengers, and {before + 1} were expected: was it committed?",
    )
    judge.call(check_in, pool, 0, "JFK", raises=LookupError)
    judge.expect_returned("when there was no such flight")
    judge.expect(
        counted() == before + 1,
        "there was no such flight, and a passenger was counted all the same: do both steps in one "
        "transaction",
    )
    judge.expect(
        len(judge.checkouts(pool)) == 2,
        "each call checked out more than once: once is enough, hand the connection on",
    )


def checks_nobody_in(pool, flight_id, origin):
    return "UA 1545", 0


def checks_in_by_itself(pool, flight_id, origin):
    with connect_beside(pool) as conn:
        return lookup(conn, flight_id)[0], board(conn, origin)


def checks_in_nested(pool, flight_id, origin):
    with pool.connection() as outer:
        with pool.connection() as inner:
            passengers = board(inner, origin)
        flight = lookup(outer, flight_id)
        if flight is None:
            raise LookupError(flight_id)
        return flight[0], passengers


def checks_in_one_after_the_other(pool, flight_id, origin):
    with pool.connection() as conn:
        passengers = board(conn, origin)
    with pool.connection() as conn:
        flight = lookup(conn, flight_id)
    if flight is None:
        raise LookupError(flight_id)
    return flight[0], passengers


def checks_in_in_the_right_order(pool, flight_id, origin):
    with pool.connection() as conn:
        flight = lookup(conn, flight_id)
    if flight is None:
        raise LookupError(flight_id)
    with pool.connection() as conn:
        return flight[0], board(conn, origin)


def checks_in_without_commit(pool, flight_id, origin):
    conn = pool.getconn()
    try:
        passengers = board(conn, origin)
        flight = lookup(conn, flight_id)
        if flight is None:
            raise LookupError(flight_id)
        return flight[0], passengers
    finally:
        pool.putconn(conn)


def checks_in_whatever_the_flight(pool, flight_id, origin):
    with pool.connection() as conn:
        passengers = board(conn, origin)
        flight = lookup(conn, flight_id)
        return flight and flight[0], passengers


HAND_ON = Exercise(
    name="05.hand_on",
    minutes=5,
    task="Write `check_in(pool, flight_id, origin)` with one checkout: it counts a passenger with "
    "`board(conn, origin)` and returns the flight's name and the new count. If there is no such "
    "flight it raises `LookupError`, and nobody has been counted.",
    accept=[
        "it works on a pool of one, and checks out once in each call",
        "the count is there afterwards, and the connection is back",
        "no such flight: `LookupError`, and the count is what it was",
    ],
    hints=[
        "Both steps can use the same connection. What happens to the first if an exception leaves "
        "the `with` block?",
        "One `with pool.connection() as conn:`, everything in it, the `raise` too. An exception "
        "that leaves the block rolls back; its end commits.",
    ],
    solution=check_in,
    check=check_hand_on,
    wrong=[
        (checks_nobody_in, "never used"),
        (checks_in_by_itself, "beside the pool"),
        (checks_in_nested, "your function raised PoolDeadlock"),
        (checks_in_one_after_the_other, "a passenger was counted all the same"),
        (checks_in_in_the_right_order, "checked out more than once"),
        (checks_in_without_commit, "was it committed?"),
        (checks_in_whatever_the_flight, "should have failed"),
    ],
)


# -- 05.smallest_pool ----------------------------------------------------------------------------


def smallest_pool(clients, checkouts):
    # The worst moment: each holds all but one of its connections. One more, and somebody can go on.
    return clients * (checkouts - 1) + 1


def stuck(pool, clients, checkouts):
    """Try the worst moment: how many of the clients get PoolDeadlock?"""
    arrived = []

    def client(_):
        with ExitStack() as held:
            for _ in range(checkouts - 1):
                held.enter_context(pool.connection())
            arrived.append(True)
            # Nobody asks for its last one before each of the others is here, or in the queue.
            while len(arrived) + pool.stats().waiting < clients and not pool.closed:
                sleep(0.001)
            held.enter_context(pool.connection())

    outcomes = together(client, clients)
    return sum(outcome.error is not None for outcome in outcomes)


def check_smallest_pool(judge, smallest_pool):
    for clients, checkouts in [(3, 2), (1, 3), (2, 3), (6, 1)]:
        size = judge.call(smallest_pool, clients, checkouts).result
        who = f"{clients} client{'s' * (clients > 1)} with up to {checkouts} at once"
        judge.expect(size is not None, f"for {who} it returned None: is a return missing?")
        judge.expect(
            type(size) is int and size >= 1,
            f"for {who} it returned {size!r}: a whole number, 1 or more, was expected",
        )
        judge.expect(
            size <= clients * checkouts, f"for {who} it returned {size}: they never hold so many"
        )
        pool = judge.pool(max_size=size)
        unlucky = stuck(pool, clients, checkouts)
        pool.close()
        judge.expect(not unlucky, f"{who} got stuck in a pool of {size}")
        judge.expect(
            size == clients * (checkouts - 1) + 1,
            f"{who} can't get stuck in a pool of {size}, and in a smaller one neither",
        )


def always_one(clients, checkouts):
    return 1


def one_each(clients, checkouts):
    return clients


def one_to_spare(clients, checkouts):
    return clients + 1


def enough_for_all(clients, checkouts):
    return clients * checkouts


def one_too_few(clients, checkouts):
    return clients * (checkouts - 1)


def far_too_many(clients, checkouts):
    return 100


def in_halves(clients, checkouts):
    return clients * checkouts / 2 + 1


SMALLEST_POOL = Exercise(
    name="05.smallest_pool",
    minutes=4,
    task="Write `smallest_pool(clients, checkouts)`: the smallest `max_size` with which that many "
    "threads, each holding up to `checkouts` connections at once, can never get stuck.",
    accept=[
        "in a pool of that size nobody gets stuck, in the worst moment either",
        "in a smaller one somebody does",
    ],
    hints=[
        "When is the worst moment? Let each thread hold as many as it can and still need one more.",
        "In the worst moment each holds `checkouts - 1`. How many connections are out then, and "
        "how many more must there be so that one thread can go on?",
    ],
    solution=smallest_pool,
    check=check_smallest_pool,
    wrong=[
        (always_one, "3 clients with up to 2 at once got stuck in a pool of 1"),
        (one_each, "3 clients with up to 2 at once got stuck in a pool of 3"),
        (one_to_spare, "1 client with up to 3 at once got stuck in a pool of 2"),
        (enough_for_all, "can't get stuck in a pool of 6, and in a smaller one neither"),
        (one_too_few, "got stuck in a pool of 3"),
        (far_too_many, "they never hold so many"),
        (in_halves, "a whole number, 1 or more"),
    ],
)
