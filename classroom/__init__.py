"""What lessons import and never explain: `from classroom import start, predict, show, expect`.

Nothing is imported until it is asked for. `classroom.setup` runs before any package is installed,
and on Pythons that are too old for the course, so this file must stay readable to them.
"""

_HOME = {
    "start": "classroom.lesson",
    "predict": "classroom.lesson",
    "show": "classroom.lesson",
    "expect": "classroom.lesson",
    "quiz": "classroom.lesson",
    "exercise": "classroom.exercises",
}
__all__ = sorted(_HOME)


def __getattr__(name):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)


def __dir__():
    return __all__
