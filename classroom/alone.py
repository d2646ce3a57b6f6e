"""Run a lesson's function in a process of its own: for programs that end, and for forks."""

import inspect
import subprocess
import sys


def alone(function, dsn: str, *args, using=()) -> list[str]:
    """Call `function(dsn, *args)` in a new Python; return the lines that it printed.

    The new process knows the source of `function`, and of those that it is `using`, and nothing
    else but the modules os and sys. Waits until it has ended, and says nothing of how.
    """
    parts = ["import os, sys", *map(inspect.getsource, [*using, function])]
    code = "\n".join([*parts, f"{function.__name__}(input(), *{args})"])
    # The address holds a password, and anybody sees a program's arguments: it goes in as input.
    done = subprocess.run(
        [sys.executable, "-c", code], input=str(dsn), capture_output=True, text=True
    )
    return done.stdout.splitlines()
