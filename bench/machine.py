"""What the figures were measured on: enough to compare, and nothing that says whose it is."""

import os
import platform
import re
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from psycopg import pq
from psycopg2 import extensions

from . import peers


def describe(server) -> list[tuple[str, str]]:
    """Return (what, which) for the machine, the server and every library."""
    where = "the course's own" if server.kind != "address" else "of POOLKIT_DSN"
    libraries = {peer.package: peer.version() for peer in peers.PEERS}
    libraries["psycopg"] = version("psycopg")
    return [
        ("day", f"{datetime.now(UTC):%Y-%m-%d}"),
        ("processor", f"{_processor()}, {os.cpu_count()} cores"),
        ("system", _system()),
        ("load before", _load()),
        ("Python", f"{platform.python_implementation()} {platform.python_version()}"),
        ("PostgreSQL", f"{server.version}, {where}, reached by {_transport(server)}"),
        (
            "libpq",
            f"{_libpq(extensions.libpq_version())} (psycopg2), {_libpq(pq.version())} (psycopg 3)",
        ),
        ("libraries", ", ".join(f"{name} {number}" for name, number in libraries.items())),
    ]


def _processor():
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _system():
    name = platform.system()
    try:
        name = f"{platform.freedesktop_os_release()['PRETTY_NAME']}, {name}"
    except (OSError, KeyError):
        pass
    release = re.match(r"[\d.]*\d", platform.release())  # what follows names somebody's build
    return f"{name} {release[0] if release else ''}, {platform.machine()}"


def _load():
    if not hasattr(os, "getloadavg"):
        return "unknown"
    return f"{os.getloadavg()[0]:.1f} processes at work, on average over the last minute"


def _transport(server):
    given = extensions.parse_dsn(server.dsn)
    host = given.get("hostaddr") or given.get("host") or ""
    if host in ("127.0.0.1", "::1", "localhost"):
        return "TCP on this machine"
    return "TCP" if host and not host.startswith("/") else "a Unix socket"


def _libpq(number):
    return f"{number // 10000}.{number % 10000}"
