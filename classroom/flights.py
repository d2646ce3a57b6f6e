"""The departures board: the course's tables, and the three queries that are its workload.

`load(dsn)` puts the files of `data/` into the schema `board` of the server; `schema.sql`, beside
this file, draws the tables. Then there is one query of each kind that a service has:

    LOOKUP   short: one flight by its number on the board        lookup(conn, flight_id)
    REPORT   medium: reads every flight, returns 55 rows          report(conn)
    BOARD    a write to a hot row: three rows for everybody       board(conn, origin)
"""

import gzip
import hashlib
import re
from contextlib import closing
from functools import cache
from pathlib import Path

import psycopg2
from psycopg2 import errors
from psycopg2.extensions import quote_ident

from classroom.servers import ServerError, address

__all__ = ["BOARD", "FLIGHTS", "LOOKUP", "ORIGINS", "REPORT", "LoadError"]
__all__ += ["board", "load", "lookup", "report"]

ORIGINS = ("EWR", "JFK", "LGA")
FLIGHTS = 27_004  # their ids are 1, 2, … FLIGHTS

LOOKUP = """
    select f.carrier || ' ' || f.number as flight, l.name as airline,
           d.name as destination, f.sched_dep, f.dep_delay
    from board.flights f
    join board.airlines l on l.carrier = f.carrier
    join board.airports d on d.faa = f.dest
    where f.id = %s
"""

REPORT = """
    select extract(hour from sched_dep)::int as hour, origin, count(*) as flights,
           count(*) - count(dep_delay) as cancelled, avg(dep_delay)::float8 as mean_delay
    from board.flights
    group by 1, 2
    order by 1, 2
"""

BOARD = """
    update board.boarding set passengers = passengers + %s
    where origin = %s
    returning passengers
"""


# The workload. None of the three commits: that is the caller's decision, and often the lesson.


def lookup(conn, flight_id):
    """Return one flight: flight ("B6 725"), airline, destination, sched_dep, dep_delay (minutes).

    A tuple; `sched_dep` is New York's clock, and `dep_delay` is None if the flight was cancelled.
    Returns None if there is no such id (they run from 1 to `FLIGHTS`). Does not commit.
    """
    with conn.cursor() as cur:
        cur.execute(LOOKUP, (flight_id,))
        return cur.fetchone()


def report(conn):
    """Return the delays by hour of the day and airport, as the board's daily report.

    A list of 55 tuples: hour (0-23), origin, flights, cancelled, mean_delay (minutes, of those that
    left). Does not commit.
    """
    with conn.cursor() as cur:
        cur.execute(REPORT)
        return cur.fetchall()


def board(conn, origin, n=1):
    """Count `n` more passengers who board at `origin`, and return how many that makes.

    Waits while another transaction has counted at the same airport and not yet ended, and makes
    the next one wait until the caller commits or rolls back. Raises ValueError for another airport.
    """
    with conn.cursor() as cur:
        cur.execute(BOARD, (n, origin))
        row = cur.fetchone()
    if row is None:
        raise ValueError(f"origin must be one of {', '.join(ORIGINS)}, got {origin!r}")
    return row[0]


# Loading.

DATA = Path(__file__).resolve().parent.parent / "data"
SCHEMA = Path(__file__).resolve().with_name("schema.sql")
TABLES = ("airlines", "airports", "planes", "weather", "flights")  # what is referenced comes first
ALL = [f"board.{table}" for table in (*TABLES, "boarding")]
OURS = "poolkit departures board"  # how the schema's comment begins if it is ours
LOCK = int.from_bytes(b"board")  # the advisory lock's number


class LoadError(Exception):
    """The departures board could not be loaded; nothing on the server was changed."""


def load(dsn):
    """Make sure that the departures board is on the server; return True if it had to be loaded.

    What is there already is recognised by the schema's comment and by counting rows, in a few
    milliseconds. An older version, or one that has lost rows, is replaced in a single transaction:
    nobody sees half of it. Of two that load at once the second waits for the first and finds
    everything done. Only the six tables in the schema `board` are touched, and never those of a
    schema `board` that is somebody else's. Raises LoadError, in one line that says why.
    """
    with closing(_connect(dsn)) as conn:  # closing without a commit undoes everything
        try:
            # Read committed, whatever the role's default: a snapshot taken before the lock
            # would not show what the one who held it has done.
            conn.set_session(isolation_level="READ COMMITTED")
            with conn.cursor() as cur:
                fresh = _load(cur, _fingerprint())
            conn.commit()
            return fresh
        except psycopg2.Error as error:
            raise LoadError(f"departures board: not loaded: {_explain(error)}") from error
        except OSError as error:
            raise LoadError(
                f"departures board: can't read {str(error.filename or DATA)!r}: "
                f"{error.strerror or error}; try: git checkout -- data"
            ) from error


def _connect(dsn):
    try:
        return psycopg2.connect(dsn, fallback_application_name="poolkit/load")
    except psycopg2.Error:  # its text may quote a password; this asks again, and knows what to say
        try:
            address.ask(dsn, "departures board")
        except ServerError as error:
            raise LoadError(str(error)) from None
        raise LoadError("departures board: no connection; try: again in a moment") from None


def _load(cur, fingerprint):
    if _loaded(cur, fingerprint):
        return False
    cur.connection.rollback()  # lets go of the tables, which somebody may be about to replace
    # A limit set for this role's short queries is not meant for a load.
    cur.execute("set local statement_timeout = 0; set local lock_timeout = '60s'")
    cur.execute("select pg_advisory_xact_lock(%s)", (LOCK,))
    if _loaded(cur, fingerprint):
        return False

    # Without `cascade`: what others built on these tables is theirs, and stops us.
    cur.execute("set local lock_timeout = '5s'")
    cur.execute(f"drop table if exists {', '.join(ALL)}")
    tables, keys = SCHEMA.read_text(encoding="utf-8").split("-- The rows come in here.")
    cur.execute(tables)
    for table in TABLES:
        with gzip.open(DATA / f"{table}.csv.gz") as file:
            columns = file.readline().decode().strip()
            # Frozen rows need no second write by whoever reads them first, so the first
            # measurement is like the others.
            cur.copy_expert(
                f"copy board.{table} ({columns}) from stdin with (format csv, freeze)", file
            )
    cur.execute(keys)
    cur.execute(f"analyze {', '.join(ALL)}")
    cur.execute("comment on schema board is %s", (f"{OURS} {fingerprint}, {_rows(cur)} rows",))
    return True


def _loaded(cur, fingerprint):
    """Whether this very version is there, whole; raises LoadError if we must not put it there."""
    # From the catalogs themselves: functions such as to_regnamespace() may answer from a memory
    # older than our wait for the lock.
    cur.execute(
        """
        select n.oid is not null, coalesce(obj_description(n.oid, 'pg_namespace'), ''),
               d.datname, current_user, has_database_privilege(d.oid, 'create'),
               (select count(*) from pg_class c
                where c.relnamespace = n.oid and c.relkind = 'r' and c.relname = any(%s))
        from pg_database d left join pg_namespace n on n.nspname = 'board'
        where d.datname = current_database()
        """,
        ([*TABLES, "boarding"],),
    )
    exists, comment, database, role, may_create, found = cur.fetchone()
    if exists and not comment.startswith(OURS):
        raise LoadError(
            f"departures board: database {database!r} has a schema 'board' that is not this "
            "course's, and it was left as it is; try: another database, or rename that schema"
        )
    if not exists and not may_create:
        grant = f"grant create on database {quote_ident(database, cur)} to {quote_ident(role, cur)}"
        raise LoadError(
            f"departures board: role {role!r} may not create a schema in database {database!r}; "
            f"try, as the database's owner: {grant}"
        )
    complete = re.fullmatch(rf"{OURS} {fingerprint}, (\d+) rows", comment)
    if not complete or found < len(ALL):
        return False
    return _rows(cur) >= int(complete[1])  # more of them: a lesson added some


def _rows(cur):
    cur.execute(f"select {' + '.join(f'(select count(*) from {table})' for table in ALL)}")
    return cur.fetchone()[0]


@cache
def _fingerprint():
    """Twelve hex digits that change with the schema and the data."""
    digest = hashlib.sha256(SCHEMA.read_text(encoding="utf-8").encode())  # whatever the line ends
    for table in TABLES:
        digest.update((DATA / f"{table}.csv.gz").read_bytes())
    return digest.hexdigest()[:12]


def _explain(error):
    said = error.diag.message_primary or str(error).partition("\n")[0]
    if isinstance(error, errors.LockNotAvailable):
        return "another session is using its tables; try: close other notebooks, then start again"
    if isinstance(error, errors.DependentObjectsStillExist):
        detail = (error.diag.message_detail or said).splitlines()[0]
        return f"something else was built on its tables ({detail}); try: drop that first"
    if isinstance(error, errors.InsufficientPrivilege):
        return f"{said}; try: the address of the role that loaded it, or have that role grant it"
    return said
