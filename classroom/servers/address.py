"""A server of one's own: the address in POOLKIT_DSN, and what is wrong when it does not work."""

import os
import re
import socket

import psycopg2
from psycopg2.extensions import make_dsn, parse_dsn

from . import Server, ServerError

TIMEOUT = 5  # seconds that a host has to answer, for an address that does not say

SYNTAX = (
    "is not an address that a PostgreSQL client understands; "
    "try: 'postgresql://user:password@host:5432/database', with %40 for an @ in the password and "
    "so on, or 'host=… port=5432 dbname=… user=… password=…'"
)

# What libpq or the server says (a pattern), what it means, and what to try; the first that matches.
MEANINGS = [
    (
        "could not translate host name",
        "no host is known by the name {host!r}",
        "correct the host",
    ),
    (
        "invalid port number",
        "{where} has a port that can't be",
        "a port from 1 to 65535",
    ),
    (
        "connection refused|no such file or directory",
        "nobody listens at {where}",
        "start that server, or correct host and port",
    ),
    (
        "unreachable|no route to host|timeout expired|timed out",
        "no answer from {where} within {seconds} s",
        "check host and port, the network and its firewall",
    ),
    (
        "no password supplied|empty password",
        "the server at {where} wants a password for {user!r}",
        "add the password",
    ),
    (
        "password authentication failed",
        "the server at {where} knows no user {user!r} with this password",
        "correct user and password",
    ),
    (
        "authentication failed|pg_hba.conf",
        "the server at {where} does not let {user!r} into {database!r} from here",
        "another user, or a line in its pg_hba.conf",
    ),
    (
        'role ".*" does not exist',
        "the server at {where} has no role {user!r}",
        "correct the user",
    ),
    (
        'database ".*" does not exist',
        "the server at {where} has no database {database!r}",
        "create it, or correct its name",
    ),
    (
        "too many (clients|connections)|connection slots are reserved",
        "the server at {where} has no connection left for {user!r}",
        "close some, or raise max_connections or the role's or the database's limit",
    ),
    (
        "database system is|not yet accepting connections",
        "the server at {where} is starting or stopping",
        "again in a moment",
    ),
    (
        "invalid response|expected authentication request|invalid message length"
        "|closed the connection unexpectedly|connection reset",
        "what answers at {where} is not PostgreSQL",
        "correct host and port",
    ),
]


def find() -> Server:
    """Return the server that POOLKIT_DSN names, after one connection that runs nothing there."""
    dsn = os.environ["POOLKIT_DSN"].strip()
    version, where = ask(dsn, "POOLKIT_DSN")
    return Server("address", dsn, None, version, f"PostgreSQL {version}, your own: {where}")


def ask(dsn: str, name: str, fix: str = "") -> tuple[str, str]:
    """Connect once; return the server's version ("18.4") and "user@host:port/database".

    Waits as long as the address says in connect_timeout, else TIMEOUT seconds for each host.
    Raises ServerError: `name` is whose address it is, and `fix` what to try, where the address
    itself can't be wrong.
    """
    given = _parse(dsn, name)
    seconds = int(given.get("connect_timeout") or 0)
    seconds = seconds if seconds > 0 else TIMEOUT  # nobody is made to wait for ever
    try:
        conn = psycopg2.connect(make_dsn(dsn, connect_timeout=seconds, application_name="poolkit"))
    except psycopg2.Error as error:
        what, advice = _explain(str(error), given, seconds)
        raise ServerError(f"{name}: {what}; try: {fix or advice}") from None
    info = conn.info
    version = f"{info.server_version // 10000}.{info.server_version % 10000}"
    where = f"{info.user}@{_where(info.host, info.port)}/{info.dbname}"
    conn.close()
    return version, where


def course_dsn(port: int, role: str, password: str) -> str:
    """Return the address of the course's database on one of the course's own servers.

    It is complete: what it says, the environment can't change.
    """
    return make_dsn(
        host="127.0.0.1",
        port=port,
        dbname="course",
        user=role,
        password=password,
        connect_timeout=10,
        sslmode="disable",
        gssencmode="disable",
        options="",
    )


def _parse(dsn, name):
    # libpq quotes what it can't read, and so may quote the password: none of it is repeated. An
    # "@" or a port that is no number is what a password with "@" or "/" in it leaves behind.
    try:
        given = parse_dsn(dsn)
    except psycopg2.Error:
        raise ServerError(f"{name} {SYNTAX}") from None
    port, timeout = given.get("port", ""), given.get("connect_timeout", "")
    odd = "://" in dsn and "@" in given.get("host", "") + given.get("dbname", "")
    if odd or not re.fullmatch("[0-9,]*", port) or not re.fullmatch("-?[0-9]*", timeout):
        raise ServerError(f"{name} {SYNTAX}")
    return given


def _explain(said, given, seconds):
    """Return what is wrong, and what to try, for what libpq said about an address."""
    host = given.get("host") or os.environ.get("PGHOST", "")
    port = given.get("port") or os.environ.get("PGPORT", "") or "5432"
    about = {
        "host": host,
        "where": _where(host, port),
        "user": given.get("user") or os.environ.get("PGUSER", ""),
        "database": given.get("dbname") or os.environ.get("PGDATABASE", ""),
        "seconds": seconds,
    }
    if "timeout expired" in said and _accepts(host, port):
        return (
            f"what listens at {about['where']} did not answer as PostgreSQL within {seconds} s",
            "correct host and port",
        )
    for pattern, what, advice in MEANINGS:
        if re.search(pattern, said, re.IGNORECASE):
            return what.format(**about), advice
    reason = said.strip().split("\n")[-1].split("FATAL:")[-1].strip() or "no reason given"
    return f"can't connect to {about['where']}: {reason}", "psql with the same address"


def _where(host, port):
    return f"{host}:{port}" if host else f"the default socket (port {port})"


def _accepts(host, port):
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except (OSError, ValueError):
        return False
    return True
