"""Somebody else's measurement of the lesson's effect: PostgreSQL's own benchmark program.

`pgbench -S` looks one row up per transaction, on connections that it keeps. With `-C` it opens a
new connection for each transaction. The tables it wants are made once, in a schema of their own.
"""

import os
import re
import subprocess

import pandas as pd
import psycopg2
from psycopg2 import sql
from psycopg2.extensions import make_dsn, parse_dsn

from classroom.cells import LessonError, one_line
from classroom.servers import ServerError, postgres

SCHEMA = "pgbench"
# The primary keys come last, so a table that has one is complete.
READY = f"""
    select exists (
        select from pg_index
        where indrelid = to_regclass('{SCHEMA}.pgbench_accounts') and indisprimary
    )
"""


def run(lab, seconds: int, clients: int) -> pd.DataFrame:
    """Measure with connections kept, and with a new one for each transaction.

    See `Lab.pgbench` for the columns. Raises LessonError where it cannot be done.
    """
    if lab.budget < clients:
        raise LessonError(
            f"no pgbench: {clients} clients wanted, room for {lab.budget} connections"
        )
    _initialise(lab)
    load = ["-S", "-n", "-T", max(1, round(seconds)), "-c", clients, "-j", min(clients, 2)]
    rows = [("kept", *_measure(lab, load)), ("new each time", *_measure(lab, [*load, "-C"]))]
    table = pd.DataFrame(rows, columns=["connections", "per_s", "ms"])
    table["times"] = (table["per_s"].iat[0] / table["per_s"]).round(1)
    return table


def _initialise(lab):
    # One kernel at a time: two first starts would make the same tables.
    try:
        lab.query("select pg_advisory_lock(hashtext(%s))", (SCHEMA,))
        try:
            if lab.query(READY).iat[0, 0]:
                return
            lab.query(
                sql.SQL("create schema if not exists {} authorization {}").format(
                    sql.Identifier(SCHEMA), sql.Identifier(lab.role)
                )
            )
            _pgbench(lab, ["-i", "-s", 1, "-q"])
        finally:
            lab.query("select pg_advisory_unlock(hashtext(%s))", (SCHEMA,))
    except psycopg2.Error as error:
        raise LessonError(f"no pgbench: {one_line(error)}") from None


def _measure(lab, arguments):
    said = _pgbench(lab, arguments)
    tps = re.search(r"^tps = ([\d.]+)", said, re.MULTILINE)
    latency = re.search(r"^latency average = ([\d.]+)", said, re.MULTILINE)
    if not (tps and latency):
        raise LessonError(f"no pgbench: it reported no result ({one_line(said)[-200:]})")
    return round(float(tps[1]), 1), float(latency[1])


def _pgbench(lab, arguments):
    given = parse_dsn(lab.dsn)
    # The arguments of a process are for all to see, so the password goes into its environment.
    password = given.pop("password", None)
    given["application_name"] = lab.app_name("pgbench")
    given["options"] = f"{given.get('options', '')} -c search_path={SCHEMA}".strip()
    env = dict(os.environ)
    if password is not None:
        env["PGPASSWORD"] = password
    try:
        program = postgres.bin_dir() / "pgbench"
        done = subprocess.run(
            [program, *map(str, arguments), make_dsn(**given)],
            env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
    except (ServerError, OSError, subprocess.TimeoutExpired) as error:
        raise LessonError(f"no pgbench: {one_line(error)}") from None
    if done.returncode:
        raise LessonError(f"no pgbench: {one_line(done.stderr)[-300:]}")
    return done.stdout
