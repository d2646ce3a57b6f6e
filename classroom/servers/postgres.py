"""The private PostgreSQL, shared by all notebooks: it runs for as long as somebody uses it.

    lock       held for a moment, by whoever starts or stops the server
    users      held shared by every process that uses the server, until the process ends
    watcher    held by the process that stops the server after its last user (`watch`)

The operating system keeps these locks, so that a process lets go of them however it ends. Each is
held by process: a process must open `users` only once, for closing it anywhere lets go of it.
"""

import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import fasteners

from .. import place
from . import Server, ServerError, forget_libpq_environment
from .cluster import Cluster
from .programs import Programs, bin_dir

__all__ = ["bin_dir", "release", "reset", "start", "stop"]

LOCK_PATIENCE = 90  # seconds to wait for another process that starts or stops the server


def start() -> Server:
    """Return the private server, made and started if need be.

    It runs at least until this process ends or calls `release`. Calling this again is cheap, and
    starts the server again if it has crashed. Raises ServerError.
    """
    forget_libpq_environment()
    with _in_one_line():
        return _private().start()


def release() -> None:
    """Say that this process no longer uses the server, which stops when nobody does."""
    with _in_one_line():
        _private().release()


def stop() -> bool:
    """Stop the server now, whoever uses it; return whether there was one to stop."""
    with _in_one_line():
        return _private().stop()


def reset() -> None:
    """Stop the server and remove all its data; the next start makes a new one."""
    with _in_one_line():
        _private().stop(remove=True)


class Private:
    """The private server of one home folder, as this process sees it."""

    def __init__(self, home: Path):
        self.home = home
        programs = Programs(home)
        self.base = programs.base
        self.cluster = Cluster(programs)
        self._thread = threading.Lock()
        self._lock = fasteners.InterProcessLock(self.base / "lock")
        self._users = fasteners.InterProcessReaderWriterLock(self.base / "users")
        self._watcher = fasteners.InterProcessLock(self.base / "watcher")
        self._using = False

    def start(self) -> Server:
        with self.alone():
            joined = not self._using
            if joined:
                self._join()
            try:
                if not self.cluster.path.exists():
                    self.cluster.create()
                self._watch()  # before the server, so that there never is one unwatched
                self.cluster.serve()
            except BaseException:
                if joined:
                    self._leave()
                raise
        return self._server()

    def stop(self, remove: bool = False) -> bool:
        with self.alone():
            self._leave()
            stopped = self.cluster.shut_down()
            if remove:
                self.cluster.remove()
        return stopped

    def release(self) -> None:
        with self._thread:
            self._leave()

    @contextmanager
    def alone(self):
        """Hold the lock: nobody else starts or stops this server meanwhile."""
        with self._thread:
            try:
                got = self._lock.acquire(timeout=LOCK_PATIENCE)
            except threading.ThreadError as error:  # fasteners' word for a disk without locks
                raise ServerError(
                    f"no file can be locked in {str(self.base)!r}: {error}; "
                    "try: set POOLKIT_HOME to a folder on a local disk"
                ) from error
            if not got:
                raise ServerError(
                    f"another process has been busy with {str(self.base)!r} for {LOCK_PATIENCE} s; "
                    "try: again, or end the other notebooks"
                )
            try:
                yield
            finally:
                self._lock.release()

    def unused(self) -> bool:
        """Whether no process uses the server. Not to be asked by one that does."""
        free = self._users.acquire_write_lock(blocking=False)
        if free:
            self._users.release_write_lock()
        return free

    def _join(self):
        cluster = self.cluster
        if not self.unused() and not cluster.postmaster() and (other := cluster.elsewhere()):
            raise ServerError(
                f"the private PostgreSQL in {str(self.base)!r} is in use on another machine, "
                f"{other!r}; try: set POOLKIT_HOME to a folder on this one"
            )
        self._users.acquire_read_lock()
        self._using = True

    def _leave(self):
        if self._using:
            self._users.release_read_lock()
            self._using = False

    def _watch(self):
        if not self._watcher.acquire(blocking=False):
            return  # somebody watches
        self._watcher.release()
        path = [os.fspath(place.ROOT), os.environ.get("PYTHONPATH", "")]
        with open(self.base / "watcher.log", "wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "classroom.servers.watch", self.home],
                cwd="/",
                env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, path))},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,  # Ctrl-C, and a kernel's end, are not for the watcher
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            )
        process.returncode = 0  # it is to outlive us, which Popen would complain about

    def _server(self):
        from . import address  # here, for the watcher does without psycopg2

        port = self.cluster.port
        learner, admin = (
            address.course_dsn(port, role, self.cluster.password(role))
            for role in ("learner", "postgres")
        )
        fix = "close the other notebooks, or poolkit server stop and again"
        version, _ = address.ask(learner, "the private PostgreSQL", fix)
        label = f"PostgreSQL {version}, private to this course, on 127.0.0.1:{port}"
        return Server("private", learner, admin, version, label, self.cluster.log)


# ------------------------------------------------------------------------------ this process

_servers: dict[Path, Private] = {}  # by home folder: one each, for it holds the locks
_servers_lock = threading.Lock()


def _private():
    home = place.state()
    with _servers_lock:
        if home not in _servers:
            _servers[home] = Private(home)
        return _servers[home]


def _forget_after_fork():
    # A child has none of its parent's locks. What it closes here takes none from the parent.
    global _servers_lock
    _servers_lock = threading.Lock()
    _servers.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)


@contextmanager
def _in_one_line():
    try:
        yield
    except place.PlaceError as error:
        raise ServerError(str(error)) from error
    except OSError as error:
        where = f" {os.fsdecode(error.filename)!r}" if error.filename else ""
        raise ServerError(
            f"can't keep the private PostgreSQL in its folder: {error.strerror or error}{where}; "
            "try: set POOLKIT_HOME to a folder of your own"
        ) from error
