"""The command `poolkit`: start the course, and look after the servers it talks to."""

import argparse
import sys

from . import lab, place, servers
from .setup import port


def open_lab(options):
    lab.run(options.port, not options.no_browser)


def write_env(options):
    from .servers import compose

    print(compose.write_env())


def look_after_server(options):
    from .servers import postgres

    if options.action == "status":
        found = servers.find()
        print(f"poolkit: {found.label}")
    elif options.action == "stop":
        stopped = postgres.stop()
        print(
            "poolkit: the private server is stopped" if stopped else "poolkit: it was not running"
        )
    else:
        postgres.reset()
        print(
            "poolkit: the private server and its data are removed; the next lesson makes new ones"
        )


def arguments():
    parser = argparse.ArgumentParser(
        prog="poolkit",
        description=__doc__,
        epilog="example: poolkit lab",
    )
    verbs = parser.add_subparsers(dest="verb", metavar="COMMAND", required=True)

    def add(name, run, text, example):
        one = verbs.add_parser(name, help=text, description=text, epilog=f"example: {example}")
        one.set_defaults(run=run)
        return one

    one = add("lab", open_lab, "open JupyterLab on the first notebook", "poolkit lab --port 9000")
    one.add_argument("--no-browser", action="store_true", help="print the address, open nothing")
    one.add_argument("--port", type=port, default=8888, help="first port to try (%(default)s)")

    add("env", write_env, "write .env, with new passwords, for docker compose", "poolkit env")

    one = add(
        "server",
        look_after_server,
        "look at or end the server that lessons use",
        "poolkit server status",
    )
    one.add_argument(
        "action",
        choices=["status", "stop", "reset"],
        help="status: which server it is (a private one is started to ask it); "
        "stop: stop the private one; reset: remove it with its data",
    )
    return parser


def main(argv=None) -> int:
    """Run one command; return 0, or 1 after one line that says what is wrong and what to try."""
    options = arguments().parse_args(argv)
    try:
        options.run(options)
    except (place.PlaceError, servers.ServerError, lab.LabError, OSError) as error:
        print(f"poolkit: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
