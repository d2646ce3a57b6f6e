"""The control in every experiment: the same API, and no pool.

Each checkout connects, each return closes. Whatever differs in a measurement is what pooling does.
"""

import sys
import threading
from itertools import count
from time import monotonic

from .errors import PoolClosed, PoolError
from .pool import Holder, PoolStats
from .where import describe


class Unpooled:
    """Opens a connection for each checkout and closes it on return. There is no limit but the
    server's, and nobody ever waits for anybody but the server."""

    def __init__(self, dsn: str = "", *, driver=None, name="unpooled", on_event=None, **kwargs):
        if driver is None:
            from .drivers import Psycopg2

            driver = Psycopg2(dsn, **{"application_name": name} | kwargs)
        self.name, self.on_event, self.closed = name, on_event, False
        self._driver = driver
        self._numbers = count(1)
        self._in_use = {}  # id of a connection -> its number, session and holder

    def connection(self, timeout: float | None = None):
        """Lend a new connection to a `with` block; commit or roll back, and close it at the end.

        `timeout` is here so that a pool can be swapped in: opening takes what the driver allows.
        """
        return _Lending(self)

    def getconn(self, timeout: float | None = None):
        """Open a connection. Raises what the driver raises, and PoolClosed."""
        return self._open(sys._getframe(1)).conn

    def putconn(self, conn, close: bool = True):
        """Close a connection. What its transaction had not committed is rolled back."""
        number, session, _ = self._in_use.pop(id(conn), (None, None, None))
        if session is None:
            raise PoolError(f"can't return a connection to {self.name!r}: it is not one of its own")
        self._tell("return", number)
        session.close()
        self._tell("closed", number)

    def stats(self) -> PoolStats:
        """The same numbers as a pool's. There is no limit: `max_size` is what is in use."""
        n = len(self._in_use)
        return PoolStats(n, n, 0, 0, 0)

    def holders(self, older_than: float = 0.0) -> list[Holder]:
        """List who has had a connection for more than `older_than` seconds, the longest first."""
        now = monotonic()
        out = [h._replace(age=now - h.age) for _, _, h in list(self._in_use.values())]
        return sorted((h for h in out if h.age >= older_than), key=lambda h: -h.age)

    def close(self, timeout: float = 0.0) -> list[Holder]:
        """Open nothing any more, and return who still has a connection."""
        self.closed = True
        return self.holders()

    closeall = close

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.close()

    def __repr__(self):
        return f"<Unpooled {self.name!r}: {len(self._in_use)} in use>"

    def _open(self, frame):
        if self.closed:
            raise PoolClosed(f"{self.name!r} is closed")
        number = next(self._numbers)
        where = describe(frame.f_code, frame.f_lineno)
        self._tell("opening", number)
        try:
            session = self._driver.connect()
        except BaseException:
            self._tell("failed", number)
            raise
        holder = Holder(monotonic(), where, threading.current_thread().name, session.conn)
        self._in_use[id(session.conn)] = number, session, holder
        self._tell("opened", number)
        self._tell("checkout", number, where)
        return session

    def _tell(self, kind, number, where=None):
        if self.on_event:
            self.on_event(self.name, kind, number, where)


class _Lending:
    def __init__(self, source):
        self._source = source

    def __enter__(self):
        self._session = self._source._open(sys._getframe(1))
        return self._session.conn

    def __exit__(self, exc_type, exc, traceback):
        try:
            if exc_type is None:
                self._session.commit()
        finally:
            self._source.putconn(self._session.conn)
