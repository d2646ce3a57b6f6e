"""Notebook 04, leaks: every way out of a function has to return its connection."""

import psycopg2

from classroom.flights import lookup

from .judge import connect_beside
from .task import Exercise

# -- 04.return_it --------------------------------------------------------------------------------


def answer(pool, flight_id):
    conn = pool.getconn()
    try:
        flight = lookup(conn, flight_id)
        if flight is None:
            return "no such flight"
        return f"{flight[0]} to {flight[2]}: {flight[4]} minutes late"
    finally:
        pool.putconn(conn)


def check_return_it(judge, answer):
    pool = judge.psycopg2_pool(1, 2)
    name = lookup(judge.conn, 7)[0]

    found = judge.call(answer, pool, 7).result
    judge.expect(
        isinstance(found, str) and found.startswith(name),
        f"for flight 7 it returned {found!r}: a text that begins with {name!r} was expected",
    )
    judge.expect_only(pool)
    judge.expect_returned("after a call that went well")
    judge.expect_equal(judge.call(answer, pool, 0).result, "no such flight", "for flight 0")
    judge.expect_returned("when there was no such flight")
    judge.expect(
        judge.opened(pool) == 1,
        "two calls opened two connections: return the connection open, for the next one",
    )
    judge.call(answer, pool, "seven", raises=psycopg2.DataError)
    judge.expect_returned("when the query failed")
    judge.kill_next(pool)
    judge.call(answer, pool, 7, raises=psycopg2.OperationalError)
    judge.expect_returned("when the server had ended it")
    judge.expect(judge.call(answer, pool, 7).result == found, "after a failure it answers no more")


def answers_nothing(pool, flight_id):
    return ""


def answers_by_itself(pool, flight_id):
    conn = connect_beside(pool)
    try:
        flight = lookup(conn, flight_id)
        return flight[0] if flight else "no such flight"
    finally:
        conn.close()


def returns_at_the_end(pool, flight_id):
    conn = pool.getconn()
    flight = lookup(conn, flight_id)
    if flight is None:
        return "no such flight"
    pool.putconn(conn)
    return flight[0]


def returns_unless_it_fails(pool, flight_id):
    conn = pool.getconn()
    flight = lookup(conn, flight_id)
    pool.putconn(conn)
    return flight[0] if flight else "no such flight"


def leaves_it_to_with(pool, flight_id):
    with pool.getconn() as conn:
        flight = lookup(conn, flight_id)
        return flight[0] if flight else "no such flight"


def swallows_the_error(pool, flight_id):
    conn = pool.getconn()
    try:
        flight = lookup(conn, flight_id)
        return flight[0] if flight else "no such flight"
    except psycopg2.Error:
        return "no such flight"
    finally:
        pool.putconn(conn)


def closes_it_instead(pool, flight_id):
    conn = pool.getconn()
    try:
        flight = lookup(conn, flight_id)
        return flight[0] if flight else "no such flight"
    finally:
        conn.close()


def closes_it_on_return(pool, flight_id):
    conn = pool.getconn()
    try:
        flight = lookup(conn, flight_id)
        return flight[0] if flight else "no such flight"
    finally:
        pool.putconn(conn, close=True)


RETURN_IT = Exercise(
    name="04.return_it",
    minutes=5,
    task="Write `answer(pool, flight_id)` for psycopg2's pool, which has no `connection()`: it "
    "returns a text that begins with the flight's name, or `'no such flight'`, and the "
    "connection goes back on every way out.",
    accept=[
        "the flight's name is the first column of `lookup(conn, flight_id)`",
        "the connection is back after every call, also when the query fails",
        "an error reaches the caller, and the next call works",
    ],
    hints=[
        "How many ways lead out of the function? A `return`, another `return`, and every line that "
        "can raise. Which statement runs on all of them?",
        "`conn = pool.getconn()`, then `try:` with all the work in it, then `finally:` with "
        "`pool.putconn(conn)`. No `except`: the error is the caller's.",
        "Both `return` stand inside the `try`; `finally` runs after them. `lookup` returns None "
        "for a flight that does not exist.",
    ],
    solution=answer,
    check=check_return_it,
    wrong=[
        (answers_nothing, "for flight 7 it returned ''"),
        (answers_by_itself, "beside the pool"),
        (returns_at_the_end, "not returned when there was no such flight"),
        (returns_unless_it_fails, "not returned when the query failed"),
        (leaves_it_to_with, "not returned after a call that went well"),
        (swallows_the_error, "let the error reach the caller"),
        (closes_it_instead, "not returned after a call that went well"),
        (closes_it_on_return, "two connections"),
    ],
)


# -- 04.early_return -----------------------------------------------------------------------------


def delay(pool, flight_id):
    with pool.connection() as conn:
        flight = lookup(conn, flight_id)
        if flight is None:
            return "no such flight"
        minutes = flight[4]
        if minutes is None:
            return "cancelled"
        return minutes


def check_early_return(judge, delay):
    pool = judge.pool(max_size=2)
    cancelled = judge.value("select min(id) from board.flights where dep_delay is null")
    questions = [
        (7, lookup(judge.conn, 7)[4], "for flight 7"),
        (0, "no such flight", "for flight 0"),
        (cancelled, "cancelled", f"for flight {cancelled}"),
    ]
    for flight_id, wanted, when in questions:
        judge.expect_equal(judge.call(delay, pool, flight_id).result, wanted, when)
        judge.expect_only(pool)
        judge.expect_returned(when)
    judge.call(delay, pool, "seven", raises=psycopg2.DataError)
    judge.expect_returned("when the query failed")


def delay_of_nothing(pool, flight_id):
    return "cancelled"


def delay_by_itself(pool, flight_id):
    conn = connect_beside(pool)
    flight = lookup(conn, flight_id)
    conn.close()
    if flight is None:
        return "no such flight"
    return "cancelled" if flight[4] is None else flight[4]


def delay_with_an_early_return(pool, flight_id):
    conn = pool.getconn()
    flight = lookup(conn, flight_id)
    if flight is None:
        return "no such flight"
    pool.putconn(conn)
    return "cancelled" if flight[4] is None else flight[4]


def delay_with_one_exit_forgotten(pool, flight_id):
    conn = pool.getconn()
    flight = lookup(conn, flight_id)
    if flight is None:
        pool.putconn(conn)
        return "no such flight"
    if flight[4] is None:
        return "cancelled"
    pool.putconn(conn)
    return flight[4]


def delay_with_every_exit_but_the_error(pool, flight_id):
    conn = pool.getconn()
    flight = lookup(conn, flight_id)
    pool.putconn(conn)
    if flight is None:
        return "no such flight"
    return "cancelled" if flight[4] is None else flight[4]


def delay_returned_too_soon(pool, flight_id):
    with pool.connection() as conn:
        pass
    flight = lookup(conn, flight_id)
    if flight is None:
        return "no such flight"
    return "cancelled" if flight[4] is None else flight[4]


EARLY_RETURN = Exercise(
    name="04.early_return",
    minutes=4,
    task="Write `delay(pool, flight_id)` for poolkit's pool: it returns `'no such flight'`, "
    "`'cancelled'` or the minutes of delay, and holds no connection afterwards, whichever it is.",
    accept=[
        "the delay is the fifth column of `lookup(conn, flight_id)`, None if it was cancelled",
        "the connection is back after each of the three answers, and after an error",
    ],
    hints=[
        "With `putconn` in front of each `return`, you will forget one, or somebody who adds a "
        "fourth will. Let one statement do it for all of them.",
        "`with pool.connection() as conn:`, and every `return` inside the block.",
    ],
    solution=delay,
    check=check_early_return,
    wrong=[
        (delay_of_nothing, "for flight 7 it returned 'cancelled'"),
        (delay_by_itself, "beside the pool"),
        (delay_with_an_early_return, "not returned for flight 0"),
        (delay_with_one_exit_forgotten, "not returned for flight"),
        (delay_with_every_exit_but_the_error, "not returned when the query failed"),
        (delay_returned_too_soon, "used after it had been returned"),
    ],
)


# -- 04.generator --------------------------------------------------------------------------------


def flights_of(pool, flight_ids):
    for flight_id in flight_ids:
        with pool.connection() as conn:
            flight = lookup(conn, flight_id)
        yield flight[0]  # out here, nothing is held while the caller thinks


def check_generator(judge, flights_of):
    pool = judge.pool(max_size=2)
    names = [lookup(judge.conn, flight_id)[0] for flight_id in (1, 2, 3)]

    judge.expect_equal(
        judge.call(lambda: list(flights_of(pool, [1, 2, 3]))).result, names, "for flights 1, 2, 3"
    )
    judge.expect_only(pool)
    judge.expect_returned("after the last flight")
    flights = iter(judge.call(flights_of, pool, [1, 2, 3]).result)
    judge.expect_equal(judge.call(next, flights).result, names[0], "first of all")
    judge.expect_returned("while the caller looks at the first flight")
    judge.expect_equal(judge.call(list, flights).result, names[1:], "after the first flight")
    judge.call(lambda: list(flights_of(pool, [1, "two", 3])), raises=psycopg2.DataError)
    judge.expect_returned("when a query failed")


def flights_of_nobody(pool, flight_ids):
    yield from ()


def flights_by_themselves(pool, flight_ids):
    conn = connect_beside(pool)
    for flight_id in flight_ids:
        yield lookup(conn, flight_id)[0]
    conn.close()


def flights_held_while_yielding(pool, flight_ids):
    with pool.connection() as conn:
        for flight_id in flight_ids:
            yield lookup(conn, flight_id)[0]


def flights_yielded_inside(pool, flight_ids):
    for flight_id in flight_ids:
        with pool.connection() as conn:
            yield lookup(conn, flight_id)[0]


def flights_never_returned(pool, flight_ids):
    conn = pool.getconn()
    for flight_id in flight_ids:
        yield lookup(conn, flight_id)[0]


def flights_without_finally(pool, flight_ids):
    for flight_id in flight_ids:
        conn = pool.getconn()
        flight = lookup(conn, flight_id)
        pool.putconn(conn)
        yield flight[0]


GENERATOR = Exercise(
    name="04.generator",
    minutes=6,
    task="Write the generator `flights_of(pool, flight_ids)`: it yields the name of one flight "
    "after the other, and holds no connection while its caller looks at one.",
    accept=[
        "the names, the first column of `lookup(conn, flight_id)`, in the order asked for",
        "no connection is in use between two flights, nor after an error",
    ],
    hints=[
        "A generator stops at `yield`, and every `with` block around that line stays open until "
        "the caller asks for more. The caller may never do that.",
        "Fetch inside the block, leave the block, then yield: the `yield` is indented less than "
        "the `lookup`.",
        "One checkout per flight is the shortest. For many rows, fetch some hundreds inside the "
        "block (`cur.fetchall()` of a query with a limit), and yield them outside.",
    ],
    solution=flights_of,
    check=check_generator,
    wrong=[
        (flights_of_nobody, "for flights 1, 2, 3 it returned []"),
        (flights_by_themselves, "beside the pool"),
        (flights_held_while_yielding, "while the caller looks at the first flight"),
        (flights_yielded_inside, "while the caller looks at the first flight"),
        (flights_never_returned, "not returned after the last flight"),
        (flights_without_finally, "not returned when a query failed"),
    ],
)
