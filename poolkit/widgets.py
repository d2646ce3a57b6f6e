"""A live panel: sliders, buttons and a picture around an experiment that also works without them.

    p = panel(lab.dsn, observe=lab.count)
    p                       # in JupyterLab: play with it
    p.run(seconds=1)        # the same experiment by one plain call -> a workload.Run
    p.close()

The experiment itself is in `live.py`, its picture in `svg.py`. Whatever a slider or a button asks
for is done in the experiment's own thread, so that callbacks return at once; the picture is redrawn
by a task on the kernel's loop.
"""

import asyncio
from html import escape
from time import monotonic
from weakref import WeakSet

import ipywidgets

from . import arguments
from .live import Live
from .plots.frame import ERROR
from .pool import ConnectionPool
from .svg import picture

REDRAW = 1 / 12  # seconds from one picture to the next, while something moves


def panel(
    dsn: str = "",
    *,
    job=None,
    max_size: int = 4,
    clients: int = 8,
    query_ms: int = 5,
    driver=None,
    observe=None,
    name: str = "panel",
    seconds: float = 30.0,
    timeout: float = 1.0,
    most: int = 16,
    **connect_kwargs,
) -> "Panel":
    """Make a panel that plays with a pool of its own; shown in JupyterLab, it is drawn as it runs.

    `dsn`, `driver` and `connect_kwargs` are ConnectionPool's. Each client checks out a connection,
    waiting for it at most `timeout` seconds, does `job(conn)` and returns it, over and over. If no
    job is given, the server sleeps for `query_ms`, and a slider changes that. `observe`, if given,
    returns how many connections the server counts. What was started stops after `seconds`. The pool
    can be made as large as `most`.

    Nothing is connected before Start. An earlier panel of the same `name` is closed.
    """
    arguments.sizes(0, max_size)
    for count_of, value in {"clients": clients, "query_ms": query_ms, "most": most}.items():
        arguments.whole(count_of, value, 0)
    arguments.seconds("timeout", timeout)
    if not arguments.seconds("seconds", seconds) > 0:
        raise ValueError(f"seconds must be more than 0, got {seconds!r}")
    for earlier in live_panels():
        if earlier.name == name:
            earlier.close()
            earlier.remove()
    pool = ConnectionPool(
        dsn, driver=driver, min_size=0, max_size=max_size, name=name, **connect_kwargs
    )
    live = Live(pool, job, clients=clients, timeout=timeout, seconds=seconds, observe=observe)
    return Panel(live, query_ms, most)


def live_panels() -> list["Panel"]:
    """List the panels of this process that are not closed."""
    return [one for one in list(_panels) if not one.closed]


class Panel:
    """What `panel()` returns.

    size, clients, query     the sliders (query is None if the panel was given a job)
    leak                     the toggle: one checkout in five is not returned
    start, stop, reset       the buttons
    live                     the experiment: `live.samples` is what the picture shows
    pool                     the pool it plays with
    """

    def __init__(self, live, query_ms, most):
        self.live, self.pool, self.name = live, live.pool, live.pool.name
        self.seconds = live.seconds  # what Start starts
        self.size = _slider("pool size", self.pool.max_size, 1, max(most, self.pool.max_size))
        self.clients = _slider("clients", live.clients, 0, max(32, live.clients))
        self.query = None
        if live.job is None:
            live.job = self._query
            self.query = _slider("query, ms", query_ms, 0, max(200, query_ms))
        self.start = ipywidgets.Button(description="Start", icon="play", button_style="primary")
        self.stop = ipywidgets.Button(description="Stop", icon="stop")
        self.reset = ipywidgets.Button(description="Reset", icon="refresh")
        self.leak = ipywidgets.ToggleButton(description="leak one in five", icon="tint")
        self._picture = ipywidgets.HTML(layout=ipywidgets.Layout(margin="14px 0 0 0"))
        self._line = ipywidgets.HTML()
        self._task = None
        self._connect()
        self._box = self._arrange()
        self._follow()
        _panels.add(self)

    def run(self, seconds: float = 1.0):
        """Do the same without a browser: let the clients work for `seconds`, as the sliders say.

        Waits for it and returns a workload.Run; `table()` has the samples that the picture shows.
        """
        try:
            return self.live.run(seconds, each_tick=self._draw)
        finally:
            self._draw()

    def table(self):
        """List the samples of the last run as a pandas DataFrame, the picture's twin.

        Columns: t_s (since the start), in_use, idle, pending, waiting, max_size, leaked, clients,
        throughput (requests/s) and wait_ms (that 99 % stayed below) of the last second, failed
        (requests since the start), server (its own count).
        """
        import pandas as pd

        rows = [
            {
                "t_s": sample.at,
                "in_use": sample.stats.in_use,
                "idle": sample.stats.idle,
                "pending": sample.stats.pending,
                "waiting": sample.stats.waiting,
                "max_size": sample.stats.max_size,
                "leaked": sample.leaked,
                "clients": sample.clients,
                "throughput": sample.throughput,
                "wait_ms": sample.wait_ms,
                "failed": sample.failed,
                "server": sample.server,
            }
            for sample in self.live.samples
        ]
        return pd.DataFrame(rows)

    def close(self, timeout: float = 5.0):
        """End the clients and close the pool, leaked connections included. The picture stays.

        Waits at most `timeout` seconds for jobs that still run.
        """
        self.live.close(timeout)
        self._draw()

    def remove(self):
        """Take a closed panel off the page."""
        for widget in (*_inside(self._box), self._box):
            widget.close()

    @property
    def closed(self) -> bool:
        return self.live.closed

    def __repr__(self):
        return f"<Panel {self.name!r}: {self._state()}; {self.pool.stats()}>"

    def _repr_mimebundle_(self, **kwargs):
        # Where there are no widgets, on a page that was built, the picture alone is shown.
        shown = self._box._repr_mimebundle_(**kwargs) or {}
        return shown | {"text/plain": repr(self), "text/html": self._picture.value}

    # -- what the buttons and sliders do: each only asks for it, and returns at once -------------

    def _connect(self):
        live = self.live
        self.start.on_click(lambda _: self._ask(live.start, self.seconds))
        self.stop.on_click(lambda _: self._ask(live.stop))
        self.reset.on_click(lambda _: self._start_over())
        self.size.observe(lambda change: self._ask(live.resize, change["new"]), "value")
        self.clients.observe(lambda change: self._set("clients", change["new"]), "value")
        self.leak.observe(lambda change: self._set("leaking", change["new"]), "value")

    def _ask(self, wish, *args):
        wish(*args)
        self._follow()

    def _set(self, setting, value):
        setattr(self.live, setting, value)
        self._follow()

    def _start_over(self):
        self.leak.value = False
        self._ask(self.live.reset)

    def _query(self, conn):
        with conn.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(%s)", (self.query.value / 1000,))

    # -- drawing ---------------------------------------------------------------------------------

    def _follow(self):
        """Draw, and go on drawing until nothing moves any more, on the loop this is called in.

        Without a loop, in plain Python, only what can be seen now is drawn.
        """
        self._draw()
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        # JupyterLab's clicks may come in on another loop than the cell's, which is the better one:
        # it goes on turning while a cell runs.
        if self._task is None or self._task.done() or self._task.get_loop() is not loop:
            self._task = loop.create_task(self._redraw())

    async def _redraw(self):
        while self.live.busy and self._task is asyncio.current_task():
            began = monotonic()
            self._draw()
            await asyncio.sleep(max(0.02, began + REDRAW - monotonic()))
        self._draw()

    def _draw(self):
        live, closed = self.live, self.closed
        counted = live.observe is not None
        self._picture.value = picture(live.samples, self.size.max, live.seconds, counted)
        self._line.value = _line(self._state(), live.problem)
        self.start.disabled = closed or live.running
        self.stop.disabled = closed or not live.running
        for control in (self.reset, self.leak, self.size, self.clients, self.query):
            if control is not None:
                control.disabled = closed

    def _state(self):
        if self.closed:
            return "closed; run the cell again for a new one"
        if self.live.running:
            return f"running, stops by itself after {self.live.seconds:g} s"
        return "stopping" if self.live.samples[-1].clients else "stopped"

    def _arrange(self):
        wrapping = ipywidgets.Layout(flex_flow="row wrap", align_items="center")
        sliders = [s for s in (self.size, self.clients, self.query) if s is not None]
        return ipywidgets.VBox(
            [
                ipywidgets.HBox(sliders, layout=wrapping),
                ipywidgets.HBox([self.start, self.stop, self.reset, self.leak], layout=wrapping),
                self._picture,
                self._line,
            ]
        )


def _slider(words, value, least, most):
    return ipywidgets.IntSlider(
        value,
        least,
        most,
        description=words,
        style={"description_width": "72px"},
        layout=ipywidgets.Layout(width="245px"),
    )


def _line(state, problem):
    # One line, whatever is in it. The mark has the colour of errors; the words must be readable on
    # a dark page too.
    style = f"color:#fff; background:{ERROR}; padding:0 6px; border-radius:3px; margin-right:6px"
    mark = f'<span style="{style}">!</span>' if problem else ""
    return (
        '<div style="line-height:1.5; min-height:3em; max-width:728px">'
        f"{mark}{escape(problem or state)}</div>"
    )


def _inside(box):
    for child in box.children:
        yield from _inside(child) if isinstance(child, ipywidgets.Box) else ()
        yield child


_panels = WeakSet()
