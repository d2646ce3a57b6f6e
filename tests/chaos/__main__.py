"""A minute of everything that can go wrong: `python -m tests.chaos [seconds] [--seed N]`.

24 clients do with one pool what clients do, rightly and wrongly (`clients`). Meanwhile its backends
are terminated, 50 a second, the pool is resized and drained, and in the middle its server crashes
(`trouble`). A judge looks on, and does the accounts at the end (`judge`). The server is a private
one in a temporary folder, whatever POOLKIT_DSN says (`server`).

Exits with 1 if a promise was broken. The seed decides what everybody does; threads being threads,
the same seed gives a run much like the last one, and not the same.
"""

import argparse
import random
import signal
import sys

from classroom.servers import ServerError

from .run import run
from .server import private_server


def main(argv=None):
    options = arguments().parse_args(argv)
    reset = options.reset or random.Random(options.seed).choice(["rollback", "discard"])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # and so remove what was made
    try:
        with private_server() as server:
            print(
                f"chaos for {options.seconds:g} s, --seed {options.seed} --reset {reset}, "
                f"PostgreSQL {server.version} in {server.folder}",
                flush=True,
            )
            held = run(server, options.seconds, options.seed, reset)
        return 0 if held else 1
    except ServerError as error:
        print(f"chaos: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("chaos: stopped; its server and their folder are gone", file=sys.stderr)
        return 130


def arguments():
    parser = argparse.ArgumentParser(
        prog="chaos", description="Hurt a pool and its server, and see whether its promises hold."
    )
    parser.add_argument("seconds", type=duration, nargs="?", default=60.0, help="60 if not given")
    parser.add_argument(
        "--seed", type=int, default=random.randrange(10**6), help="decides what everybody does"
    )
    parser.add_argument(
        "--reset", choices=["rollback", "discard"], help="the pool's; if not given, by the seed"
    )
    return parser


def duration(text):
    seconds = float(text)
    if not 1 <= seconds <= 86400:
        raise argparse.ArgumentTypeError(f"{text} is not between 1 s and a day: try 5")
    return seconds


if __name__ == "__main__":
    sys.exit(main())
