"""What a check can see of the learner's function: what it did, not how it looks.

rows, value, conn            the facts, over a connection of the judge's own
pool, psycopg2_pool          watched pools to hand to the function; dsn, if it makes its own
call                         calls the function; what it raises is "not yet"
expect, expect_equal,        raise NotYet with the reason
expect_only, expect_returned
checkouts, leaked, waits, peak, clients, opened, unclean, own, backends, until
kill_all, kill_next          end backends, as a restart or an administrator would
"""

import inspect
import reprlib
import sys
import threading
import weakref
from contextlib import contextmanager, suppress
from time import monotonic, sleep
from typing import NamedTuple

import psycopg2
from psycopg2.extensions import (
    TRANSACTION_STATUS_IDLE,
    TRANSACTION_STATUS_INERROR,
    TRANSACTION_STATUS_INTRANS,
    make_dsn,
    parse_dsn,
)
from psycopg2.pool import PoolError as Psycopg2PoolError
from psycopg2.pool import ThreadedConnectionPool

from classroom.cells import one_line
from poolkit import ConnectionPool, Outcome, PoolTimeout, Recorder, checkouts, waits
from poolkit.drivers import Psycopg2, Psycopg2Session
from poolkit.where import describe

from .deadline import BOUNDARY, Stopped, is_library, theirs

MEETING = 0.5  # seconds that the first of several threads is held up for the others


class NotYet(Exception):
    """The answer does not do what it should; the message is the reason, in one line."""


class Own(NamedTuple):
    """A connection that was not opened by a pool of the judge's."""

    where: str  # the learner's line: "cell In[7] line 3 in answer"
    pid: int
    conn: object  # a weak reference: watching must not keep it open


class Backend(NamedTuple):
    """One connection as the server sees it."""

    pid: int
    state: str  # "idle", "active", "idle in transaction" …
    name: str  # its application_name


class Judge:
    """Watches one answer at work on the server at `dsn`. Call `close()` at the end.

    `judge.dsn` is that address under a name of this check's own, for answers that connect by
    themselves. Raises psycopg2.OperationalError if the server does not let it in.
    """

    def __init__(self, dsn: str):
        label = parse_dsn(dsn).get("application_name", "poolkit")[:50]
        self.app_name = f"{label}/exercise"
        self.dsn = make_dsn(dsn, application_name=self.app_name)
        self.own: list[Own] = []
        self.unclean: list[str] = []  # in what state connections came back, if not at rest
        self._record = Recorder()
        self._pools, self._conns, self._calls = [], [], 0
        self._ours = threading.local()
        self._doomed = None  # the pool whose next checkout loses its backend
        # It must not wait for ever for a row that the answer has locked.
        limits = "-c statement_timeout=3000"
        self.conn = psycopg2.connect(
            make_dsn(dsn, application_name=f"{label}/judge", options=limits)
        )
        self.conn.autocommit = True

    # -- facts -----------------------------------------------------------------------------------

    def rows(self, sql: str, params=None) -> list[tuple]:
        """Run a statement on the judge's own connection, which commits at once."""
        with self.conn.cursor() as cur:
            cur.execute(sql, params)
            return cur.fetchall() if cur.description else []

    def value(self, sql: str, params=None):
        """Return the first column of the first row."""
        return self.rows(sql, params)[0][0]

    # -- pools to hand out -----------------------------------------------------------------------

    def pool(self, max_size: int = 2, meet: int = 1, **settings) -> ConnectionPool:
        """Return a watched ConnectionPool, whose requests wait 1 s unless `timeout=…` says else.

        With `meet=2`, two connections are open already, and the first checkout is held up until a
        second thread has checked out, too (half a second at the most): so fast queries cannot hide
        whether several threads ask at once.
        """
        settings = {"timeout": 1.0, "name": self._new_name(), "min_size": meet} | settings
        heard = _Meeting(self._record, meet) if meet > 1 else self._record
        driver = _Driver(self, settings["name"])
        pool = ConnectionPool(driver=driver, max_size=max_size, on_event=heard, **settings)
        self._pools.append(pool)
        return pool

    def psycopg2_pool(self, minconn: int = 1, maxconn: int = 2) -> ThreadedConnectionPool:
        """Return a watched ThreadedConnectionPool, psycopg2's own."""
        pool = WatchedThreadedPool(self, self._new_name(), minconn, maxconn)
        self._pools.append(self._record.watch(pool, pool.name))
        return pool

    def watch(self, pool):
        """Watch a pool that the answer has made, of either kind, from now on; return it."""
        pool.name = self._new_name()
        self._pools.append(self._record.watch(pool, pool.name))
        return pool

    def _new_name(self):
        return "exercise" if not self._pools else f"exercise-{len(self._pools) + 1}"

    # -- calling ---------------------------------------------------------------------------------

    def call(self, function, *args, raises=None, **kwargs) -> Outcome:
        """Call the learner's function; return what came of it (result, error, start, end).

        With `raises`, an exception class, it has to raise that. Any other exception is NotYet, with
        the line it came from; of a pool that has none left, the line that kept the last one.
        """
        self._calls += 1
        result, error, start = None, None, monotonic()
        try:
            result = function(*args, **kwargs)
        except (NotYet, Stopped):
            raise
        except BaseException as raised:  # exit(), too
            error = raised
        end = monotonic()
        if inspect.iscoroutine(result):
            result.close()
            raise NotYet("write an ordinary function: `async` returns before the work is done")
        if error is not None and not (raises and isinstance(error, raises)):
            self._explain(error)
        if raises and error is None:
            raise NotYet(
                f"{self._named(function, args)} should have failed, and it returned "
                f"{_short(result)}: let the error reach the caller"
            )
        if error is not None:
            error = error.with_traceback(None)  # its frames would keep connections alive
        return Outcome(threading.current_thread().name, result, error, start, end)

    def _explain(self, error):
        where = _raised_at(error)
        if isinstance(error, PoolTimeout | Psycopg2PoolError) and (leaked := self.leaked()):
            raise NotYet(f"the pool has none left: {_places(leaked)} never came back") from None
        said = one_line(error)
        raise NotYet(
            f"your function raised {type(error).__name__}{': ' * bool(said)}{said}"
            + (f", at {where}" if where else "")
        ) from None

    def _named(self, function, args):
        shown = ", ".join("pool" if a in self._pools else _short(a) for a in args)
        name = getattr(function, "__name__", "<")
        return "your function" if name.startswith("<") else f"{name}({shown})"

    # -- expecting -------------------------------------------------------------------------------

    def expect(self, condition, reason: str) -> None:
        """Go on if the condition holds; else the answer is not there yet, for this reason."""
        if not condition:
            raise NotYet(reason)

    def expect_equal(self, got, wanted, when: str) -> None:
        """Expect a result; `when` says of which call: "for flight 7"."""
        if got is None and wanted is not None:
            raise NotYet(f"{when} it returned None: is a return missing?")
        self.expect(
            got == wanted, f"{when} it returned {_short(got)}, and {_short(wanted)} was expected"
        )

    def expect_only(self, pool) -> None:
        """Expect that the function used this pool, and opened no connection beside it."""
        if self.own:
            raise NotYet(
                f"a connection was opened at {self.own[0].where}, beside the pool: "
                "take one from the pool that the function is given"
            )
        self.expect(self.checkouts(pool), "the pool that the function is given was never used")

    def expect_returned(self, when: str = "") -> None:
        """Expect that every connection of the judge's pools is back, and at rest; `when` says
        after what: "when the query failed"."""
        when = when and f" {when}"
        if leaked := self.leaked():
            raise NotYet(f"not returned{when}: {_places(leaked)}")
        if any(not c.closed and _status(c) != TRANSACTION_STATUS_IDLE for _, c in self._conns):
            raise NotYet(
                f"a connection was used after it had been returned{when}: by then it is "
                "somebody else's"
            )

    # -- what the pools saw ----------------------------------------------------------------------

    def checkouts(self, pool=None) -> list:
        """All checkouts, of one pool or of all: see poolkit.recorder.Checkout."""
        return [c for c in checkouts(self._record.events) if pool is None or c.pool == pool.name]

    def leaked(self, pool=None) -> list:
        """The checkouts that have not ended."""
        return [checkout for checkout in self.checkouts(pool) if checkout.end is None]

    def waits(self, pool=None) -> list:
        """The requests that had to queue: see poolkit.recorder.Wait."""
        return [w for w in waits(self._record.events) if pool is None or w.pool == pool.name]

    def peak(self, pool=None) -> int:
        """How many connections were checked out at once, at the most."""
        out = most = 0
        ends = [(c.end, -1) for c in self.checkouts(pool) if c.end is not None]
        for _, change in sorted([(c.start, 1) for c in self.checkouts(pool)] + ends):
            out += change
            most = max(most, out)
        return most

    def clients(self, pool=None) -> set:
        """The names of the threads that have checked out."""
        return {checkout.client for checkout in self.checkouts(pool)}

    def opened(self, pool=None) -> int:
        """How many connections the pools have opened so far."""
        return sum(
            event.kind == "opened" and (pool is None or event.pool == pool.name)
            for event in self._record.events
        )

    def summary(self) -> str:
        """Say in a few words what was seen."""
        done = self.checkouts()
        if not done:
            return f"{_plural(self._calls, 'call')} tried"
        still = len(self.leaked())
        back = f"{still} not returned" if still else "all returned"
        return f"{_plural(len(done), 'checkout')}, {back}, at most {self.peak()} at once"

    # -- what the server sees --------------------------------------------------------------------

    def backends(self) -> list[Backend]:
        """The server's view of what this check has open, pools and answer; not the judge's own."""
        sql = """
            select pid, coalesce(state, ''), application_name from pg_stat_activity
            where pid <> pg_backend_pid() and usename = session_user
            and (application_name = %s or pid = any(%s)) order by backend_start
        """
        pids = [own.pid for own in self.own if own.conn() is not None and not own.conn().closed]
        return [Backend(*row) for row in self.rows(sql, (self.app_name, pids))]

    def until(self, count: int, timeout: float = 1.0) -> int:
        """Wait until the server has `count` backends of this check; return how many it has.

        The server lets go a moment after its client has closed: `timeout` seconds at the most.
        """
        deadline = monotonic() + timeout
        while (now := len(self.backends())) != count and monotonic() < deadline:
            sleep(0.005)
        return now

    # -- ending backends -------------------------------------------------------------------------

    def kill_next(self, pool) -> None:
        """Let the backend of the pool's next checkout end in the hands of whoever gets it."""
        self._doomed = pool.name

    def kill_all(self, pool) -> None:
        """End the backends of all connections that this pool has, as a restart would."""
        for name, conn in self._conns:
            if name == pool.name and not conn.closed:
                self._kill(conn)

    def _kill(self, conn):
        # The server waits until it is gone, 2 s at the most.
        self.rows("select pg_terminate_backend(%s, 2000)", (conn.info.backend_pid,))

    # -- watching --------------------------------------------------------------------------------

    @contextmanager
    def watching(self):
        """See every connection that is opened, whoever opens it, while the block runs."""
        connect = psycopg2._connect  # what psycopg2.connect calls, under whatever name it is known
        others = set(threading.enumerate())  # a panel, say, of an earlier cell

        def watched(*args, **kwargs):
            conn = connect(*args, **kwargs)
            ours = getattr(self._ours, "connecting", False)
            if ours or threading.current_thread() in others:
                return conn
            if frame := theirs(sys._getframe(1)):
                where = describe(frame.f_code, frame.f_lineno)
                self.own.append(Own(where, conn.info.backend_pid, weakref.ref(conn)))
            return conn

        psycopg2._connect = watched
        try:
            yield
        finally:
            psycopg2._connect = connect

    @contextmanager
    def _connecting(self):
        self._ours.connecting = True
        try:
            yield
        finally:
            self._ours.connecting = False

    def _lent(self, pool_name, conn):
        if self._doomed == pool_name:
            self._doomed = None
            self._kill(conn)

    def _comes_back(self, conn):
        state = {
            TRANSACTION_STATUS_INTRANS: "in a transaction",
            TRANSACTION_STATUS_INERROR: "in a failed transaction",
        }.get(_status(conn))
        if state and not conn.closed:
            self.unclean.append(state)

    # -- the end ---------------------------------------------------------------------------------

    def free(self) -> None:
        """Let nobody wait any more: end every backend of this check, and close its pools."""
        with suppress(psycopg2.Error):
            for backend in self.backends():
                self.rows("select pg_terminate_backend(%s, 2000)", (backend.pid,))
        for pool in self._pools:
            if isinstance(pool, ConnectionPool):
                pool.close(timeout=0)
            else:
                with suppress(Psycopg2PoolError):  # closed already
                    pool.closeall()

    def close(self) -> None:
        """End what is left of this check, on the server and here."""
        self.free()
        for _, conn in self._conns:
            conn.close()
        self.conn.close()


BOUNDARY.add(Judge.call.__code__)


class _Meeting:
    """Records, and holds the first checkout up until `number` threads have one."""

    def __init__(self, record, number):
        self._record, self._number = record, number
        self._here, self._met = set(), threading.Event()

    def __call__(self, pool, kind, conn=None, where=None):
        self._record(pool, kind, conn, where)
        if kind == "checkout":
            self._here.add(threading.current_thread())
            if len(self._here) >= self._number:
                self._met.set()
            self._met.wait(MEETING)
            self._met.set()  # once is enough


class _Driver(Psycopg2):
    """Opens the connections of a judge's ConnectionPool."""

    def __init__(self, judge, pool_name):
        super().__init__(judge.dsn)
        self._judge, self._pool_name = judge, pool_name

    def connect(self):
        with self._judge._connecting():
            conn = super().connect().conn
        self._judge._conns.append((self._pool_name, conn))
        return _Session(conn, self._judge, self._pool_name)


class _Session(Psycopg2Session):
    __slots__ = ("_judge", "_pool_name")

    def __init__(self, conn, judge, pool_name):
        super().__init__(conn)
        self._judge, self._pool_name = judge, pool_name

    def alive(self):
        # The pool's last question before it lends.
        alive = super().alive()
        if alive:
            self._judge._lent(self._pool_name, self.conn)
        return alive

    def clean(self, reset="rollback"):
        # Called on return, unless there is nothing to clean.
        self._judge._comes_back(self.conn)
        return super().clean(reset)


class WatchedThreadedPool(ThreadedConnectionPool):
    """psycopg2's pool, which tells a judge what it does."""

    def __init__(self, judge, name, minconn, maxconn):
        self._judge, self.name = judge, name
        super().__init__(minconn, maxconn, judge.dsn)

    def _connect(self, key=None):
        with self._judge._connecting():
            conn = super()._connect(key)
        self._judge._conns.append((self.name, conn))
        return conn

    def getconn(self, key=None):
        conn = super().getconn(key)
        self._judge._lent(self.name, conn)
        return conn

    def putconn(self, conn=None, key=None, close=False):
        if conn is not None:
            self._judge._comes_back(conn)
        super().putconn(conn, key, close)


def connect_beside(pool):
    """Open a connection that is not the pool's, as a wrong answer does with `lab.dsn`."""
    dsn = pool._driver.dsn if isinstance(pool, ConnectionPool) else pool._args[0]
    return psycopg2.connect(dsn)


def _raised_at(error):
    # The last of the learner's own lines that the exception came through.
    found, trace = "", error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if not is_library(code.co_filename):
            found = describe(code, trace.tb_lineno)
        trace = trace.tb_next
    return found


def _status(conn):
    return conn.get_transaction_status()


def _places(leaked):
    places = list(dict.fromkeys(checkout.where for checkout in leaked))
    more = f" and {len(places) - 2} more places" if len(places) > 2 else ""
    return (
        f"{_plural(len(leaked), 'connection')} checked out at {' and at '.join(places[:2])}{more}"
    )


def _short(value):
    return reprlib.repr(value)


def _plural(n, word):
    return f"{n} {word}" if n == 1 else f"{n} {word}s"
