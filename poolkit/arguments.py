"""What a pool refuses before it starts. Each error says which argument, and its value."""

import sys


def sizes(min_size, max_size):
    """Return both: 0 <= min_size <= max_size, and max_size at least 1. Without a max_size the pool
    stays at its smallest. Raises ValueError."""
    whole("min_size", min_size, 0)
    max_size = max(1, min_size) if max_size is None else whole("max_size", max_size, 1)
    if min_size > max_size:
        raise ValueError(f"min_size must not exceed max_size, got {min_size} > {max_size}")
    return min_size, max_size


def whole(name, value, least):
    """Return `value`, a whole number of at least `least`. Raises ValueError."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
    return value


def seconds(name, value, hint=""):
    """Return `value`, a time in seconds: finite, not negative. Raises TypeError or ValueError."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number of seconds, got {value!r}{hint}")
    if not 0 <= value <= sys.float_info.max:
        raise ValueError(f"{name} must be finite and not negative, got {value!r}")
    return value


def lifetime(value):
    """Return `value`, a time in seconds, and more than none: a connection whose time was over at
    once could never be lent. Raises TypeError or ValueError."""
    if seconds("max_lifetime", value) == 0:
        raise ValueError("max_lifetime must be more than 0; for no limit, say 1e9")
    return value


def function(name, value):
    """Return `value`, a function or None. Raises TypeError."""
    if not (value is None or callable(value)):
        raise TypeError(f"{name} must be a function, got {value!r}")
    return value


def reset(value):
    """Return `value`, a way to clean a connection. Raises ValueError."""
    if value not in ("rollback", "discard", None) and not callable(value):
        raise ValueError(f"reset must be 'rollback', 'discard', None or a function, got {value!r}")
    return value


def driver(given, dsn, connect_kwargs, name):
    """Return the driver that was given, or psycopg2's for this address.

    Raises TypeError for both of them, and for what psycopg2's own pools are called with.
    """
    if misnamed := sorted({"minconn", "maxconn"} & set(connect_kwargs)):
        raise TypeError(f"{' and '.join(misnamed)}: here they are called min_size and max_size")
    if not isinstance(dsn, str):
        kind = type(dsn).__name__  # and not its value, which may have a password in it
        raise TypeError(f"dsn must be a string, got {kind}; sizes go by name: max_size=4")
    if given is None:
        from .drivers import Psycopg2

        return Psycopg2(dsn, **{"fallback_application_name": name} | connect_kwargs)
    if dsn or connect_kwargs:
        raise TypeError("give either a driver, or a dsn and what else to connect with")
    return given
