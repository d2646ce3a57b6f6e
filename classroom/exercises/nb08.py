"""Notebook 08, closing: a cell that can be run again, and a service that stops gently."""

from threading import Event, Thread
from time import monotonic, sleep

import psycopg2

from classroom.flights import lookup
from poolkit import ConnectionPool, PoolClosed

from .task import Exercise

# -- 08.fresh ------------------------------------------------------------------------------------


def fresh(pools, name, dsn):
    if name in pools:
        pools[name].close()
    pools[name] = ConnectionPool(dsn, min_size=2, max_size=2, name=name)
    return pools[name]


def question(pool):
    conn = pool.getconn()
    try:
        return lookup(conn, 7)
    finally:
        pool.putconn(conn)


def check_fresh(judge, fresh):
    pools = {}
    kept = []  # as a notebook's Out keeps what it has shown

    def ask(name):
        pool = judge.call(fresh, pools, name, judge.dsn).result
        judge.expect(pool is not None, "it returned None: is a return missing?")
        judge.expect(hasattr(pool, "getconn"), f"it returned {pool!r}, and a pool was expected")
        kept.append(pool)
        judge.expect(
            pools.get(name) is pool, f"afterwards, pools[{name!r}] is not the pool it returned"
        )
        judge.expect(not pool.closed, "the pool that it returned is closed already")
        found = judge.call(question, pool).result
        judge.expect_equal(found, lookup(judge.conn, 7), "asked for flight 7, its pool")
        return pool

    try:
        first = ask("web")
        judge.expect(
            (now := judge.until(2)) == 2, f"2 open connections were expected, the server has {now}"
        )
        second = ask("web")
        judge.expect(
            second is not first, "the second time it returned the old pool: make a new one"
        )
        judge.expect(
            (now := judge.until(2)) == 2,
            f"called twice for one name, and the server has {now} connections: the old pool is "
            "still open",
        )
        ask("report")
        judge.expect(
            not second.closed, "a pool of another name was closed: close the one of that name only"
        )
        judge.expect((now := judge.until(4)) == 4, f"two names, and the server has {now}, not 4")
    finally:
        for pool in {id(pool): pool for pool in [*kept, *pools.values()]}.values():
            if hasattr(pool, "closed") and not pool.closed:
                pool.closeall()


def fresh_of_nothing(pools, name, dsn):
    return None if pools else ()


def fresh_every_time(pools, name, dsn):
    pools[name] = ConnectionPool(dsn, min_size=2, max_size=2)
    return pools[name]


def fresh_forgotten(pools, name, dsn):
    if name in pools:
        pools[name].close()
    return ConnectionPool(dsn, min_size=2, max_size=2)


def fresh_only_once(pools, name, dsn):
    if name not in pools:
        pools[name] = ConnectionPool(dsn, min_size=2, max_size=2)
    return pools[name]


def fresh_and_closed(pools, name, dsn):
    with ConnectionPool(dsn, min_size=2, max_size=2) as pool:
        pools[name] = pool
    return pool


def fresh_and_alone(pools, name, dsn):
    for old in pools.values():
        old.close()
    pools[name] = ConnectionPool(dsn, min_size=2, max_size=2)
    return pools[name]


def fresh_and_lazy(pools, name, dsn):
    if name in pools:
        pools[name].close()
    pools[name] = ConnectionPool(dsn, max_size=2)
    return pools[name]


def fresh_by_luck(pools, name, dsn):
    pools.pop(name, None)
    pools[name] = ConnectionPool(dsn, min_size=2, max_size=2)
    return pools[name]


FRESH = Exercise(
    name="08.fresh",
    minutes=5,
    task="Write `fresh(pools, name, dsn)`: it closes the pool that the dict `pools` has under "
    "`name`, if there is one, makes a new one with two open connections, keeps it there and "
    "returns it.",
    accept=[
        "called ten times with one name, the server has two connections",
        "a pool of another name is left alone",
        "one of poolkit's pools or of psycopg2's, as you like",
    ],
    hints=[
        "Three steps: close the old one, if there is one; make the new one; put it into the dict. "
        "In which order does the server never see both?",
        "`if name in pools: pools[name].close()`. Both kinds of pool have `closeall()`, too.",
        "`ConnectionPool(dsn, min_size=2, max_size=2)` opens two at once. It is kept with "
        "`pools[name] = pool`.",
    ],
    solution=fresh,
    check=check_fresh,
    wrong=[
        (fresh_of_nothing, "it returned (), and a pool was expected"),
        (fresh_every_time, "the old pool is still open"),
        (fresh_by_luck, "the old pool is still open"),
        (fresh_forgotten, "is not the pool it returned"),
        (fresh_only_once, "the second time it returned the old pool"),
        (fresh_and_closed, "closed already"),
        (fresh_and_alone, "a pool of another name was closed"),
        (fresh_and_lazy, "2 open connections were expected, the server has 1"),
    ],
)


# -- 08.shut_down --------------------------------------------------------------------------------


def shut_down(pool, patience):
    return [holder.where for holder in pool.close(timeout=patience)]


def check_shut_down(judge, shut_down):
    # All are back already: nothing to wait for, nothing to report.
    pool = judge.pool(min_size=2, max_size=2)
    judge.expect_equal(judge.call(shut_down, pool, 0.5).result, [], "with nothing checked out,")
    judge.expect(pool.closed, "afterwards the pool still lends: it is not closed")
    judge.expect((now := judge.until(0)) == 0, f"the server still has {now} connections of it")

    # One comes back while it waits.
    pool = judge.pool(max_size=2)
    out, done = Event(), []

    def client():
        try:
            with pool.connection() as conn:
                out.set()
                until = monotonic() + 2
                while not pool.closed and monotonic() < until:
                    sleep(0.005)
                done.append(lookup(conn, 7))
        except psycopg2.Error:
            pass  # not done, then

    thread = Thread(target=client, daemon=True)
    thread.start()
    out.wait(1)
    found = judge.call(shut_down, pool, 1.0).result
    thread.join(2)
    judge.expect(
        done, "a client at work lost its connection: leave to each client what that client holds"
    )
    judge.expect_equal(found, [], "when the last client came back in time,")

    # One never comes back in time.
    pool = judge.pool(max_size=2)
    conn = pool.getconn()
    where = pool.holders()[0].where
    found = judge.call(shut_down, pool, 0.1).result
    judge.expect(
        not conn.closed,
        "a client at work lost its connection: leave to each client what that client holds",
    )
    judge.expect_equal(found, [where], "with one connection out,")
    row = lookup(conn, 7)
    pool.putconn(conn)
    judge.expect(row and conn.closed, "the connection was not closed when it came back")
    try:
        pool.getconn(timeout=0)
    except PoolClosed:
        return
    judge.expect(False, "afterwards the pool still lends: it is not closed")


def shut_down_nothing(pool, patience):
    return []


def shut_down_by_force(pool, patience):
    left = pool.holders()
    for holder in left:
        holder.conn.close()
    pool.close(timeout=patience)
    return [holder.where for holder in left]


def shut_down_at_once(pool, patience):
    return [holder.where for holder in pool.close(timeout=0)]


def shut_down_in_silence(pool, patience):
    pool.close(timeout=patience)
    return []


def shut_down_with_holders(pool, patience):
    return pool.close(timeout=patience)


def shut_down_and_return_none(pool, patience):
    pool.close(timeout=patience)


def shut_down_asking_first(pool, patience):
    left = [holder.where for holder in pool.holders()]
    pool.close(timeout=patience)
    return left


SHUT_DOWN = Exercise(
    name="08.shut_down",
    minutes=4,
    task="Write `shut_down(pool, patience)` for one of poolkit's pools: it gives the clients "
    "`patience` seconds to come to their end, and returns the lines of code that have checked out "
    "what is still out then, as a list of texts.",
    accept=[
        "afterwards the pool lends nothing, and its idle connections are closed on the server",
        "no client loses the connection that it holds",
        "a client that comes back in time is not in the list; one that does not is",
    ],
    hints=[
        "`pool.close(timeout=…)` does nearly all of it. What does it return?",
        "It returns the holders that remain. A holder has `age`, `where`, `thread` and `conn`; "
        "`where` is the line of code, as text.",
        "A list comprehension over what `close` returns is enough: one line.",
    ],
    solution=shut_down,
    check=check_shut_down,
    wrong=[
        (shut_down_nothing, "it is not closed"),
        (shut_down_by_force, "lost its connection"),
        (shut_down_at_once, "when the last client came back in time"),
        (shut_down_in_silence, "with one connection out"),
        (shut_down_with_holders, "with one connection out"),
        (shut_down_and_return_none, "is a return missing"),
        (shut_down_asking_first, "when the last client came back in time"),
    ],
)
