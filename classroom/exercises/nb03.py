"""Notebook 03, a working example: a complete program, first with one thread, then with many."""

from concurrent.futures import ThreadPoolExecutor, as_completed

import psycopg2

from classroom.flights import lookup

from .judge import connect_beside
from .task import Exercise

# -- 03.version_program --------------------------------------------------------------------------


def server_version(pool):
    conn = pool.getconn()
    try:
        with conn.cursor() as cur:
            cur.execute("select version()")
            return cur.fetchone()[0]
    finally:
        pool.putconn(conn)


def check_version_program(judge, server_version):
    pool = judge.psycopg2_pool(1, 2)
    version = judge.value("select version()")
    found = judge.call(server_version, pool)
    judge.expect(found.result != (version,), "it returned the whole row: take its first column")
    judge.expect_equal(found.result, version, "asked for the version,")
    judge.expect_only(pool)
    judge.expect_returned("after a call that went well")
    judge.kill_next(pool)
    judge.call(server_version, pool, raises=psycopg2.OperationalError)
    judge.expect_returned("when the query failed")
    judge.expect_equal(judge.call(server_version, pool).result, version, "after a failed call")
    judge.expect_returned()


def version_from_memory(pool):
    return "PostgreSQL 18"


def version_by_itself(pool):
    conn = connect_beside(pool)
    try:
        with conn.cursor() as cur:
            cur.execute("select version()")
            return cur.fetchone()[0]
    finally:
        conn.close()


def version_as_a_row(pool):
    conn = pool.getconn()
    try:
        with conn.cursor() as cur:
            cur.execute("select version()")
            return cur.fetchone()
    finally:
        pool.putconn(conn)


def version_printed(pool):
    conn = pool.getconn()
    try:
        with conn.cursor() as cur:
            cur.execute("select version()")
            text = cur.fetchone()[0]
    finally:
        pool.putconn(conn)
    f"{text}"


def version_never_returned(pool):
    with pool.getconn().cursor() as cur:
        cur.execute("select version()")
        return cur.fetchone()[0]


def version_without_finally(pool):
    conn = pool.getconn()
    with conn.cursor() as cur:
        cur.execute("select version()")
        text = cur.fetchone()[0]
    pool.putconn(conn)
    return text


def version_or_none(pool):
    conn = pool.getconn()
    try:
        with conn.cursor() as cur:
            cur.execute("select version()")
            return cur.fetchone()[0]
    except psycopg2.Error:
        return None
    finally:
        pool.putconn(conn)


VERSION_PROGRAM = Exercise(
    name="03.version_program",
    minutes=5,
    task="Write `server_version(pool)`: it checks a connection out of psycopg2's pool, asks "
    "`select version()`, returns the text, and gives the connection back in `finally`.",
    accept=[
        "it returns what the server answers, as text",
        "the connection is back after every call, also when the query fails",
        "when the query fails, the caller gets the error",
    ],
    hints=[
        "Three things happen in this order: `pool.getconn()`, the query, `pool.putconn(conn)`. "
        "The last one must happen whatever becomes of the second.",
        "`conn = pool.getconn()` stands before the `try`, the query inside it, and "
        "`pool.putconn(conn)` in its `finally`. There is no `except`.",
        "A `return` inside the `try` is fine: `finally` runs on the way out. "
        "`cur.fetchone()` is a row; the text is its first column, `cur.fetchone()[0]`.",
    ],
    solution=server_version,
    check=check_version_program,
    wrong=[
        (version_from_memory, "returned 'PostgreSQL 18'"),
        (version_by_itself, "beside the pool"),
        (version_as_a_row, "the whole row"),
        (version_printed, "is a return missing"),
        (version_never_returned, "not returned after a call that went well"),
        (version_without_finally, "not returned when the query failed"),
        (version_or_none, "let the error reach the caller"),
    ],
)


# -- 03.many_threads -----------------------------------------------------------------------------


def answer_all(pool, flight_ids):
    def answer(flight_id):
        with pool.connection() as conn:
            return lookup(conn, flight_id)

    with ThreadPoolExecutor(8) as threads:
        return list(threads.map(answer, flight_ids))


def check_many_threads(judge, answer_all):
    pool = judge.pool(max_size=3, meet=2)
    flight_ids = [*range(40, 0, -2), 0]
    rows = [lookup(judge.conn, flight_id) for flight_id in flight_ids]
    found = judge.call(answer_all, pool, flight_ids)
    judge.expect(
        sorted(map(str, found.result or [])) != sorted(map(str, rows)) or found.result == rows,
        "all the rows are there, but not as a list in the order of the questions",
    )
    judge.expect_equal(found.result, rows, "for 21 flights")
    judge.expect_only(pool)
    judge.expect(
        len(judge.checkouts(pool)) > 1,
        "all the questions shared one connection: check out inside the thread, one each",
    )
    judge.expect(
        len(judge.clients(pool)) > 1 and judge.peak(pool) > 1,
        "the questions were asked one after the other: let several threads ask at once",
    )
    judge.expect_returned("after all were answered")
    judge.call(answer_all, pool, [1, "no number", 2], raises=psycopg2.Error)
    judge.expect_returned("when one of the questions failed")


def answers_to_nothing(pool, flight_ids):
    return []


def answers_one_by_one(pool, flight_ids):
    rows = []
    for flight_id in flight_ids:
        with pool.connection() as conn:
            rows.append(lookup(conn, flight_id))
    return rows


def answers_on_one_connection(pool, flight_ids):
    with pool.connection() as conn, ThreadPoolExecutor(8) as threads:
        return list(threads.map(lambda flight_id: lookup(conn, flight_id), flight_ids))


def answers_by_themselves(pool, flight_ids):
    def answer(flight_id):
        conn = connect_beside(pool)
        try:
            return lookup(conn, flight_id)
        finally:
            conn.close()

    with ThreadPoolExecutor(3) as threads:
        return list(threads.map(answer, flight_ids))


def answers_as_they_come(pool, flight_ids):
    def answer(flight_id):
        with pool.connection() as conn:
            return lookup(conn, flight_id)

    with ThreadPoolExecutor(8) as threads:
        asked = [threads.submit(answer, flight_id) for flight_id in flight_ids]
        return [one.result() for one in as_completed(reversed(asked))][::-1]


def answers_with_getconn(pool, flight_ids):
    def answer(flight_id):
        with pool.getconn() as conn:
            return lookup(conn, flight_id)

    with ThreadPoolExecutor(8) as threads:
        return list(threads.map(answer, flight_ids))


def answers_without_finally(pool, flight_ids):
    def answer(flight_id):
        conn = pool.getconn()
        row = lookup(conn, flight_id)
        pool.putconn(conn)
        return row

    with ThreadPoolExecutor(8) as threads:
        return list(threads.map(answer, flight_ids))


MANY_THREADS = Exercise(
    name="03.many_threads",
    minutes=8,
    task="Write `answer_all(pool, flight_ids)`: it answers every question with "
    "`lookup(conn, flight_id)`, from several threads at once, on one pool, and returns the rows "
    "in the order of the questions.",
    accept=[
        "a list with one row for each question, None where there is no such flight",
        "several connections are in use at once, and never more than the pool has room for",
        "all of them are back at the end, also when a question fails; its error gets out",
    ],
    hints=[
        "Begin with a function for one question, `answer(flight_id)`, which checks out for itself: "
        "`with pool.connection() as conn:`.",
        "`concurrent.futures.ThreadPoolExecutor` calls it from many threads; its `map` keeps the "
        "order and hands on what an answer raises.",
        "`with ThreadPoolExecutor(8) as threads: return list(threads.map(answer, flight_ids))`. "
        "Eight threads share three connections: the pool lets the others wait.",
    ],
    solution=answer_all,
    check=check_many_threads,
    wrong=[
        (answers_to_nothing, "for 21 flights it returned []"),
        (answers_one_by_one, "one after the other"),
        (answers_on_one_connection, "shared one connection"),
        (answers_by_themselves, "beside the pool"),
        (answers_as_they_come, "not as a list in the order"),
        (answers_with_getconn, "the pool has none left"),
        (answers_without_finally, "not returned when one of the questions failed"),
    ],
)
