"""Somebody else's function, in a thread that does not outlive its deadline."""

import ctypes
import os
import re
import sys
import sysconfig
import threading
from functools import lru_cache
from pathlib import Path
from time import monotonic

import psycopg2

import poolkit
from classroom.place import ROOT
from poolkit.where import describe

PATIENCE = 1.0  # seconds for what was stopped to come to its end

LIBRARIES = {
    str(Path(poolkit.__file__).parent),
    str(Path(psycopg2.__file__).parent),
    str(ROOT / "classroom"),
    *(sysconfig.get_paths()[part] for part in ("stdlib", "platstdlib", "purelib", "platlib")),
}


class Late(Exception):
    """The deadline has passed. `where` is the line it hung at, "" if that is not known; `stopped`
    says whether it could be ended."""

    def __init__(self, where, stopped):
        super().__init__(where, stopped)
        self.where, self.stopped = where, stopped


class Stopped(BaseException):
    """Raised in a thread from outside, in the middle of whatever it does."""


def within(seconds: float, work, free):
    """Call `work()` in a thread; return what it returns, or raise what it raises.

    After `seconds`, or if Ctrl-C interrupts the wait: calls `free()`, which has to end whatever the
    work may be waiting for, then raises Stopped in the threads that still run the learner's code,
    those that `work` has started included. Raises Late then, or KeyboardInterrupt.
    """
    result, error = None, None

    def body():
        nonlocal result, error
        try:
            result = work()
        except BaseException as raised:
            error = raised

    before = set(threading.enumerate())
    thread = threading.Thread(target=body, name="exercise", daemon=True)
    thread.start()
    try:
        thread.join(seconds)
    except BaseException:
        free()
        _stop(thread, before)
        raise
    if thread.is_alive():
        where = _hangs_at(thread)
        free()
        raise Late(where, _stop(thread, before))
    if error is not None:
        raise error
    return result


def _hangs_at(thread):
    found = theirs(sys._current_frames().get(thread.ident))
    return describe(found.f_code, found.f_lineno) if found else ""


def _stop(worker, before):
    # What waited for the server has been freed. An endless loop has to be broken into, more than
    # once if it swallows what is raised in it; no more can be done from outside.
    worker.join(0.2)
    deadline = monotonic() + PATIENCE
    report = threading.excepthook
    threading.excepthook = lambda args: args.exc_type is Stopped or report(args)
    try:
        while (busy := _busy(worker, before)) and monotonic() < deadline:
            for thread in busy:
                ident = ctypes.c_ulong(thread.ident)
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, ctypes.py_object(Stopped))
            busy[0].join(0.05)
        return not busy
    finally:
        threading.excepthook = report


def _busy(worker, before):
    frames = sys._current_frames()
    started = [t for t in threading.enumerate() if t not in before and t is not worker]
    busy = [t for t in started if t.is_alive() and theirs(frames.get(t.ident))]
    return ([worker] if worker.is_alive() else []) + busy


def theirs(frame):
    """Return the innermost frame, from this one outwards, that runs the learner's code, or None."""
    while frame is not None and is_library(frame.f_code.co_filename):
        if frame.f_code in BOUNDARY:
            return None
        frame = frame.f_back
    return frame


BOUNDARY = set()  # code of functions that call the learner's: what is outside is the check's own


@lru_cache(maxsize=1000)
def is_library(filename: str) -> bool:
    """Whether code of this file is the machinery's, and not a cell's or an answer's."""
    if filename.startswith("<"):  # made up: a named tuple's methods, what Python has frozen …
        return not filename.startswith(("<ipython-input", "<stdin"))
    folder, name = os.path.split(filename)
    if Path(folder) == Path(__file__).parent and re.match(r"nb\d\d\.py$", name):
        return False
    return any(Path(filename).is_relative_to(library) for library in LIBRARIES)
