"""Notebook 07, too many connections: how many each process may have, and how to need fewer."""

import psycopg2

from classroom.flights import board, lookup

from .judge import connect_beside
from .task import Exercise

# -- 07.share ------------------------------------------------------------------------------------


MOST = "select setting::int from pg_settings where name = 'max_connections'"
RESERVED = "select sum(setting::int) from pg_settings where name ~ 'reserved_connections$'"


def share(pool, processes, others):
    with pool.connection() as conn, conn.cursor() as cur:
        cur.execute("select setting::int from pg_settings where name = 'max_connections'")
        most = cur.fetchone()[0]
        cur.execute(
            "select sum(setting::int) from pg_settings where name ~ 'reserved_connections$'"
        )
        reserved = cur.fetchone()[0]
    return max(0, (most - reserved - others) // processes)


def check_share(judge, share):
    most, reserved = judge.value(MOST), judge.value(RESERVED)
    pool = judge.pool(max_size=1)
    for processes, others in ((2, 0), (8, 0), (7, 11), (most, most)):
        wanted = max(0, (most - reserved - others) // processes)
        found = judge.call(share, pool, processes, others).result
        when = f"for {processes} processes and {others} others"
        judge.expect(
            not reserved or found != (most - others) // processes or found == wanted,
            f"{when} it returned {found!r}: the reserved connections are not for you",
        )
        judge.expect(
            not isinstance(found, float),
            f"{when} it returned {found!r}: a whole number was expected, rounded down",
        )
        judge.expect_equal(found, wanted, when)
        judge.expect_only(pool)
        judge.expect_returned(when)


def share_of_nothing(pool, processes, others):
    return 4


def share_without_asking(pool, processes, others):
    return max(0, (100 - 3 - others) // processes)


def share_with_the_reserved(pool, processes, others):
    with pool.connection() as conn, conn.cursor() as cur:
        cur.execute("show max_connections")
        return max(0, (int(cur.fetchone()[0]) - others) // processes)


def _room(conn):
    with conn.cursor() as cur:
        cur.execute(f"select ({MOST}) - ({RESERVED})")
        return cur.fetchone()[0]


def share_in_fractions(pool, processes, others):
    with pool.connection() as conn:
        return (_room(conn) - others) / processes


def share_below_zero(pool, processes, others):
    with pool.connection() as conn:
        return (_room(conn) - others) // processes


def share_without_the_others(pool, processes, others):
    with pool.connection() as conn:
        return _room(conn) // processes


def share_beside_the_pool(pool, processes, others):
    conn = connect_beside(pool)
    try:
        return max(0, (_room(conn) - others) // processes)
    finally:
        conn.close()


SHARE = Exercise(
    name="07.share",
    minutes=4,
    task="Write `share(pool, processes, others)`: how many connections each of `processes` may "
    "have on the server that the pool is connected to, if `others` are left over for everybody "
    "else.",
    accept=[
        "it asks the server, over a connection of the pool",
        "what is reserved is not counted: `superuser_reserved_connections` and, from PostgreSQL 16 "
        "on, `reserved_connections`",
        "a whole number, rounded down; 0 if there is no room",
    ],
    hints=[
        "The server's settings are rows of the view `pg_settings`, with the columns `name` and "
        "`setting`, which is text.",
        "`select setting::int from pg_settings where name = 'max_connections'`, and the sum of "
        "those where `name ~ 'reserved_connections$'`.",
        "`//` rounds down. `max(0, …)` takes care of a server that has no room at all.",
    ],
    solution=share,
    check=check_share,
    wrong=[
        (share_of_nothing, "it returned 4"),
        (share_without_asking, "the pool that the function is given was never used"),
        (share_with_the_reserved, "the reserved connections are not for you"),
        (share_in_fractions, "a whole number was expected"),
        (share_without_the_others, "for 7 processes and 11 others"),
        (share_below_zero, "and 0 was expected"),
        (share_beside_the_pool, "beside the pool"),
    ],
)


# -- 07.board_one --------------------------------------------------------------------------------


def board_one(pool, flight_id, origin, print_pass):
    with pool.connection() as conn:
        flight = lookup(conn, flight_id)
    print_pass(flight)  # slow, and out here: nobody waits for us meanwhile
    with pool.connection() as conn:
        return board(conn, origin)


class PrinterJam(Exception):
    """What the printer of the check says when it fails."""


def check_board_one(judge, board_one):
    pool = judge.pool(max_size=2)
    flight = lookup(judge.conn, 7)
    passes, trouble = [], []

    def count():
        return judge.value("select passengers from board.boarding where origin = 'LGA'")

    def print_pass(printed):
        passes.append(printed)
        if judge.leaked(pool):
            trouble.append("a connection is checked out while the pass is printed")
        try:
            judge.rows("select 1 from board.boarding where origin = 'LGA' for update nowait")
        except psycopg2.errors.LockNotAvailable:
            trouble.append("the hot row is locked while the pass is printed")

    def jam(printed):
        raise PrinterJam("paper jam")

    before = count()
    found = judge.call(board_one, pool, 7, "LGA", print_pass).result
    judge.expect_equal(passes, [flight], "of flight 7, of the passes printed,")
    judge.expect(not trouble, "; ".join(trouble))
    judge.expect(
        count() == before + 1,
        f"{count() - before} passengers were counted and committed, and 1 was expected",
    )
    judge.expect_equal(found, before + 1, "for the first passenger")
    judge.expect_only(pool)
    judge.expect_returned("after the first passenger")
    judge.call(board_one, pool, 7, "LGA", jam, raises=PrinterJam)
    judge.expect(count() == before + 1, "the printer failed, and the passenger was counted")
    judge.expect_returned("when the printer failed")


def board_nobody(pool, flight_id, origin, print_pass):
    return 1


def board_and_hold(pool, flight_id, origin, print_pass):
    with pool.connection() as conn:
        print_pass(lookup(conn, flight_id))
        return board(conn, origin)


def board_first_and_hold(pool, flight_id, origin, print_pass):
    with pool.connection() as conn:
        count = board(conn, origin)
        print_pass(lookup(conn, flight_id))
        return count


def board_before_printing(pool, flight_id, origin, print_pass):
    with pool.connection() as conn:
        flight = lookup(conn, flight_id)
        count = board(conn, origin)
    print_pass(flight)
    return count


def board_without_commit(pool, flight_id, origin, print_pass):
    conn = pool.getconn()
    flight = lookup(conn, flight_id)
    pool.putconn(conn)
    print_pass(flight)
    conn = pool.getconn()
    count = board(conn, origin)
    pool.putconn(conn)
    return count


def board_whatever_the_printer_says(pool, flight_id, origin, print_pass):
    with pool.connection() as conn:
        flight = lookup(conn, flight_id)
    try:
        print_pass(flight)
    finally:
        with pool.connection() as conn:
            count = board(conn, origin)
    return count


BOARD_ONE = Exercise(
    name="07.board_one",
    minutes=6,
    task="Write `board_one(pool, flight_id, origin, print_pass)`: it looks the flight up, calls "
    "`print_pass(flight)`, which is slow, then counts the passenger, and returns the new count. "
    "Nobody waits for it while it prints.",
    accept=[
        "`print_pass` is called once, with what `lookup(conn, flight_id)` returned",
        "while it runs, no connection is checked out, and no row is locked",
        "the passenger is counted and committed; if `print_pass` raises, nobody is counted, and "
        "the caller gets the error",
    ],
    hints=[
        "What does the function need a connection for, and when? Twice, with a pause between.",
        "Two `with pool.connection()` blocks, and `print_pass(flight)` between them. A checkout "
        "costs next to nothing: that is what the pool is for.",
        "`board(conn, origin)` stands in the second block: the row is locked from there to the "
        "commit at the block's end, and no longer.",
    ],
    solution=board_one,
    check=check_board_one,
    wrong=[
        (board_nobody, "it returned []"),
        (board_and_hold, "a connection is checked out while the pass is printed"),
        (board_first_and_hold, "the hot row is locked while the pass is printed"),
        (board_before_printing, "the printer failed, and the passenger was counted"),
        (board_without_commit, "0 passengers were counted"),
        (board_whatever_the_printer_says, "the printer failed, and the passenger was counted"),
    ],
)
