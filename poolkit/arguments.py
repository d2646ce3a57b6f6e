"""What a pool refuses before it starts. Each error says which argument, and its value."""

import math


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
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name} must be finite and not negative, got {value!r}")
    return value
