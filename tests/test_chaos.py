"""The short form of `make chaos`: see tests/chaos."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from classroom.place import ROOT

pytestmark = pytest.mark.server

CHAOS = [sys.executable, "-m", "tests.chaos", "5"]


def test_five_seconds_of_chaos_break_no_promise():
    done = subprocess.run(CHAOS, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("\nchaos: all promises were kept\n")
    assert done.stderr == ""
    assert not Path(folder(done.stdout)).exists()


def folder(said):
    return re.search(r"PostgreSQL .* in (.*)$", said, re.MULTILINE)[1]


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGINT; run it on Linux or macOS")
def test_an_interrupted_chaos_leaves_neither_its_server_nor_their_folder():
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(CHAOS, cwd=ROOT, **pipes) as chaos:
        where = Path(folder(chaos.stdout.readline()))
        pid_file = where / "cluster/data/postmaster.pid"
        server = psutil.Process(int(pid_file.read_text().split()[0]))
        chaos.send_signal(signal.SIGINT)
        _, said = chaos.communicate(timeout=60)
    assert said == "chaos: stopped; its server and their folder are gone\n"
    assert chaos.returncode == 130
    assert not server.is_running() or server.status() == psutil.STATUS_ZOMBIE
    assert not where.exists() and not where.parent.exists()
