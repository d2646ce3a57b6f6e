"""Which database a lesson talks to.

    POOLKIT_DSN          an address that the learner gave
    the compose stack    if its .env is here and the server that answers is its own
    a private server     started for the lesson, so that there always is one

`find()` asks in that order. Nothing ever talks to a server that it was not told to use.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path


class ServerError(Exception):
    """There is no server to talk to. One line: who, what, and what to try."""


@dataclass(frozen=True)
class Server:
    """A PostgreSQL that answered a moment ago. Its repr shows no password."""

    kind: str  # "address", "compose" or "private"
    dsn: str = field(repr=False)  # the course's ordinary role, or whatever POOLKIT_DSN says
    admin_dsn: str | None = field(repr=False)  # a superuser's, where the course may have one
    version: str  # "18.4"
    label: str  # one line for the status
    log: Path | None = field(default=None, repr=False)  # the server's log, where we know it


def find() -> Server:
    """Return the course's server; the private one is started if it is not running.

    Raises ServerError with one line that says what is wrong and what to try.
    """
    from . import address, compose, postgres

    if os.environ.get("POOLKIT_DSN", "").strip():
        return address.find()
    forget_libpq_environment()
    return compose.find() or postgres.start()


def forget_libpq_environment() -> None:
    """Remove PostgreSQL's own variables (PGHOST, PGSERVICE, PGOPTIONS …) from this process.

    They belong to somebody's other server. An address can't shut them out: with a PGSERVICE that
    does not exist, even a complete one fails.
    """
    for name in [name for name in os.environ if name.startswith("PG")]:
        del os.environ[name]
