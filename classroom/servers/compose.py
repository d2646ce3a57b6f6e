"""The compose stack: the database of `docker-compose.yml`, in a container of this course's own.

    poolkit env                   writes .env: passwords, a port and the server's name, all new
    docker compose up -d db       starts it
    find()                        is how lessons come to it

The name is the `cluster_name` of the server. What answers on the port is used only if it carries
the name in our .env, because a port alone says nothing about who listens there.
"""

import logging
import os
import re
import secrets
import socket
import time
from pathlib import Path

import psycopg2

from .. import place
from . import Server, ServerError
from .address import course_dsn

UP = "docker compose up -d db"
PORT = "POOLKIT_DB_PORT"
NAME = "POOLKIT_CLUSTER_NAME"
PASSWORD = "POOLKIT_DB_PASSWORD"  # of the superuser postgres
LEARNER_PASSWORD = "POOLKIT_LEARNER_PASSWORD"
KEYS = (PORT, NAME, PASSWORD, LEARNER_PASSWORD)

FIRST_PORT = 54318  # far from 5432, where somebody's own server may be
PATIENCE = 10  # seconds that a container may take from its start until it answers
STARTING = "database system is starting up|not yet accepting|closed the connection unexpectedly"

log = logging.getLogger(__name__)


def find(folder: Path | None = None) -> Server | None:
    """Return the compose stack's server, or None if there is none or it is not up.

    `folder` is where .env is: the course's. When something answers that is not our server, it is
    left alone, and a line in the log says what was found. Raises ServerError if .env is damaged.
    """
    server, reason = look(folder)
    if server is None and reason:
        log.warning("compose stack not used: %s", reason)
    return server


def look(folder: Path | None = None) -> tuple[Server | None, str]:
    """Return the server and "", or None and why it is not used ("" if nobody tried to use it).

    Nobody did if there is no .env of ours, or nothing listens on its port. While the container
    starts, waits for PATIENCE seconds at most.
    """
    env = read_env(folder)
    if env is None:
        return None, ""
    where = f"127.0.0.1:{env[PORT]}"
    dsn = course_dsn(env[PORT], "learner", env[LEARNER_PASSWORD])
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            version, name = _ask(dsn)
            break
        except psycopg2.OperationalError as error:
            said = " ".join(str(error).split())
            if re.search("refused", said, re.IGNORECASE):
                return None, ""
            if not re.search(STARTING, said) or time.monotonic() > deadline:
                return None, _meaning(where, said)
            time.sleep(0.2)
    if name != env[NAME]:
        return None, (
            f"the server on {where} is another one: its cluster_name is {name!r}, and .env says "
            f"{env[NAME]!r}; try: another {PORT} in .env, then {UP}"
        )
    label = f"PostgreSQL {version}, the compose stack's, on {where}"
    admin = course_dsn(env[PORT], "postgres", env[PASSWORD])
    return Server("compose", dsn, admin, version, label), ""


def _ask(dsn):
    conn = psycopg2.connect(dsn, connect_timeout=3, application_name="poolkit")
    try:
        with conn.cursor() as cur:
            cur.execute("show cluster_name")
            number = conn.info.server_version
            return f"{number // 10000}.{number % 10000}", cur.fetchone()[0]
    finally:
        conn.close()


def _meaning(where, said):
    if "password authentication failed" in said:
        return (
            f"the server on {where} does not accept the password in .env; try: the .env it was "
            "started with, or if its data may go: docker compose down -v"
        )
    if re.search("role .* does not exist|database .* does not exist", said):
        what = said.split("FATAL: ")[-1].strip()
        return f"the server on {where} was not made by docker-compose.yml ({what}); try: {UP}"
    if re.search("too many|slots are reserved", said):
        return f"the server on {where} has no connection left; try: close other notebooks"
    return f"what answers on {where} is not ready, or is not PostgreSQL; try: docker compose ps"


# ------------------------------------------------------------------------------------------ .env


def read_env(folder: Path | None = None) -> dict[str, str] | None:
    """Return our settings in .env, or None if there is no such file or it has none of them.

    Raises ServerError if it has some and not all, or one that can't be right.
    """
    path = (folder or place.ROOT) / ".env"
    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ServerError(f"can't read {str(path)!r}: {error.strerror}; try: {_again()}") from error
    env = {key: value for key, value in _settings(text) if key in KEYS}
    if not env:
        return None
    if missing := [key for key in KEYS if not env.get(key)]:
        raise ServerError(f"{str(path)!r} has no {', '.join(missing)}; try: {_again()}")
    if not (env[PORT].isascii() and env[PORT].isdigit() and 0 < int(env[PORT]) < 65536):
        raise ServerError(f"{str(path)!r}: {PORT} is no port: {env[PORT]!r}; try: {_again()}")
    return env


def _settings(text):
    """The settings of an .env file as compose reads them, except that nothing is substituted."""
    for line in text.splitlines():
        found = re.match(r"\s*(?:export\s+)?([A-Za-z_]\w*)\s*=\s*(.*)", line)
        if not found:
            continue
        key, value = found.groups()
        if quoted := re.match(r"""(['"])(.*?)\1\s*(?:#.*)?$""", value):
            value = quoted[2]
        else:
            value = re.sub(r"(^|\s+)#.*", "", value).strip()
        yield key, value


def _again():
    return "put the line back, or move .env away and run: poolkit env"


def write_env(folder: Path | None = None) -> str:
    """Write .env with new random passwords, a free port and a new name; return a line about it.

    Only its owner may read it. Raises ServerError, and changes nothing, if there is one already:
    the database keeps the passwords that it was made with, and the old .env has them.
    """
    path = (folder or place.ROOT) / ".env"
    name = f"poolkit-{secrets.token_hex(4)}"
    port = _free_port()
    text = (
        "# For docker-compose.yml and the lessons; made by: poolkit env\n"
        "# Keep it with the database: the passwords are set when that is first started.\n"
        f"COMPOSE_PROJECT_NAME={name}\n"  # another clone's stack has another volume
        f"{NAME}={name}\n"
        f"{PORT}={port}\n"
        # Hexadecimal digits need no quotes anywhere: not in compose, in an address or in a shell.
        f"{PASSWORD}={secrets.token_hex(16)}\n"
        f"{LEARNER_PASSWORD}={secrets.token_hex(16)}\n"
    )
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
    except FileExistsError:
        raise ServerError(
            f"{str(path)!r} is there already and was kept, since the database has the passwords "
            f"in it; try: {UP}"
        ) from None
    except OSError as error:
        raise ServerError(
            f"can't write {str(path)!r}: {error.strerror}; try: in a folder of your own"
        ) from error
    return f"poolkit: {path} is written (port {port}); next: {UP}"


def _free_port():
    for port in range(FIRST_PORT, FIRST_PORT + 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise ServerError(
        f"no port from {FIRST_PORT} to {FIRST_PORT + 99} is free on 127.0.0.1; "
        "try: close other programs"
    )
