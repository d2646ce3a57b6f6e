"""The server's own view of this notebook's connections, through one connection that is not counted.

Whose connection is it? The server knows each by its application_name:

    poolkit/04/5f0c2ab1/web
            │  │        └── the name a lesson gave it, or nothing
            │  └─────────── this kernel: two people on one server never tidy each other up
            └────────────── the notebook

Everything here looks at, and ends, only what carries this notebook's and this kernel's prefix and
belongs to the role that the lesson's address names.
"""

import functools
import os
import re
import secrets
import select
import threading
import time

import pandas as pd
import psycopg2
from psycopg2.extensions import make_dsn, parse_dsn

from classroom.cells import LessonError, one_line, without_password

NAME_BYTES = 63  # PostgreSQL cuts longer names off, silently
RESERVE = 3  # connections left for others on the server, such as the next notebook's start

MINE = """
    backend_type = 'client backend' and usename = %(role)s and pid <> pg_backend_pid()
    and (application_name = %(prefix)s or starts_with(application_name, %(prefix)s || '/'))
"""
# Lab's own observers (another one may be on its way out) are nobody's connections.
COUNTED = MINE + " and application_name <> %(prefix)s || '/lab'"

END = "select pg_terminate_backend(pid) from pg_stat_activity"

BACKENDS = f"""
    select pid, substr(application_name, length(%(prefix)s) + 2) as name,
           coalesce(state, '') as state, coalesce(wait_event, '') as waiting_on,
           round(extract(epoch from clock_timestamp() - backend_start), 3)::float as open_s,
           regexp_replace(query, '\\s+', ' ', 'g') as query
    from pg_stat_activity where {COUNTED} order by backend_start, pid
"""

# Each limit, less what others use of it. -1 means "no limit"; a superuser is held by none but
# the last. Who has no rights sees others' backend_type as null, but their role all the same.
BUDGET = f"""
    with others as (
        select usename, datname from pg_stat_activity
        where usename is not null and coalesce(backend_type, 'client backend') = 'client backend'
        and not coalesce(({COUNTED}), false)
    )
    select min(room) from (
        select rolconnlimit - (select count(*) from others where usename = %(role)s) as room
        from pg_roles where rolname = %(role)s and rolconnlimit >= 0 and not rolsuper
        union all
        select datconnlimit - (select count(*) from others where datname = %(database)s)
        from pg_database where datname = %(database)s and datconnlimit >= 0
        union all
        select sum(setting::int * case name when 'max_connections' then 1 else -1 end)
               - (select count(*) from others) - %(reserve)s
        from pg_settings
        where name in ('max_connections', 'superuser_reserved_connections', 'reserved_connections')
    ) as limits
"""


class Dsn(str):
    """An address to connect to. A cell that shows it shows it without the password."""

    def __repr__(self):
        return repr(without_password(str(self)))


@functools.cache
def _token(pid):
    return secrets.token_hex(4)


def kernel() -> str:
    """What tells this process from every other: eight characters, new after a fork."""
    return _token(os.getpid())


def _app_name(*parts):
    # Plain characters only, and not too long: the server keeps that as it is.
    plain = (re.sub(r"[^A-Za-z0-9_.-]+", "-", str(part)) for part in parts)
    return "/".join(plain)[:NAME_BYTES]


class Observer:
    """One notebook's window on the server: what is connected there, and who ends it."""

    def __init__(self, server, notebook: str):
        self.server = server
        self.notebook = notebook
        self.kernel = kernel()
        self.prefix = _app_name("poolkit", notebook, self.kernel)
        self._own = None
        self._pid = os.getpid()
        self._lock = threading.Lock()
        given = parse_dsn(server.dsn)
        row = self._rows("select session_user, current_database()")[0]
        self.role = given.get("user") or row[0]
        self.database = given.get("dbname") or row[1]

    # addresses

    @property
    def dsn(self) -> str:
        """The address for this notebook's connections, in the name of this kernel."""
        return self._address(self.server.dsn, self.prefix)

    def dsn_for(self, name: str) -> str:
        """The same address under a name of its own, which `backends()` shows: `dsn_for("web")`."""
        return self._address(self.server.dsn, self.app_name(name))

    def app_name(self, name: str) -> str:
        """The application_name that `dsn_for(name)` carries, cut to what the server keeps."""
        return _app_name("poolkit", self.notebook, self.kernel, name)

    def _address(self, dsn, application_name):
        return Dsn(make_dsn(dsn, application_name=application_name))

    # what the server sees

    def backends(self) -> pd.DataFrame:
        """The server's view of this kernel's connections, oldest first, lab's own left out.

        Columns: pid of the backend; name (see `dsn_for`); state as PostgreSQL says it ("idle",
        "active", "idle in transaction"); waiting_on, the event it waits for ("" if none); open_s,
        seconds since it connected; query, the last one it was sent.
        """
        table = self.query(BACKENDS, self._who())
        table["query"] = [text if len(text) <= 60 else text[:59] + "…" for text in table["query"]]
        return table

    def count(self, name: str | None = None) -> int:
        """How many connections of this kernel the server has now; with `name`, of that name."""
        sql = f"select count(*) from pg_stat_activity where {COUNTED}"
        if name is not None:
            sql += " and application_name = %(application_name)s"
        wanted = self.app_name(name or "")
        return self._rows(sql, self._who() | {"application_name": wanted})[0][0]

    def until(self, count: int = 0, timeout: float = 2.0, name: str | None = None) -> int:
        """Wait until the server has `count` connections of this kernel; return what it has.

        The server removes a backend a moment after its client has closed. Waits for `timeout`
        seconds at the most and does not raise: the number that comes back says how it went.
        """
        deadline = time.monotonic() + timeout
        while (now := self.count(name)) != count and time.monotonic() < deadline:
            time.sleep(0.005)
        return now

    def query(self, sql: str, params=None) -> pd.DataFrame:
        """Run one statement on lab's own connection, in autocommit; return its rows as a table.

        A statement without rows gives an empty table. psycopg2's errors pass through.
        """
        columns, rows = self._run(sql, params)
        return pd.DataFrame(rows, columns=columns)

    @property
    def budget(self) -> int:
        """How many connections this role may hold for this lesson, what it holds now included.

        The least that is left of the role's limit, the database's and the server's, less a small
        reserve for others.
        """
        who = self._who() | {"database": self.database, "reserve": RESERVE}
        return max(0, int(self._rows(BUDGET, who)[0][0]))

    # ending connections

    def terminate(self, pid: int) -> bool:
        """End one backend of this kernel, as a restart or an administrator would.

        Waits until the server has let it go, two seconds at the most; returns whether it has.
        Raises LessonError for a pid that is not this kernel's.
        """
        who = self._who() | {"only": int(pid)}
        if not self._rows(f"{END} where {COUNTED} and pid = %(only)s", who):
            raise LessonError(
                f"lab.terminate({pid}): not a connection of this notebook; see lab.backends()"
            )
        deadline = time.monotonic() + 2
        gone = "select not exists (select from pg_stat_activity where pid = %(only)s)"
        while not (ended := self._rows(gone, who)[0][0]) and time.monotonic() < deadline:
            time.sleep(0.005)
        return ended

    def end_all(self) -> pd.DataFrame:
        """End every connection of this kernel; return the table of what was there."""
        left = self.backends()
        self._rows(
            f"select pg_terminate_backend(pid) from pg_stat_activity where {MINE}", self._who()
        )
        if still := self.until(0):
            raise LessonError(
                f"the server still has {still} connections of {self.prefix} after 2 s"
            )
        return left

    # lab's own connection

    def disconnect(self) -> None:
        """Close lab's own connection; it opens again when it is next needed."""
        with self._lock:
            if self._own is not None:
                self._own.close()
                self._own = None

    def _who(self):
        return {"role": self.role, "prefix": self.prefix}

    def _rows(self, sql, params=None):
        return self._run(sql, params)[1]

    def _run(self, sql, params):
        # One thread at a time: only between statements can a connection be asked if it lives.
        with self._lock:
            if self._pid != os.getpid():  # forked: the connection is the parent's
                self._own, self._pid = None, os.getpid()
            if self._own is None or not _alive(self._own):
                self._own = self._connect()
            with self._own.cursor() as cursor:
                cursor.execute(sql, _plain(params))
                if cursor.description is None:
                    return [], []
                return [column.name for column in cursor.description], cursor.fetchall()

    def _connect(self):
        # As admin, where there is one: it gets in even when the lesson has used up every slot
        # that ordinary roles may have.
        dsn = self.server.admin_dsn or self.server.dsn
        try:
            conn = psycopg2.connect(self._address(dsn, self.app_name("lab")), connect_timeout=10)
        except psycopg2.OperationalError as error:
            raise LessonError(
                f'{self.server.label}: {one_line(error)}; try: start("{self.notebook}") again'
            ) from None
        conn.autocommit = True
        return conn


def _alive(conn):
    # A connection at rest has nothing to say: if it can be read, it holds the server's farewell.
    return not conn.closed and not select.select([conn], [], [], 0)[0]


def _plain(params):
    # A pid taken from a table is numpy's integer, which psycopg2 does not know.
    def plain(value):
        return value.item() if hasattr(value, "item") else value

    if isinstance(params, dict):
        return {name: plain(value) for name, value in params.items()}
    return params and tuple(plain(value) for value in params)
