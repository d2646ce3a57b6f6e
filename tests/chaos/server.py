"""A PostgreSQL of one's own for a run: it is restarted in the middle, and gone at the end."""

import shutil
import signal
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import fasteners
import psycopg2

from classroom.servers import ServerError, forget_libpq_environment, postgres


@contextmanager
def private_server():
    """Start a server in a temporary folder and yield it; at the end both are gone, also after
    Ctrl-C. Raises ServerError."""
    forget_libpq_environment()
    home = Path(tempfile.mkdtemp(prefix="poolkit-chaos-"))
    home.chmod(0o711)  # PostgreSQL doesn't run as root: another user passes through
    server = None
    try:
        server = PrivateServer(home)
        server.start()
        yield server
    finally:
        # The second Ctrl-C of somebody impatient must not leave a server behind.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        if server is not None:
            server.remove()
        shutil.rmtree(home, ignore_errors=True)
        signal.signal(signal.SIGINT, before)


class PrivateServer:
    """`dsn` and `admin_dsn` are its addresses, and stay the same after a restart."""

    def __init__(self, home):
        self._private = postgres.Private(home)
        self._cluster = self._private.cluster
        self.folder = self._private.base

    def start(self):
        with self._private.alone():
            self._cluster.create()
            # What a crash of the server leaves to the kernel is safe. Only a power cut would need
            # fsync, and without it a restart takes a tenth of the time.
            with open(self._cluster.data / "postgresql.conf", "a") as file:
                file.write("fsync = off\n")
            (self._cluster.path / "unsynced").unlink()
        server = self._private.start()
        self.dsn, self.admin_dsn, self.version = server.dsn, server.admin_dsn, server.version

    def restart(self):
        """Stop it as a crash would, in the middle of everything, and start it again."""
        with self._private.alone():
            self._pg_ctl("restart", "-l", self._cluster.log)

    def remove(self):
        with self._private.alone():
            if self._cluster.postmaster():
                self._pg_ctl("stop")
        self._private.stop(remove=True)
        # Whoever holds this lock watches the folder, and would make it again.
        watcher = fasteners.InterProcessLock(self.folder / "watcher")
        if watcher.acquire(timeout=10):
            watcher.release()
        shutil.rmtree(self.folder, ignore_errors=True)  # root's may lie elsewhere

    def _pg_ctl(self, *command):
        status, said = self._cluster.programs.run(
            "pg_ctl", *command, "-D", self._cluster.data, "-w", "-m", "immediate"
        )
        if status:
            raise ServerError(f"can't {command[0]} the server of this run: {said.strip()}")


class Admin:
    """A superuser's connection, opened again when the server has thrown it out."""

    def __init__(self, server):
        self._dsn = server.admin_dsn
        self._conn = None

    def ask(self, sql, *values):
        """Return the rows; None: the server is not there now."""
        try:
            try:
                return self._ask(sql, values)
            except psycopg2.OperationalError:  # it was another server's: ask the one of now
                self.close()
                return self._ask(sql, values)
        except psycopg2.OperationalError:
            time.sleep(0.005)
            return None

    def _ask(self, sql, values):
        if self._conn is None:
            self._conn = psycopg2.connect(self._dsn, application_name="chaos/admin")
            self._conn.autocommit = True
        with self._conn.cursor() as cursor:
            cursor.execute(sql, values)
            return cursor.fetchall() if cursor.description else []

    def close(self):
        if self._conn is not None:
            self._conn.close()
            self._conn = None
