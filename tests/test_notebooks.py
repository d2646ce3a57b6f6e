"""Every notebook, from top to bottom, twice in one kernel, on the server, widgets and all."""

import os
import re
import sys
import time
from contextlib import closing

import psycopg2
import pytest

from classroom.install import environment
from classroom.place import ROOT

pytestmark = [pytest.mark.server, pytest.mark.lesson]

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SECONDS = {"14": 40}  # machine time that a notebook may take, 20 unless it stands here

THIS_KERNEL = """
    select application_name, state, query from pg_stat_activity
    where application_name like 'poolkit/%%' and split_part(application_name, '/', 3) = %s
"""


@pytest.fixture
def kernel_environment(course_home, monkeypatch):
    """What `make lab` gives its kernels: nothing is read from or written to the home folder."""
    env = environment(os.fspath(course_home), os.path.dirname(sys.executable))
    # The set-up has made matplotlib's list of fonts, which takes seconds, for learners and for us.
    env["MPLCONFIGDIR"] = os.environ.get("MPLCONFIGDIR", env["MPLCONFIGDIR"])
    for name in set(os.environ) - set(env):
        monkeypatch.delenv(name)
    for name, value in env.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_twice_in_one_kernel_and_leaves_no_connection(
    path, server, kernel_environment, record_property
):
    # Imported here, as it takes a second, and `make fast` loads this file too.
    import nbformat
    from nbclient import NotebookClient

    limit = SECONDS.get(path.name[:2], 20)
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=3 * limit,
        kernel_name="python3",
        resources={"metadata": {"path": os.fspath(path.parent)}},
    )
    cells = list(notebook.cells)  # nbclient puts what it runs in their place
    with client.setup_kernel(), closing(psycopg2.connect(server.dsn)) as judge:
        judge.autocommit = True
        for run in "first", "second":
            started = time.monotonic()
            for index, cell in enumerate(cells):
                execute(client, cell, index, f"{path.name}, {run} run")
            seconds = time.monotonic() - started
            record_property(f"{run} run", (path.stem, seconds))
            assert seconds < limit, f"{path.name}: the {run} run took {seconds:.1f} s"
            left = left_over(judge, kernel_of(client))
            assert not left, f"{path.name}: after the {run} run the server still has {left}"


def execute(client, cell, index, run):
    """Run one cell; where it fails or warns, fail the test with the cell and what it said."""
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    __tracebackhide__ = True
    source = "\n".join("    " + line for line in cell.source.splitlines())
    problem = ""
    try:
        client.execute_cell(cell, index)
    except CellExecutionError as error:
        problem = plain(str(error))  # it has the cell's source
    except (CellTimeoutError, DeadKernelError) as error:
        problem = f"{source}\n\n{str(error).splitlines()[0]}"
    outputs = cell.get("outputs", [])
    warned = "".join(output.text for output in outputs if output.get("name") == "stderr")
    if warned and not problem:
        problem = f"{source}\n\nwrote to stderr: {plain(warned)}"
    if problem:
        pytest.fail(f"{run}, cell {cell.id!r}:\n\n{problem}", pytrace=False)


def plain(text):
    return re.sub(r"\x1b\[[0-9;]*m", "", text).strip()


def kernel_of(client):
    """Return what this kernel's connections carry in their application_name."""
    from nbformat.v4 import new_code_cell

    cell = new_code_cell("__import__('classroom.observer').observer.kernel()")
    client.execute_cell(cell, 0, store_history=False)
    return cell.outputs[0].data["text/plain"].strip("'")


def left_over(judge, kernel):
    """Return the kernel's connections, as the server sees them; waits up to 2 s for none.

    A client that closes does not wait for its backend, which takes a few milliseconds to go.
    """
    deadline = time.monotonic() + 2
    while True:
        with judge.cursor() as cursor:
            cursor.execute(THIS_KERNEL, [kernel])
            left = cursor.fetchall()
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.02)
