"""What tests share: a folder of their own for everything the course writes, and a server."""

import gc
import os
import re
import shutil
import tempfile
import time
import uuid
import warnings
from pathlib import Path

import pytest
from psycopg2.extensions import make_dsn

from classroom import servers
from classroom.servers import postgres


@pytest.fixture(scope="session", autouse=True)
def course_home():
    """A POOLKIT_HOME for the whole run, so that no test touches the learner's. Returns the path."""
    home = Path(tempfile.mkdtemp(prefix="poolkit-tests-"))
    home.chmod(0o711)  # PostgreSQL doesn't run as root: another user passes through
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POOLKIT_HOME", os.fspath(home))
        yield home
        if (home / "postgres").exists():
            postgres.stop()
    with warnings.catch_warnings():
        # fasteners keeps a lock's file open when somebody else has the lock, for the next try.
        warnings.simplefilter("ignore", ResourceWarning)
        postgres._servers.clear()
        gc.collect()
    deadline = time.monotonic() + 5
    while home.exists() and time.monotonic() < deadline:
        shutil.rmtree(home, ignore_errors=True)  # again, while a watcher is about to leave


@pytest.fixture(scope="session")
def server(course_home):
    """The server to test against: POOLKIT_DSN if it is set, else a private one of this run."""
    return servers.find()


@pytest.fixture
def dsn(server, request):
    """The course's address, with an application_name that no other test has."""
    name = re.sub(r"\W+", "_", request.node.name)[:40]
    return make_dsn(server.dsn, application_name=f"tests/{name}/{uuid.uuid4().hex[:8]}")
