"""What was tried and solved, in `progress.json`, so that a restarted kernel knows it.

A file that cannot be read counts as empty; while none can be written, this kernel remembers.
"""

import json
import os
from typing import NamedTuple

from classroom.place import PlaceError, state

_unsaved = {}  # what could not be written


class Done(NamedTuple):
    """How often an exercise was tried, and whether one of the tries was right."""

    tries: int = 0
    solved: bool = False


def of(name: str) -> Done:
    """Return what is known of one exercise."""
    return _load().get(name, Done())


def record(name: str, solved: bool) -> Done:
    """Count one more try, and return what is known now."""
    everything = _load()  # again each time: other kernels write, too
    before = everything.get(name, Done())
    everything[name] = done = Done(before.tries + 1, before.solved or solved)
    try:
        path = state() / "progress.json"
        new = path.with_name(f"progress-{os.getpid()}.json")
        new.write_text(json.dumps({n: d._asdict() for n, d in everything.items()}, indent=1))
        new.replace(path)  # in one step: nobody reads half a file
        _unsaved.clear()
    except (OSError, PlaceError):
        _unsaved[name] = done
    return done


def _load():
    try:
        kept = json.loads((state() / "progress.json").read_text())
        known = {
            name: Done(max(0, int(one["tries"])), one["solved"] is True)
            for name, one in kept.items()
        }
    except (OSError, PlaceError, ValueError, TypeError, LookupError, AttributeError):
        known = {}
    return known | _unsaved
