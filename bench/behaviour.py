"""What each pool does when something goes wrong: the experiments, run, and their table.

    table(dsn)          run the experiments -> [Row(behaviour, {pool's name: Finding})]
    text(rows)          the table for a terminal
    markdown(rows)      the table for docs/

Each pool's experiments run in a process made for them; one that comes to no end is given up after
PATIENCE seconds.
"""

import faulthandler
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
import uuid
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

from psycopg2.extensions import make_dsn

from . import peers
from .experiments import CHECKS, EXPERIMENTS, exhausted, stale_and_checked
from .trials import Finding, Server, Trial, name

PATIENCE = 15.0  # seconds for one experiment
NAME = "behaviour"  # what the application_name of each connection begins with
ROOT = Path(__file__).resolve().parent.parent


class Row(NamedTuple):
    """One behaviour of every pool, by the pool's name."""

    behaviour: str
    findings: dict[str, Finding]


# -- the table -------------------------------------------------------------------------------------


def table(dsn: str, admin_dsn: str | None = None) -> list[Row]:
    """Run every experiment on every pool, and return the rows. Takes about ten seconds.

    `admin_dsn` is for the connection that watches; an ordinary role sees and ends its own backends,
    so `dsn` will do. No process and no connection is left at the end. An experiment that fails is a
    finding that says so, and hinders no other.
    """
    run = f"{NAME} {uuid.uuid4().hex[:8]}"
    slow = stale_and_checked.__name__  # takes seconds on one pool: it gets a process of its own
    others = [experiment for experiment in EXPERIMENTS if experiment != slow]
    jobs = [(peer.name, [slow]) for peer in CHECKS]
    jobs += [(peer.name, others if peer in CHECKS else [*EXPERIMENTS]) for peer in peers.PEERS]
    server = Server(admin_dsn or dsn, run)
    with closing(server.conn):
        try:
            found = _in_processes(jobs, [dsn, admin_dsn or dsn, run])
        finally:
            _wait_until_all_are_gone(server)
    return [
        Row(experiment.title, {peer.name: found[peer.name, key] for peer in peers.PEERS})
        for key, experiment in EXPERIMENTS.items()
    ]


def _wait_until_all_are_gone(server):
    deadline = time.monotonic() + 5
    while (left := server.backends()) and time.monotonic() < deadline:
        time.sleep(0.01)
    server.terminate(*left)  # their processes have ended: nobody misses them


def _in_processes(jobs, address):
    """Run jobs, (name of a peer, experiments), each in a process of its own, all at once. Returns
    {(name of a peer, experiment): Finding}."""
    found = {}
    running = []
    try:
        for job in jobs:
            running.append((*job, _start(*job, address)))
        while running:
            peer, experiments, process = running[-1]
            said, complaint = _outcome(process, patience=PATIENCE * len(experiments))
            for line in said.splitlines():
                experiment, finding = json.loads(line)
                found[peer, experiment] = Finding(*finding)
            running.pop()
            missing = [experiment for experiment in experiments if (peer, experiment) not in found]
            if missing:  # the first was the end of that process; the others get another one
                found[peer, missing[0]] = _no_answer(process.returncode, complaint)
                if missing[1:]:
                    running.append((peer, missing[1:], _start(peer, missing[1:], address)))
    finally:
        for *_, process in running:
            _end(process)
    return found


def _start(peer, experiments, address):
    return subprocess.Popen(
        [sys.executable, "-m", "bench.behaviour", peer, *experiments],
        cwd=ROOT,
        env=os.environ | {ADDRESS: json.dumps(address)},  # not for everybody's eyes, as argv is
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # our Ctrl-C is not for it; and a group, to be ended together
    )


def _outcome(process, patience):
    try:
        return process.communicate(timeout=patience)
    except subprocess.TimeoutExpired:
        said, complaint = _end(process)
        return said, f"{complaint}\nTimeout"


def _end(process):
    with suppress(ProcessLookupError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    return process.communicate()


def _no_answer(code, complaint):
    lines = complaint.strip().splitlines() or [""]
    said = f"ended with code {code}: {lines[-1]}"
    if any(line.startswith("Timeout") for line in lines):  # faulthandler's word, and ours
        said = f"no answer within {PATIENCE:g} s"
    return Finding(said, detail=complaint, failed=True)


ADDRESS = "POOLKIT_BEHAVIOUR_ADDRESS"  # how a process of ours is told where the server is


def _work(name_of_peer, experiments):
    """What such a process does: run experiments, and print each finding as a line of JSON."""
    dsn, admin_dsn, run = json.loads(os.environ[ADDRESS])
    [peer] = [peer for peer in peers.PEERS if peer.name == name_of_peer]
    trial = Trial(peer, make_dsn(dsn, application_name=run), Server(admin_dsn, run))
    for experiment in experiments:
        faulthandler.dump_traceback_later(PATIENCE, exit=True)
        try:
            finding = EXPERIMENTS[experiment](trial)
        except Exception as error:
            finding = Finding(f"{name(error)}: {error}".splitlines()[0], failed=True)
        print(json.dumps([experiment, finding]), flush=True)
    os._exit(0)  # some threads wait for ever


# -- to be read ------------------------------------------------------------------------------------


def text(rows: list[Row]) -> str:
    """The table for a terminal: a paragraph for each behaviour, a line for each pool."""
    marks = {True: "+", False: "-", None: " "}
    lines = ["+ as it should be    - not so    ! the experiment failed"]
    for behaviour, findings in rows:
        lines += ["", behaviour]
        for pool, finding in findings.items():
            mark = "!" if finding.failed else marks[finding.good]
            lines.append(f"  {mark} {pool:<20} {finding.text}")
    lines += ["", exhausted.title]
    folded = partial(textwrap.wrap, width=100, initial_indent="    ", subsequent_indent=" " * 8)
    for pool, said in _refusals(rows):
        lines += folded(f"{pool}: {said}")
    return "\n".join(lines)


def markdown(rows: list[Row]) -> str:
    """The table for docs/, a column for each pool; below it what each of them says when it has no
    connection left. The heading is the caller's."""
    marks = {True: "✓ ", False: "✗ ", None: ""}
    pools = list(rows[0].findings)
    table = [["", *pools], ["---"] * (1 + len(pools))]
    for behaviour, findings in rows:
        failed = "the experiment failed: "
        cells = [
            marks[each.good] + failed * each.failed + each.text.replace("|", "\\|")
            for each in findings.values()
        ]
        table.append([behaviour, *cells])
    lines = [
        "What each pool did in an experiment on a real server. ✓: as it should be, ✗: not so; no "
        "mark: there was nothing to see, and why.",
        "",
        *(f"| {' | '.join(cells)} |" for cells in table),
        "",
        f"{exhausted.title.capitalize()}:",
        "",
        *(f"* {pool}: `{said}`" for pool, said in _refusals(rows)),
    ]
    return "\n".join(lines) + "\n"


def _refusals(rows):
    """What each pool says when it has no connection left, on one line."""
    [findings] = [findings for behaviour, findings in rows if behaviour == exhausted.title]
    for pool, finding in findings.items():
        if finding.detail:
            said = " ".join(finding.detail.split())
            yield pool, said if len(said) <= 400 else f"{said[:399]}…"


if __name__ == "__main__":
    if sys.argv[1:]:
        _work(sys.argv[1], sys.argv[2:])
    from classroom import servers

    found = servers.find()
    print(text(table(found.dsn, found.admin_dsn)))
