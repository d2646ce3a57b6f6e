"""What the experiments are made of: a pool, a look at the server, and the usual ways of both."""

from contextlib import closing, contextmanager
from typing import NamedTuple

import psycopg2
from psycopg2.extensions import make_dsn

from poolkit import together


class Finding(NamedTuple):
    """What one pool did in one experiment."""

    text: str
    good: bool | None = None  # None: neither, or there is nothing to see
    detail: str = ""  # the full text of an error
    failed: bool = False  # the experiment came to nothing: the text says why


class Server:
    """A connection of our own, that watches the backends of the trials and ends some."""

    def __init__(self, dsn, run):
        self.run = run
        self.conn = psycopg2.connect(make_dsn(dsn, application_name=f"{run} server"))
        self.conn.autocommit = True

    def ask(self, sql, *values):
        with self.conn.cursor() as cursor:
            cursor.execute(sql, values)
            return cursor.fetchall()

    def state(self, pid):
        """What a backend is at ("idle", "idle in transaction", …), or None if it is gone."""
        rows = self.ask("SELECT state FROM pg_stat_activity WHERE pid = %s", pid)
        return rows[0][0] if rows else None

    def terminate(self, *pids):
        for pid in pids:
            self.ask("SELECT pg_terminate_backend(%s, 5000)", pid)

    def backends(self):
        """The pids of everything that this run has on the server, but for this connection."""
        sql = "SELECT pid FROM pg_stat_activity WHERE application_name ^@ %s AND pid <> %s"
        return [pid for (pid,) in self.ask(sql, self.run, self.conn.get_backend_pid())]


class Trial(NamedTuple):
    """One experiment on one kind of pool."""

    peer: type
    dsn: str
    server: Server

    def opened(self, min_size, max_size, timeout=1.0, **options):
        return self.peer.open(self.dsn, min_size, max_size, timeout, **options)


def ask(conn, sql):
    """Send one statement, and return the first column of its first row, if there is one."""
    with closing(conn.cursor()) as cursor:
        cursor.execute(sql)
        return cursor.fetchone()[0] if cursor.description else None


def backend(conn):
    """The pid of the backend, asked for: in a transaction, which stays open."""
    return ask(conn, "SELECT pg_backend_pid()")


@contextmanager
def block(pool):
    """Lend as the users of a pool do: by its own `with` form, or by what they write where it has
    none: commit at the end, return in a `finally`."""
    if pool.connection is not None:
        with pool.connection() as conn:
            yield conn
        return
    conn = pool.getconn()
    try:
        yield conn
        conn.commit()
    finally:
        pool.putconn(conn)


def bounded(task, patience=2.0):
    """Call `task()` in a thread, and return poolkit's Outcome of it: result, error, start, end.

    Returns None if it is still at it after `patience` seconds.
    """
    try:
        [outcome] = together(lambda _: task(), clients=1, timeout=patience)
    except TimeoutError:
        return None
    return outcome


def lends(pool):
    """Does the pool lend a connection, and take it back, within a moment?"""
    outcome = bounded(lambda: pool.putconn(pool.getconn()))
    return outcome is not None and outcome.error is None


def name(error):
    return type(error).__name__


def duration(seconds):
    if seconds >= 1:
        return f"{seconds:.1f} s"
    decimals = 0 if seconds >= 0.01 else 1 if seconds >= 0.001 else 2
    return f"{seconds * 1000:.{decimals}f} ms"
