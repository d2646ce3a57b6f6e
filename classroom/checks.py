"""Is everything ready? A check for each thing that lessons need, and what to try where it fails.

    report = run()     all of them, in order; whatever is wrong, it raises nothing
    print(report)      ✓ Python     3.11.7, in /home/ada/poolkit/.venv
                       ✗ packages   missing: pandas 3.0.1; try: make setup, then restart the kernel
    report.ready       True if there is no ✗

`slider()` and `departures(rows)` are for the eyes: only a reader can say whether a page shows them.

Standard library only until a check needs more, and readable to Python 3.6: this must also run where
nothing is installed, and in a Python that is too old, to say so.
"""

import contextlib
import functools
import html
import io
import os
import re
import socket
import statistics
import sys
import time
from typing import NamedTuple

from . import install, setup

CONNECTS = 20  # how many connections are opened to say how long one takes
ROOM = 5  # connections that a lesson needs at the least

# JupyterLab's own colours, for light and dark; classroom.questions has them too, and needs widgets.
RIGHT = "var(--jp-success-color1, #2C9C8F)"
WRONG = "var(--jp-warn-color1, #C25700)"
FAINT = "var(--jp-content-font-color2, #666)"
MARKS = {"ok": ("✓", RIGHT), "not checked": ("–", FAINT)}  # all others: ✗


class Check(NamedTuple):
    """What came of one check."""

    name: str
    outcome: str  # "ok", "missing", "wrong", or "not checked" for want of something else
    detail: str  # one line: what was found, or what is wrong
    mend: str = ""  # what to try
    found: object = None  # for the checks that go on with it

    def __str__(self):
        mark, _ = MARKS.get(self.outcome, ("✗", WRONG))
        mend = f"; try: {self.mend}" if self.mend else ""
        return f"{mark} {self.name:<12} {self.detail}{mend}"


class Report(list):
    """The Checks of one run: a table on a page, lines elsewhere."""

    @property
    def ready(self):
        """Whether nothing is missing or wrong."""
        return all(check.outcome == "ok" for check in self)

    @property
    def verdict(self):
        """One sentence about all of them."""
        if self.ready:
            return "Everything is ready."
        wrong = sum(check.outcome in ("missing", "wrong") for check in self)
        what = "1 line is" if wrong == 1 else f"{wrong} lines are"
        return f"{what} not ready: mend from the top, restart the kernel, and run this again."

    def __repr__(self):
        return "\n".join([*map(str, self), self.verdict])

    def _repr_html_(self):
        rows = "".join(map(_row, self))
        return (
            '<div role="status"><table style="border-collapse: collapse; margin: 0 0 8px 0">'
            f"<tbody>{rows}</tbody></table><strong>{html.escape(self.verdict)}</strong></div>"
        )


def _row(check):
    mark, colour = MARKS.get(check.outcome, ("✗", WRONG))
    cell = "text-align: left; vertical-align: top; padding: 3px 14px 3px 0"
    said = html.escape(check.detail)
    if check.mend:
        said += f'<br><strong style="color: {WRONG}">Try:</strong> {html.escape(check.mend)}'
    return (
        f'<tr><td style="{cell}; color: {colour}" title="{check.outcome}">{mark}</td>'
        f'<th scope="row" style="{cell}; font-weight: 600; white-space: nowrap">{check.name}</th>'
        f'<td style="{cell}">{said}</td></tr>'
    )


class NotReady(Exception):
    """Raised inside a check: (outcome, detail, what to try)."""


def check(name):
    """Make a check of a function that returns what it found: a text, or (text, object).

    Called, the check returns a Check, and never raises: what the function raised is the detail, and
    what stands in it behind "; try: ", as in all messages of the course, is the mend.
    """

    def make(look):
        @functools.wraps(look)
        def checked(*args):
            try:
                found = look(*args)
            except NotReady as trouble:
                return Check(name, *trouble.args)
            except ImportError as error:
                return Check(name, "not checked", f"it needs the package {error.name or error}")
            except Exception as error:
                return Check(name, *_told(error))
            detail, thing = (found, None) if isinstance(found, str) else found
            return Check(name, "ok", detail, found=thing)

        checked.check = name
        return checked

    return make


def _told(error):
    from .cells import one_line

    detail, *mend = re.split("; try[:,] ", str(error), maxsplit=1)
    if mend:  # a message of the course's own: one line, and no password in it
        return "wrong", detail, mend[0]
    detail = f"{type(error).__name__}: {one_line(error)}".rstrip(": ")
    return "wrong", detail, "run it again; if that does not help, look in README.md"


def run():
    """Run all checks; return their Report. Starts the private server, if that is the one to use."""
    report = Report([python()])
    if not report.ready:
        return report  # this Python can't even read the others
    report += [packages(), folder(), ports()]
    its = server()
    report.append(its)
    for look in (query, connecting, room):
        needs = Check(look.check, "not checked", "it needs the server")
        report.append(look(its.found) if its.found else needs)
    report += [widgets(), figures()]
    return report


# The checks


@check("Python")
def python(version=sys.version_info):
    """The version, and where it is from."""
    found = "{}.{}.{}".format(*version[:3])
    if version >= setup.NEEDED:
        return f"{found}, in {sys.prefix}"
    newer = setup.newer_python()
    command = setup.command_for("lab", newer or "python3.12")
    raise NotReady(
        "wrong",
        "{} is too old: the course needs {}.{} or newer".format(found, *setup.NEEDED),
        command if newer else f"install Python 3.12, then {command}",
    )


@check("packages")
def packages():
    """What the lock lists is installed. In the course's own .venv also: in the lock's version."""
    from importlib.metadata import PackageNotFoundError, version

    ours, pins = _ours(), locked()
    names = pins if ours else imported()
    missing, other = [], []
    for name in names:
        pin = pins.get(name, "")
        try:
            have = version(name)
        except PackageNotFoundError:
            missing.append(f"{name} {pin}".strip())
            continue
        if ours and have != pin:
            other.append(f"{name} {have} instead of {pin}")
    if missing:
        raise NotReady("missing", f"missing: {_some(missing)}", _installing())
    if other:
        raise NotReady("wrong", f"not as the lock says: {_some(other)}", _installing())
    how = "in the versions of the lock" if ours else "in this Python's own versions"
    return f"all {len(names)} are installed, {how}"


def locked():
    """Return {package: version} of the lock, for this Python on this machine."""
    with open(install.LOCK, encoding="utf-8") as file:
        lines = re.findall(r"^([\w.-]+)==([^\s;]+)(?: *; *(.*?))? *\\?$", file.read(), re.MULTILINE)
    return {name: version for name, version, marker in lines if not marker or _holds(marker)}


def _holds(marker):
    try:
        from packaging.markers import Marker
    except ImportError:  # without it, what not everybody needs is not looked at
        return False
    return Marker(marker).evaluate()


def imported():
    """Return the names of the packages that lessons import: pyproject.toml's, less its tools."""
    import tomllib

    with open(os.path.join(install.ROOT, "pyproject.toml"), "rb") as file:
        project = tomllib.load(file)["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["peers"]
    names = [re.match(r"[\w.-]+", one).group() for one in wanted]
    names = [re.sub(r"[-_.]+", "-", name).lower() for name in names]  # as the lock writes them
    # conda's package of that name holds one that is called psycopg2.
    conda = {"psycopg2-binary": "psycopg2"} if _conda() else {}
    return [conda.get(name, name) for name in names]


def _ours():
    return os.path.isdir(install.VENV) and os.path.samefile(install.VENV, sys.prefix)


def _conda():
    return os.path.isdir(os.path.join(sys.prefix, "conda-meta"))


def _installing():
    """Return what installs the packages where this Python is from."""
    lab, clean = setup.command_for("lab"), setup.command_for("clean")
    if _ours() and install.is_ready():  # somebody has changed it since, and a set-up trusts itself
        return f"end JupyterLab, then {clean}, then {lab}"
    if _ours():
        return f"{setup.command_for('setup')}, then restart the kernel"
    if _conda():
        return "conda env update --file environment.yml, then restart the kernel"
    return f"close this page and open it with {lab}, or choose the Python in .venv as its kernel"


def _some(things, most=5):
    more = f" and {len(things) - most} more" if len(things) > most else ""
    return ", ".join(things[:most]) + more


@check("folder")
def folder():
    """There is a folder to write to: for the private server, and for what you have solved."""
    from . import place

    return str(place.state())


@check("ports")
def ports():
    """Programs on this machine reach each other on 127.0.0.1, and the compose stack's port is not
    somebody else's."""
    try:
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen(1)
            port = listening.getsockname()[1]
            socket.create_connection(("127.0.0.1", port), timeout=2).close()
    except OSError as error:
        raise NotReady(
            "wrong",
            f"a program here can't reach another on 127.0.0.1: {error}",
            "allow that in this machine's firewall or sandbox",
        ) from None
    _compare_with_compose()
    return f"127.0.0.1 can be reached; a free port is {port}"


def _compare_with_compose():
    from .servers import ServerError, compose

    if os.environ.get("POOLKIT_DSN", "").strip():
        return  # then nobody looks for the stack
    reason = ""
    with contextlib.suppress(ServerError):  # of a damaged .env, the check of the server tells
        _, reason = compose.look()
    if reason:
        raise ServerError(reason)


@check("server")
def server():
    """Which server lessons will use, and that it answers."""
    from . import servers

    its = servers.find()
    return its.label, its


@check("a query")
def query(server):
    """The departures board is there, or can be loaded, and is asked for one flight."""
    from . import flights

    dsn = _labelled(server)
    flights.load(dsn)
    with contextlib.closing(_connect(dsn)) as conn:
        flight, airline, destination, *_ = flights.lookup(conn, 1)
    return f"the first flight of the year is {flight} to {destination}, of {airline}"


@check("connecting")
def connecting(server):
    """How long it takes to open and close a connection."""
    dsn, times = _labelled(server), []
    for _ in range(CONNECTS):
        before = time.perf_counter()
        _connect(dsn).close()
        times.append(time.perf_counter() - before)
    ms = statistics.median(times) * 1000
    return f"to open and close one takes {ms:.1f} ms (the median of {CONNECTS})"


@check("connections")
def room(server):
    """How many connections the lessons may have open at once."""
    from .observer import Observer

    lab = Observer(server, "00")
    try:
        budget = lab.budget
    finally:
        lab.disconnect()
    if budget < ROOM:
        raise NotReady(
            "wrong",
            f"there is room for {budget} of ours, and lessons need {ROOM}",
            f"close what else is connected, or raise the limit of the role {lab.role!r}",
        )
    return f"there is room for {budget} of ours at once"


def _labelled(server):
    from psycopg2.extensions import make_dsn

    return make_dsn(server.dsn, application_name="poolkit/check")


def _connect(dsn):
    import psycopg2

    return psycopg2.connect(dsn)


@check("widgets")
def widgets():
    """A slider's move arrives in Python, and JupyterLab has what it takes to draw one."""
    import ipywidgets
    from jupyter_core.paths import jupyter_path

    heard = []
    probe = ipywidgets.IntSlider(1)
    probe.observe(lambda change: heard.append(change["new"]), "value")
    probe.value = 7
    probe.close()
    if heard != [7]:
        raise NotReady("wrong", "a slider was moved and nobody heard of it", _installing())
    parts = [os.path.join(path, "@jupyter-widgets") for path in jupyter_path("labextensions")]
    if not any(map(os.path.isdir, parts)):
        detail = "JupyterLab has no jupyterlab_widgets, which draws them"
        raise NotReady("missing", detail, _installing())
    return f"ipywidgets {ipywidgets.__version__}: a slider moved here was heard"


@check("figures")
def figures():
    """A figure can be drawn, and a page would show it."""
    import matplotlib
    from matplotlib.figure import Figure

    from .cells import in_notebook

    drawn, blank = (Figure(figsize=(2, 1)) for _ in range(2))
    drawn.subplots().plot([1, 2])
    if _png(drawn) == _png(blank):
        raise NotReady("wrong", "matplotlib draws nothing", _installing())
    if in_notebook() and "inline" not in matplotlib.get_backend():
        raise NotReady(
            "wrong",
            f"matplotlib draws for {matplotlib.get_backend()!r}, and not for this page",
            "unset MPLBACKEND and restart the kernel, or run in a cell: %matplotlib inline",
        )
    return f"matplotlib {matplotlib.__version__} has drawn one"


def _png(figure):
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    return picture.getvalue()


# What only a reader can check


def slider():
    """Show a slider, and below it what the kernel has received of it; return both widgets.

    Whoever has no browser moves it by `number.value = 7` and reads `echo.value`.
    """
    import ipywidgets

    from .cells import in_notebook

    number = ipywidgets.IntSlider(3, 0, 20, description="Move me")
    echo = ipywidgets.HTML()

    def draw(change=None):
        echo.value = _squares(number.value)

    number.observe(draw, "value")
    draw()
    plain = "a slider, and below it as many squares as it says"
    if not in_notebook():
        print(plain)
        return number, echo
    from IPython.display import display

    display(ipywidgets.VBox([number, echo])._repr_mimebundle_() | {"text/plain": plain}, raw=True)
    return number, echo


def _squares(n):
    squares = "".join(f'<rect x="{20 * i}" width="16" height="16"/>' for i in range(n))
    many = "1 square" if n == 1 else f"{n} squares"
    return (
        f'<div role="status"><svg width="400" height="16" fill="#1B4F8F">{squares}</svg>'
        f"<br>The kernel received {n}, and drew {many}.</div>"
    )


def departures(rows):
    """Draw how many flights leave in each hour, from the rows of `flights.report`; return the Axes.

    Hours are New York's, 0 to 23; all three airports together, all of January 2013.
    """
    from poolkit.plots.frame import INK, sheet

    count = dict.fromkeys(range(24), 0)
    for hour, _, flights, *_ in rows:
        count[hour] += flights
    with sheet() as ax:
        ax.bar(count.keys(), count.values(), 0.8, color=INK, label="hours")
        ax.set_title("Flights out of New York in January 2013, by the hour of departure")
        ax.set_xlabel("hour of the day")
        ax.set_xticks(range(0, 24, 3))
        ax.grid(axis="y")
    return ax
