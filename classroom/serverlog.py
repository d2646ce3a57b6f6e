"""Where the milliseconds of a connect go, as the server itself logged them.

PostgreSQL 18 writes a line like this for every connection, if `log_connections` asks for
`setup_durations`, as the course's private server does:

    ... [7464] LOG:  connection ready: setup total=9.447 ms, fork=0.309 ms, authentication=3.790 ms
"""

import re
import time

import pandas as pd
import psycopg2

from classroom.cells import LessonError, one_line

READY = re.compile(
    r"\[(\d+)\].*connection ready: setup total=([\d.]+) ms, "
    r"fork=([\d.]+) ms, authentication=([\d.]+) ms"
)
COLUMNS = ["client_ms", "total_ms", "fork_ms", "authentication_ms"]


def setup_durations(lab, n: int) -> pd.DataFrame:
    """Open and close `n` connections of the lab's; return both sides' times, a row for each.

    See `Lab.setup_durations` for the columns. Raises LessonError where the log cannot be read.
    """
    path, start = _log(lab)
    took = {}
    for _ in range(n):
        before = time.perf_counter()
        conn = psycopg2.connect(lab.dsn_for("setup"))
        took[conn.info.backend_pid] = (time.perf_counter() - before) * 1000
        conn.close()
    text = _ask(lab, "select pg_read_file(%s, %s, 100000000)", (path, start))
    logged = {int(pid): tuple(map(float, times)) for pid, *times in READY.findall(text)}
    rows = [(took[pid], *logged[pid]) for pid in took if pid in logged]
    if not rows:
        raise LessonError(f"no set-up times: the server logged none of {n} connections in {path}")
    return pd.DataFrame(rows, columns=COLUMNS).round(3)


def _log(lab):
    """Return the log's path as the server names it, and its size now."""
    if lab.server.admin_dsn is None:
        raise LessonError(f"no set-up times: {lab.server.label} does not let us read its log")
    asked = _ask(lab, "select setting from pg_settings where name = 'log_connections'")
    if "setup_durations" not in asked and asked != "all":
        raise LessonError(
            "no set-up times: the server does not log them "
            "(needs PostgreSQL 18 and log_connections = 'setup_durations')"
        )
    path = lab.server.log and str(lab.server.log)
    if path is None:
        path = _ask(lab, "select pg_current_logfile()")
    if path is None:
        raise LessonError("no set-up times: the server does not keep its log in a file")
    return path, _ask(lab, "select size from pg_stat_file(%s)", (path,))


def _ask(lab, sql, params=None):
    try:
        return lab.query(sql, params).iat[0, 0]
    except psycopg2.Error as error:
        raise LessonError(f"no set-up times: {one_line(error)}") from None
