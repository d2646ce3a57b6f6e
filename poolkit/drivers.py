"""What the pool needs to know of a database: how to connect, and how a connection is doing.

A driver has one method, `connect()`, which returns a *session*: one connection together with

    conn            the connection itself, the one that clients get
    alive()         is it still there? costs no round trip: every checkout asks
    ping()          is it still there? asks the server
    commit()        end the transaction and keep its work
    clean(reset)    end the transaction and restore the settings; False: it cannot be saved
    remember()      the settings of now are those that clean() restores
    close()

The pool calls all of them outside its lock.
"""

import select
from functools import partial
from operator import attrgetter

import psycopg2
from psycopg2.extensions import (
    STATUS_READY,
    TRANSACTION_STATUS_ACTIVE,
    TRANSACTION_STATUS_IDLE,
    TRANSACTION_STATUS_INERROR,
    TRANSACTION_STATUS_UNKNOWN,
    parse_dsn,
)

from .errors import PoolError

# Without them, a server that vanished without a word is waited for until the kernel gives up:
# minutes to hours. Seconds, but tcp_user_timeout: milliseconds.
# https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS
PATIENCE = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}


_SYNTAX = (
    "dsn is not an address that libpq understands; try: "
    "'postgresql://user:password@host:5432/database', with %40 for an @ in the password and so on, "
    "or 'host=… port=5432 dbname=… user=… password=…'"
)
_BEYOND_REPAIR = TRANSACTION_STATUS_ACTIVE, TRANSACTION_STATUS_UNKNOWN  # unknown: it is closed


class Psycopg2:
    """Opens PostgreSQL connections with psycopg2.

    `dsn` and `connect_kwargs` are psycopg2.connect's. What is in neither gets PATIENCE's values.
    A dsn that cannot be read raises psycopg2.ProgrammingError here.
    """

    def __init__(self, dsn: str = "", **connect_kwargs):
        try:
            given = parse_dsn(dsn)
        except psycopg2.ProgrammingError:  # it would show the password
            raise psycopg2.ProgrammingError(_SYNTAX) from None
        self.dsn = dsn
        self.kwargs = {k: v for k, v in PATIENCE.items() if k not in given} | connect_kwargs

    def connect(self):
        """Open a connection: waits for the server, at most `connect_timeout` seconds for each of
        its addresses, and raises psycopg2.OperationalError if it does not come."""
        conn = psycopg2.connect(self.dsn, **self.kwargs)
        try:
            return Psycopg2Session(conn)
        except BaseException:  # there was no file descriptor left to watch it with
            conn.close()
            raise


class Psycopg2Session:
    __slots__ = ("conn", "_readable", "_status", "_as_opened")

    def __init__(self, conn):
        self.conn = conn
        self._readable = _watcher(conn)
        # Reads a field of libpq's: no round trip. `conn.status` would be wrong after a typed BEGIN.
        self._status = conn.get_transaction_status
        self.remember()

    def remember(self):
        self._as_opened = STATUS_READY, *_settings(self.conn), []  # no notifications

    def alive(self):
        # A healthy idle connection has nothing to say.
        return not (self.conn.closed or self._readable()) or self._has_news()

    def _has_news(self):
        # What it has to say is a notification (LISTEN), or the server's farewell, or the end.
        conn = self.conn
        for _ in range(10):
            heard, told = len(conn.notifies), list(conn.notices)
            try:
                # The first poll() after a farewell reads it as a notice; only the next one raises.
                conn.poll()
            except psycopg2.Error:
                return False
            if len(conn.notifies) == heard or conn.notices != told:
                return False
            conn.notifies.clear()  # it came while nobody used the connection: nobody's news
            if not self._readable():
                return True
        return False

    def ping(self):
        try:
            with self.conn.cursor() as cursor:
                cursor.execute("SELECT 1")
            self.conn.rollback()
        except psycopg2.Error:
            return False
        return True

    def clean(self, reset="rollback"):
        in_order = (  # … as most are: then nothing is sent
            reset == "rollback"
            and self._status() == TRANSACTION_STATUS_IDLE
            and _looks(self.conn) == self._as_opened
        )
        return in_order or self._put_in_order(reset)

    def _put_in_order(self, reset):
        conn = self.conn
        try:
            if self._status() in _BEYOND_REPAIR:
                return False
            # Not only if a transaction is open: psycopg2 misses the end of one that ends by a typed
            # COMMIT, and would not begin the next.
            conn.rollback()
            if self._status() != TRANSACTION_STATUS_IDLE:
                self._say("ROLLBACK")  # nor does it know of a BEGIN that was typed in autocommit
            if reset == "discard":
                conn.reset()
            elif callable(reset):
                reset(conn)
                conn.rollback()
            if reset is not None and _looks(conn) != self._as_opened:
                _, conn.isolation_level, conn.readonly, conn.deferrable, auto, factory, _ = (
                    self._as_opened
                )
                conn.autocommit, conn.cursor_factory = auto, factory
            conn.notifies.clear()
            return self._status() == TRANSACTION_STATUS_IDLE
        except Exception:  # also what a `reset` of the user's raises: the connection is not trusted
            return False

    def commit(self):
        if self._status() == TRANSACTION_STATUS_IDLE:
            return
        if self._status() == TRANSACTION_STATUS_INERROR:
            raise PoolError(
                "nothing was committed: an SQL error was swallowed, and it had ended the "
                "transaction; let the error out, or use a savepoint"
            )
        self.conn.commit()
        if self._status() != TRANSACTION_STATUS_IDLE:
            self._say("COMMIT")  # BEGIN typed in autocommit

    def close(self):
        self.conn.close()

    def _say(self, statement):
        with self.conn.cursor() as cursor:
            cursor.execute(statement)


# Kept by psycopg2 on this side of the wire: reading them costs no round trip.
_NAMES = "isolation_level", "readonly", "deferrable", "autocommit", "cursor_factory"
_settings = attrgetter(*_NAMES)
_looks = attrgetter("status", *_NAMES, "notifies")


def _watcher(conn):
    """Return a function that says at once whether the socket has something to read."""
    if hasattr(select, "epoll"):  # Linux: half the price of poll, but a second file descriptor
        epoll = select.epoll()
        epoll.register(conn.fileno(), select.EPOLLIN)
        return partial(epoll.poll, 0, 1)
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(conn.fileno(), select.POLLIN)
        return partial(poll.poll, 0)
    return lambda: select.select([conn], [], [], 0)[0]  # Windows
