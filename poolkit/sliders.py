"""Sliders around a function that draws: let go of one, and the figure is drawn anew.

    def costs(queries=8, min_size=1):
        ...
        return cost(table)                      # the Axes; a function like any other: costs(20, 4)

    explore(costs, queries=(4, 8, 40), min_size=(1, 4, 8))

The figure is a picture in an HTML widget. ipywidgets' own `interact` puts it into an Output widget,
and with those nbclient, which runs the notebooks in the tests, sometimes waits for ever.
"""

from base64 import b64encode
from html import escape
from io import BytesIO

import ipywidgets
from matplotlib import pyplot

from .plots import alt


def explore(draw, **ranges) -> "Explorer":
    """Show a slider for each argument of `draw` that is named, and the figure drawn with its value.

    A range is (least, start, most), whole numbers. `draw` returns the Axes that it has drawn on, or
    several of one figure. It is called at once, and again whenever a slider is let go; what it
    raises then, stands in the place of the figure.
    """
    return Explorer(draw, ranges)


class Explorer:
    """What `explore()` returns: its `sliders` by name, and its `picture`, an ipywidgets.HTML."""

    def __init__(self, draw, ranges):
        self._draw = draw
        self.sliders = {name: _slider(name, *range_) for name, range_ in ranges.items()}
        self.picture = ipywidgets.HTML(self._drawn())
        self._box = ipywidgets.VBox([*self.sliders.values(), self.picture])
        for slider in self.sliders.values():
            slider.observe(self._redraw, names="value")

    def __repr__(self):
        values = ", ".join(f"{name}={slider.value}" for name, slider in self.sliders.items())
        return f"<Explorer {getattr(self._draw, '__name__', 'of a figure')}({values})>"

    def _repr_mimebundle_(self, **kwargs):
        # Where there are no widgets, on a page that was built, the picture alone is shown.
        shown = self._box._repr_mimebundle_(**kwargs) or {}
        return shown | {"text/plain": repr(self), "text/html": self.picture.value}

    def _redraw(self, change):
        self.picture.value = f'<div style="opacity: 0.35">{self.picture.value}</div>'  # wait …
        try:
            self.picture.value = self._drawn()
        except Exception as error:
            self.picture.value = escape(f"{type(error).__name__}: {error}")

    def _drawn(self):
        axes = self._draw(**{name: slider.value for name, slider in self.sliders.items()})
        figure = (axes[0] if isinstance(axes, tuple | list) else axes).figure
        try:
            return _image(figure, alt(axes))
        finally:
            pyplot.close(figure)  # else a notebook shows it a second time


def _image(figure, words):
    # Twice as many pixels as it is wide: sharp on screens that have them.
    file = BytesIO()
    figure.savefig(file, format="png", dpi=2 * figure.dpi)
    width = round(figure.get_figwidth() * figure.dpi)
    data = b64encode(file.getvalue()).decode()
    return (
        f'<img src="data:image/png;base64,{data}" alt="{escape(words)}" width="{width}" '
        'style="max-width: 100%">'
    )


def _slider(name, least, start, most):
    return ipywidgets.IntSlider(
        min(max(start, least), most),
        least,
        most,
        description=name,
        continuous_update=False,  # each move costs a run
        style={"description_width": "80px"},
        layout=ipywidgets.Layout(width="420px"),
    )
