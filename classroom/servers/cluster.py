"""One private PostgreSQL on disk: made, started, found alive or dead, stopped.

    cluster/data         PostgreSQL's own, owned by the server's user
    cluster/course.conf  our settings, included by postgresql.conf
    cluster/passwords    two roles and their random passwords, for this user's eyes only (0600)

They are one unit, made under another name and then renamed: there is a whole one or none. Nothing
here guards against a second process that does the same: see `postgres`.
"""

import contextlib
import hashlib
import json
import os
import platform
import re
import secrets
import shutil
import signal
import socket
import tempfile
import time
from pathlib import Path

import psutil

from . import ServerError
from .programs import MAJOR, OTHERWISE, Programs

PATIENCE = 60  # seconds that a server may take to start
LOG_LIMIT = 10_000_000  # bytes; a log that is longer is begun anew at the next start
RESET = "poolkit server reset (the course's data is loaded anew)"

# What PostgreSQL says when it can't be made or started (a pattern), what it means, what to try.
MEANINGS = [
    (
        "shared memory.*(no space left|cannot allocate)",
        "it finds too little shared memory",
        "more of it: docker run --shm-size=256m",
    ),
    (
        "no space left on device|quota exceeded",
        "the disk is full",
        "free some space, or set POOLKIT_HOME to a folder on another disk",
    ),
    (
        "permission denied|read-only file system|not permitted|wrong ownership|invalid permissions",
        "it may not write there",
        "set POOLKIT_HOME to a folder of your own",
    ),
    (
        "shared memory block .* still in use",
        "processes of a crashed server are still at work on it",
        "end them, or restart this computer",
    ),
    (
        "did not start in time",
        f"it was not ready within {PATIENCE} s",
        "again, or poolkit server stop and again",
    ),
]


class Cluster:
    """The data folder of one home and the server on it."""

    def __init__(self, programs: Programs):
        self.programs = programs
        self.base = programs.base
        self.path = self.base / "cluster"
        self.data = self.path / "data"
        self.log = self.data / "server.log"
        self.settings = self.path / "course.conf"
        # Shown in the title of every process of the server, which is how a crashed one is found.
        self.name = f"poolkit-{hashlib.sha256(os.fsencode(self.base)).hexdigest()[:8]}"

    @property
    def port(self) -> int:
        return int(self._setting("port"))

    def password(self, role: str) -> str:
        """Return the password of "learner" or "postgres"."""
        try:
            return json.loads((self.path / "passwords").read_text())[role]
        except (FileNotFoundError, ValueError, KeyError) as error:
            raise ServerError(
                f"the passwords of the private PostgreSQL in {str(self.base)!r} are lost; "
                f"try: {RESET}"
            ) from error

    # ---------------------------------------------------------------------------------- making

    def create(self) -> None:
        """Make data, settings and passwords, or nothing."""
        new = Path(tempfile.mkdtemp(prefix="new-", dir=self.base))
        try:
            self._fill(new)
            new.rename(self.path)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise

    def _fill(self, new):
        new.chmod(0o711)
        data, password_file = new / "data", new / "password"
        passwords = {role: secrets.token_urlsafe(16) for role in ("postgres", "learner")}
        _write(new / "passwords", json.dumps(passwords))
        _write(password_file, passwords["postgres"])
        data.mkdir(mode=0o700)
        self.programs.give(data)
        self.programs.give(password_file)
        # Without --no-sync a slow disk takes many seconds; `sync` makes up for it afterwards.
        self._make(
            "initdb", "-D", data, "-U", "postgres", "--auth=scram-sha-256", "--pwfile",
            password_file, "-E", "UTF8", "--no-locale", "--no-sync", "--no-instructions",
        )  # fmt: skip
        password_file.unlink()
        with open(data / "postgresql.conf", "a") as file:
            file.write("include '../course.conf'\n")
        (new / "course.conf").touch()
        (new / "course.conf").chmod(0o644)
        # A server for one statement at a time, without a port: nobody sees a half-made cluster.
        self._make(
            "postgres", "--single", "-D", data, "-c", "exit_on_error=on", "-c", "fsync=off",
            "-c", "log_min_error_statement=panic", "postgres",
            stdin=f"CREATE ROLE learner LOGIN PASSWORD '{passwords['learner']}'\n"
            "GRANT pg_monitor TO learner\n"
            "CREATE DATABASE course OWNER learner\n",
        )  # fmt: skip
        (new / "unsynced").touch()

    def _make(self, program, *args, stdin=""):
        status, said = self.programs.run(program, *args, stdin=stdin)
        if status:
            raise ServerError(self._explain("can't make", said))

    def sync(self) -> None:
        """Have the disk write down what `create` made, once."""
        if (self.path / "unsynced").exists():
            status, _ = self.programs.run("initdb", "--sync-only", "-D", self.data)
            if status == 0:
                (self.path / "unsynced").unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove it with all its data, once it is stopped."""
        if self.path.exists():
            self.path.rename(Path(tempfile.mkdtemp(prefix="new-", dir=self.base)) / "gone")
        self.tidy()

    def tidy(self) -> None:
        """Remove what a process that was killed in the middle of `create` or `remove` left."""
        for left in self.base.glob("new-*"):
            shutil.rmtree(left, ignore_errors=True)

    # -------------------------------------------------------------------------------- starting

    def serve(self) -> None:
        """Wait until the server is ready, having started it if it is not running."""
        deadline = time.monotonic() + PATIENCE
        while self.postmaster():
            if self._pid_file()[7:8] == ["ready"]:
                return
            if time.monotonic() > deadline:
                raise ServerError(self._explain("can't start", "did not start in time"))
            time.sleep(0.05)
        self._check_version()
        self._clear_up()
        socket_folder = self._make_socket_folder()
        for port in self._ports():
            self._write_settings(port, socket_folder)
            status, said = self._pg_ctl("start", "-t", str(PATIENCE), "-l", self.log)
            if status == 0:
                return
            if "could not bind" not in said:
                break
        self._remove_socket_folder()
        raise ServerError(self._explain("can't start", said))

    def _pg_ctl(self, *args):
        before = self.log.stat().st_size if self.log.exists() else 0
        status, said = self.programs.run("pg_ctl", "-D", self.data, "-w", *args)
        if status and self.log.exists():
            # Of pg_ctl's own words only what it makes of them; the reasons are in the log.
            said = "".join(line + "\n" for line in said.splitlines() if "pg_ctl:" in line)
            with open(self.log, "rb") as file:
                file.seek(before)
                said += file.read().decode(errors="replace")
        return status, said

    def _check_version(self):
        try:
            found = (self.data / "PG_VERSION").read_text().strip()
        except FileNotFoundError:
            raise ServerError(self._explain("can't start", "PG_VERSION is missing")) from None
        if found != MAJOR:
            raise ServerError(
                f"the private PostgreSQL in {str(self.base)!r} was made by PostgreSQL {found}, and "
                f"the programs are {MAJOR}; try: {RESET}, {OTHERWISE}"
            )

    def _clear_up(self):
        # Only called when no postmaster runs: what its pid file says is of another life.
        if (self.data / "postmaster.pid").exists():
            self._end_orphans()
            (self.data / "postmaster.pid").unlink(missing_ok=True)
        if self.log.exists() and self.log.stat().st_size > LOG_LIMIT:
            self.log.unlink()
        self._remove_socket_folder()

    def _end_orphans(self):
        # A backend in the middle of a query outlives a crashed postmaster, and no other one starts
        # until it has gone.
        deadline = time.monotonic() + 5
        while orphans := self._orphans():
            for process in orphans:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            if time.monotonic() > deadline:
                break
            time.sleep(0.02)

    def _orphans(self):
        found = []
        for process in psutil.process_iter(["cmdline", "status"]):
            title = (process.info["cmdline"] or [""])[0]
            if process.info["status"] == psutil.STATUS_ZOMBIE:
                continue
            if title.startswith(f"postgres: {self.name}: "):
                found.append(process)
        return found

    def _ports(self):
        # The last one first: an address that a notebook still holds is then good again.
        if last := self._setting("port"):
            yield int(last)
        for _ in range(5):
            try:
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", 0))
                    port = probe.getsockname()[1]
            except OSError as error:
                raise ServerError(
                    f"no port is free on 127.0.0.1 for the private PostgreSQL: {error.strerror}; "
                    f"try: close other programs, {OTHERWISE}"
                ) from error
            yield port

    def _write_settings(self, port, socket_folder):
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": port,
            "unix_socket_directories": socket_folder,
            "cluster_name": self.name,
            "shared_buffers": "32MB",
            "log_connections": "setup_durations",  # lesson 01 reads them
            "log_line_prefix": "%m [%p] %q%u@%d %a ",
        }
        lines = [f"# written at every start; host {platform.node()}"]
        lines += [f"{name} = '{value}'" for name, value in settings.items()]
        new = self.path / "course.conf.new"
        new.write_text("\n".join(lines) + "\n")
        new.chmod(0o644)
        new.replace(self.settings)

    def _setting(self, name):
        try:
            found = re.search(rf"^{name} = '(.*)'$", self.settings.read_text(), re.MULTILINE)
        except FileNotFoundError:
            return ""
        return found[1] if found else ""

    def elsewhere(self) -> str:
        """Return the other machine where the server was started and not stopped, or ""."""
        if not self._pid_file():
            return ""
        found = re.match(r"# .*; host (.*)", self.settings.read_text())
        return found[1] if found and found[1] != platform.node() else ""

    def _make_socket_folder(self):
        # Its path must be short (107 characters), which the home folder's need not be. Where there
        # is no /tmp, or none to write to, TCP is enough.
        if os.name == "nt":
            return ""
        try:
            folder = tempfile.mkdtemp(prefix="poolkit-", dir="/tmp")
        except OSError:
            return ""
        self.programs.give(Path(folder))
        return folder

    def _remove_socket_folder(self):
        if folder := self._setting("unix_socket_directories"):
            shutil.rmtree(folder, ignore_errors=True)

    # -------------------------------------------------------------------------- alive or dead?

    def postmaster(self) -> psutil.Process | None:
        """Return the running server's first process, or None.

        A pid alone proves nothing: it may be another program's by now, or a zombie's, where
        nobody reaps. Ours has our data folder on its command line.
        """
        try:
            process = psutil.Process(int(self._pid_file()[0]))
            if process.status() != psutil.STATUS_ZOMBIE:
                if any(_same(argument, self.data) for argument in process.cmdline()[1:]):
                    return process
        except (ValueError, IndexError, psutil.Error):
            pass
        return None

    def _pid_file(self):
        try:
            lines = (self.data / "postmaster.pid").read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return []
        return [line.strip() for line in lines]

    def shut_down(self) -> bool:
        """Stop the server, ending its connections; return whether there was one to stop."""
        process = self.postmaster()
        if process is None:
            self._remove_socket_folder()  # a crash may have left it
            return False
        try:
            # "immediate" leaves the rest to the next start's recovery: nothing committed is lost.
            for mode, seconds in (("fast", "3"), ("immediate", "3")):
                status, _ = self._pg_ctl("stop", "-t", seconds, "-m", mode)
                if status == 0:
                    break
        except ServerError:  # the programs are gone, as after the removal of .venv
            process.send_signal(signal.SIGINT)  # what "fast" means
            return True
        if self.postmaster():
            process.kill()
        self._remove_socket_folder()
        return True

    def _explain(self, what, said):
        # The last line that is serious, else the first that says what could not be done.
        lines = [line.strip() for line in said.splitlines()]
        serious = [line for line in lines if re.search(r"(FATAL|PANIC|error):\s", line)]
        telling = [line for line in lines if "could not" in line and "pg_ctl:" not in line]
        reason = (serious[-1:] or telling[:1] or lines[-1:] or ["no reason given"])[0]
        reason = re.sub(r"^.*?(FATAL|PANIC|error|LOG):\s+", "", reason)
        meaning, fix = "", RESET
        for pattern, meant, cure in MEANINGS:
            if re.search(pattern, said, re.IGNORECASE):
                meaning, fix = f"{meant}: ", cure
                break
        where = repr(str(self.base))
        return f"{what} the private PostgreSQL in {where}: {meaning}{reason}; try: {fix}"


def _write(path, text):
    path.touch(mode=0o600)
    path.write_text(text)


def _same(argument, folder):
    try:
        return os.path.samefile(argument, folder)
    except OSError:
        return False
