"""Every pool behind one interface, set up as its own documentation says and each like the others.

    with Peer.open(dsn, min_size, max_size, timeout=30.0, before_connect=None, **options) as pool:
        conn = pool.getconn(timeout=None)
        pool.putconn(conn)

`max_size` is the ceiling everywhere, and `min_size` connections are open when `open()` returns.
`before_connect` is called before each connect, by the thread that connects. `options` are handed to
the pool's own constructor. `close()` does what the pool's own one does: not all of them close what
is still in use.

An adapter costs time, so what is measured in microseconds uses `native`, the pool's own pair of
functions: one that checks out, one that takes what the first gave and returns it.
"""

import operator
import time
from importlib.metadata import version

import dbutils.pooled_db
import psycopg
import psycopg2.extensions
import psycopg2.pool
import psycopg_pool
import sqlalchemy.pool

import poolkit


class Peer:
    """What the adapters share. `connection` is the pool's own `with` form, None if it has none."""

    name = ""
    package = ""  # what the version is asked of
    driver = "psycopg2"
    waits = True  # does its getconn wait when every connection is in use?
    limited = True  # does it keep to max_size?
    connection = None

    def __init__(self, pool):
        self.pool = pool
        self.native = pool.getconn, pool.putconn

    @classmethod
    def version(cls):
        return version(cls.package)

    @staticmethod
    def driver_connection(conn):
        """The driver's connection, where `conn` is a proxy of the pool's."""
        return conn

    def getconn(self, timeout=None):
        """Check out. `timeout` (seconds; None: the one given to `open`) where the pool has one."""
        return self.pool.getconn(timeout)

    def putconn(self, conn):
        self.pool.putconn(conn)

    def close(self):
        self.pool.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.close()

    def _no_timeout(self, timeout):
        if timeout is not None:
            raise TypeError(f"{self.name} has no timeout for one checkout, got {timeout!r}")


class Poolkit(Peer):
    name = package = "poolkit"

    @classmethod
    def open(cls, dsn, min_size, max_size, timeout=30.0, before_connect=None, **options):
        options |= _factory(before_connect)
        return cls(
            poolkit.ConnectionPool(
                dsn, min_size=min_size, max_size=max_size, timeout=timeout, **options
            )
        )

    def connection(self):
        return self.pool.connection()


class Psycopg2Threaded(Peer):
    """It does not wait: it raises PoolError. Whatever is over minconn is closed on return."""

    name = "psycopg2 Threaded"
    package = "psycopg2-binary"
    waits = False

    @classmethod
    def open(cls, dsn, min_size, max_size, timeout=30.0, before_connect=None, **options):
        options |= _factory(before_connect)
        self = cls(psycopg2.pool.ThreadedConnectionPool(min_size, max_size, dsn, **options))
        self.timeout = timeout
        return self

    def getconn(self, timeout=None):
        self._no_timeout(timeout)
        return self.pool.getconn()

    def close(self):
        self.pool.closeall()


class Psycopg2Retry(Psycopg2Threaded):
    """The same with what its users write around it: ask again every millisecond."""

    name = "psycopg2 Threaded + retry"

    def getconn(self, timeout=None):
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        while True:
            try:
                return self.pool.getconn()
            except psycopg2.pool.PoolError:
                if time.monotonic() >= deadline:
                    raise
            time.sleep(0.001)


class PsycopgPool(Peer):
    name = "psycopg_pool"
    package = "psycopg_pool"
    driver = "psycopg 3"

    @classmethod
    def open(cls, dsn, min_size, max_size, timeout=30.0, before_connect=None, **options):
        if before_connect:
            options["connection_class"] = _psycopg3_class(before_connect)
        pool = psycopg_pool.ConnectionPool(
            dsn, min_size=min_size, max_size=max_size, timeout=timeout, open=True, **options
        )
        pool.wait(timeout)
        return cls(pool)

    def connection(self):
        return self.pool.connection()


class PsycopgPoolChecked(PsycopgPool):
    """With the liveness check that its documentation offers: a round trip for each checkout."""

    name = "psycopg_pool + check"

    @classmethod
    def open(cls, *args, **options):
        check = psycopg_pool.ConnectionPool.check_connection
        return super().open(*args, check=check, **options)


class SQLAlchemyQueuePool(Peer):
    """The pool alone, without engine or ORM. It opens nothing in advance, so `open()` does."""

    name = "SQLAlchemy QueuePool"
    package = "SQLAlchemy"

    def __init__(self, pool):
        self.pool = pool
        self.native = pool.connect, operator.methodcaller("close")

    @classmethod
    def open(cls, dsn, min_size, max_size, timeout=30.0, before_connect=None, **options):
        factory = _factory(before_connect)
        pool = sqlalchemy.pool.QueuePool(
            lambda: psycopg2.connect(dsn, **factory),
            pool_size=max_size,
            max_overflow=0,
            timeout=timeout,
            **options,
        )
        for conn in [pool.connect() for _ in range(min_size)]:
            conn.close()
        return cls(pool)

    @staticmethod
    def driver_connection(conn):
        return conn.driver_connection

    def getconn(self, timeout=None):
        self._no_timeout(timeout)
        return self.pool.connect()

    def putconn(self, conn):
        conn.close()

    def close(self):
        self.pool.dispose()


class DBUtilsPooledDB(Peer):
    """It waits for ever: it has no timeout at all."""

    name = "DBUtils PooledDB"
    package = "DBUtils"

    def __init__(self, pool):
        self.pool = pool
        self.native = pool.connection, operator.methodcaller("close")

    @classmethod
    def open(cls, dsn, min_size, max_size, timeout=30.0, before_connect=None, **options):
        options = {"mincached": min_size, "maxcached": max_size, "blocking": True} | options
        pool = dbutils.pooled_db.PooledDB(
            psycopg2, maxconnections=max_size, dsn=dsn, **_factory(before_connect), **options
        )
        return cls(pool)

    @staticmethod
    def driver_connection(conn):
        return conn.dbapi_connection

    def getconn(self, timeout=None):
        self._no_timeout(timeout)
        return self.pool.connection()

    def putconn(self, conn):
        conn.close()

    def connection(self):
        return self.pool.connection()


class Unpooled(Peer):
    """The control: connect, and close. There is no limit, so nobody waits for anybody."""

    name = "unpooled"
    package = "psycopg2-binary"
    waits = False
    limited = False

    def __init__(self, connect):
        self.connect = connect
        self.native = connect, operator.methodcaller("close")

    @classmethod
    def open(cls, dsn, min_size=0, max_size=None, timeout=30.0, before_connect=None, **options):
        options |= _factory(before_connect)
        return cls(lambda: psycopg2.connect(dsn, **options))

    def getconn(self, timeout=None):
        self._no_timeout(timeout)
        return self.connect()

    def putconn(self, conn):
        conn.close()

    def close(self):
        pass


PEERS = (
    Poolkit,
    Psycopg2Threaded,
    PsycopgPool,
    SQLAlchemyQueuePool,
    DBUtilsPooledDB,
    Unpooled,
)


def _factory(before_connect):
    # psycopg2's own way to take part in a connect; all pools on psycopg2 use this one.
    if before_connect is None:
        return {}

    class Connection(psycopg2.extensions.connection):
        def __init__(self, *args, **kwargs):
            before_connect()
            super().__init__(*args, **kwargs)

    return {"connection_factory": Connection}


def _psycopg3_class(before_connect):
    class Connection(psycopg.Connection):
        @classmethod
        def connect(cls, *args, **kwargs):
            before_connect()
            return super().connect(*args, **kwargs)

    return Connection
