"""Where things lie: the folder of the course, and the one folder it may write to."""

import os
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


class PlaceError(Exception):
    """The course has no folder to write to. The message is one line and ends with the way out."""


def state() -> Path:
    """Return the folder for servers, progress and Jupyter's settings, made if need be.

    It is POOLKIT_HOME if that is set, else `.poolkit` in the folder of the course; nothing is
    ever written to the home folder. Raises PlaceError where no file can be made in it.
    """
    home = os.environ.get("POOLKIT_HOME", "").strip()
    folder = Path(os.path.realpath(os.path.expanduser(home))) if home else ROOT / ".poolkit"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # A try says more than permission bits do: read-only disks, quotas, other people's rules.
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        name = "POOLKIT_HOME" if home else "the course's folder"
        raise PlaceError(
            f"can't write to {name} {str(folder)!r}: {error.strerror or error}; "
            "try: set POOLKIT_HOME to a folder of your own"
        ) from error
    return folder
