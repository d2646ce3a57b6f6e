"""The steps of a set-up: programs run with a line that moves, a log, and a reason if they fail.

Standard library only, and readable to Python 3.6 (see `setup`).
"""

import contextlib
import errno
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
import time


class Stop(Exception):
    """A failure that was foreseen. The message is one line: what, why, what to try."""


class Failed(Stop):
    """A program of the set-up failed: `kind` is "fetch" if it got no package, see CAUSES."""

    def __init__(self, message, kind):
        super().__init__(message)
        self.kind = kind


def say(message):
    print("poolkit: " + message, flush=True)


# Running a program, with a line that moves


class Steps:
    """Runs the programs of a set-up. All they say goes to the log; the user sees where it stands:
    one line that moves on a terminal, a line every few seconds where there is none.
    """

    def __init__(self, log, env, held):
        self.log = log  # path
        self.env = env
        self.held = held  # the open lock file, handed down
        self.terminal = sys.stdout.isatty()
        open(log, "w").close()
        self._write(f"Python {sys.version}\n{sys.platform}\n")

    def run(self, title, command):
        """Run `command` to its end and return (exit code, output)."""
        lines = []
        inherit = {} if os.name == "nt" else {"pass_fds": (self.held.fileno(),)}
        started = time.monotonic()
        process = subprocess.Popen(
            command,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            **inherit,
        )
        self._write(f"\n$ {shlex.join(command)}\n")
        reader = threading.Thread(target=self._read, args=(process, lines))
        reader.start()
        if not self.terminal:
            say(title + " ...")
        try:
            self._watch(process, title, lines, started)
        except BaseException:
            process.terminate()
            process.wait()
            raise
        finally:
            reader.join()
            process.stdout.close()
            if self.terminal:
                print("\r" + " " * self._width() + "\r", end="", flush=True)
        if self.terminal and process.returncode == 0:
            say(f"{title}: {time.monotonic() - started:.1f} s")
        return process.returncode, "".join(lines)

    def must(self, title, command, what):
        """Run `command`; if it fails, raise Failed: `what` did not work, and why."""
        code, output = self.run(title, command)
        if code:
            raise self.failed(what, output)

    def failed(self, what, output):
        kind, line = cause(output)
        return Failed(f"{what}: {line} (all it said: {self.log})", kind)

    def _read(self, process, lines):
        for line in process.stdout:
            lines.append(line)
            self._write(line)

    def _write(self, text):
        # A full disk stops the log, and is told by the program itself.
        with contextlib.suppress(OSError), open(self.log, "ab", buffering=0) as log:
            log.write(text.encode())

    def _watch(self, process, title, lines, started):
        told = started
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.1)
                return
            now = time.monotonic()
            last = lines[-1].strip() if lines else ""
            if self.terminal:
                line = f"poolkit: {title}: {now - started:.0f} s  {last}"
                width = self._width()
                print("\r" + line[:width].ljust(width), end="", flush=True)
            elif now - told > 5:
                told = now
                say(f"{title}: {now - started:.0f} s  {last[:60]}".rstrip())

    def _width(self):
        return shutil.get_terminal_size().columns - 1


# What failed, and what to do about it

# (what is seen in the output, what kind of failure it is, the line for it); the first that matches
CAUSES = [
    (
        r"No space left|os error (28|122|112)\b|Errno (28|122)\b|quota exceeded|not enough space",
        "disk",
        "the disk is full; try: free 2 GB, then run it again",
    ),
    (
        r"peer certificate|CERTIFICATE_VERIFY_FAILED|certificate verify failed|UnknownIssuer",
        "fetch",
        "the package index shows a certificate that is not trusted here; "
        "try: set SSL_CERT_FILE and PIP_CERT to your organisation's certificate file",
    ),
    (
        r"\b407\b|ProxyError|[Pp]roxy.*(refused|failed|unreachable)|connect to proxy|tunnel error",
        "fetch",
        "the proxy does not let it through; try: look at HTTPS_PROXY and NO_PROXY",
    ),
    (
        r"[Hh]ash mismatch|DO NOT MATCH THE HASHES",
        "fetch",
        "a download is not the file that the lock expects; try: run it again, or another network",
    ),
    (
        r"HTTP status|HTTP error [45]\d\d|HTTPError: [45]\d\d",
        "fetch",
        "the package index refused; try: again later, or look at your index settings for pip",
    ),
    (
        r"dns error|name resolution|getaddrinfo|[Nn]ame or service not known|NewConnectionError"
        r"|Connection (refused|reset)|[Uu]nreachable|timed out|TimeoutError|error sending request"
        r"|Failed to fetch|Could not connect",
        "fetch",
        "the package index cannot be reached; "
        "try: look at the network, and behind a proxy set HTTPS_PROXY",
    ),
    (
        r"ensurepip",
        "python",
        "this Python comes without ensurepip, which a virtual environment needs; "
        "try: sudo apt install python{}.{}-venv (Debian, Ubuntu)".format(*sys.version_info),
    ),
    (
        r"Permission denied|Read-only file system|Access is denied|os error (13|30)\b",
        "write",
        "a file could not be written; try: a folder of your own, and not one that root made",
    ),
    (
        r"no (usable )?wheels? |not a supported wheel|No matching distribution|no version of"
        r"|platform tag",
        "fit",
        "no ready-made package for this Python on this machine; "
        "try: Python 3.11 to 3.13, with PYTHON=python3.12",
    ),
]


def cause(output):
    """Return (kind, line) for why an installation failed, from what it printed."""
    for pattern, kind, line in CAUSES:
        if re.search(pattern, output):
            return kind, line
    last = [line.strip() for line in output.splitlines() if line.strip()]
    return "unknown", (last[-1] if last else "no reason given") + "; try: run it again"


def about(error):
    """Return the line for an OSError met at the set-up's own files."""
    where = f"{error.filename!r}: " if error.filename else ""
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
        return where + "the disk is full; try: free 2 GB, then run it again"
    what = (error.strerror or str(error)).lower()
    return f"{where}{what}; try: put the course in a folder of your own"
