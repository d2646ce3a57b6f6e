"""Questions to the reader: predict() before something runs, quiz() after it.

Neither ever waits for an answer: without one, a notebook runs through all the same. Both work
without a browser: `guess.answer = "3"`, `question.choose("a leak")`. An answer outlives its cell:
running the cell again in the same kernel brings it back.
"""

import html
import re
import tomllib
from numbers import Real
from pathlib import Path

import ipywidgets as widgets

from classroom.cells import LessonError, display_or_print, in_notebook

QUIZZES = Path(__file__).with_name("quizzes")

_answers = {}  # question -> the answer given in this kernel

# JupyterLab's own colours, so that light and dark themes both hold; the second is for other pages.
QUIET = "var(--jp-border-color1, #bdbdbd)"
INK = "var(--jp-content-font-color1, #222)"
FAINT = "var(--jp-content-font-color2, #666)"
RIGHT = "var(--jp-success-color1, #2C9C8F)"
WRONG = "var(--jp-warn-color1, #C25700)"

# An option may take several lines; ipywidgets gives each the height of one.
STYLE = """<style>
.poolkit-question .widget-radio-box label {
    display: flex; flex-direction: row-reverse; justify-content: flex-end; align-items: baseline;
    height: auto; line-height: 1.5; max-width: 48em; margin: 0 0 2px; white-space: normal;
}
.poolkit-question .widget-radio-box input { flex: none; align-self: flex-start; }
</style>"""


class Question:
    """A question, a place for the answer, and room below for what is said about it."""

    label = "Answer"

    def __init__(self, question: str, options=()):
        self.question = question
        self.options = [str(option) for option in options]
        if len(set(self.options)) != len(self.options):
            raise LessonError(f"question {question!r}: two options are the same")
        self._reply = widgets.HTML()
        self._field = self._make_field()
        heading = widgets.HTML(STYLE + _text(f"<strong>{_marked(question)}</strong>"))
        self._box = widgets.VBox([heading, self._field, self._reply], layout=_card(QUIET))
        self._box.add_class("poolkit-question")
        self._field.observe(lambda change: self._answered(change["new"] or None), names="value")
        self._shown_in = None
        kept = _answers.get(question)
        if kept is not None and (not self.options or kept in self.options):
            self.answer = kept

    @property
    def answer(self) -> str | None:
        """What was answered, as text; None before that. Set it to answer without a browser."""
        return self._field.value or None

    @answer.setter
    def answer(self, value):
        if value is not None:
            value = str(value)
            if self.options and value not in self.options:
                known = ", ".join(map(repr, self.options))
                raise LessonError(f"question {self.question!r}: {value!r} is not one of {known}")
        self._field.value = value if self.options else value or ""

    def show(self) -> None:
        """Show the question here."""
        plain = "\n".join([_plain(self.question), *(f"  ( ) {_plain(o)}" for o in self.options)])
        if not in_notebook():
            print(plain)
            return
        from IPython import get_ipython
        from IPython.display import display

        # A page that cannot show widgets (an export, a code host) shows the text instead.
        display(self._box._repr_mimebundle_() | {"text/plain": plain}, raw=True)
        self._shown_in = get_ipython().execution_count

    def _ipython_display_(self):
        # The last line of the cell that asked: it is on the page already.
        from IPython import get_ipython

        if self._shown_in != get_ipython().execution_count:
            self.show()

    def _make_field(self):
        style = {"description_width": "initial"}
        if self.options:
            return widgets.RadioButtons(
                options=[(_plain(option), option) for option in self.options], value=None,
                description=self.label, tooltip=_plain(self.question), style=style,
                layout=widgets.Layout(width="auto", max_width="100%"),
            )  # fmt: skip
        return widgets.Text(
            description=self.label, tooltip=_plain(self.question), placeholder="your guess",
            style=style,
            layout=widgets.Layout(width="18em"),
        )  # fmt: skip

    def _answered(self, answer):
        _answers[self.question] = answer

    def _say(self, markup, colour):
        self._reply.value = markup and _text(markup)
        self._box.layout.border_left = f"3px solid {colour}"


class Prediction(Question):
    """What the reader expects, kept until it can stand beside what was measured."""

    label = "Your prediction"

    def __repr__(self):
        return f"prediction: {self.answer or 'none yet'}"

    def reveal(self, measured) -> None:
        """Show the prediction beside what was measured, a number or a text."""
        found = _shown(measured)
        if self.answer is None:
            said, verdict = "No prediction", ""
        else:
            said = f"You predicted: {_plain(self.answer)}"
            verdict = " · as predicted" if _same(self.answer, measured, found) else ""
        marked = html.escape(said).replace(": ", ": <strong>", 1)
        marked += "</strong>" if self.answer else ""
        colour = RIGHT if verdict else QUIET
        display_or_print(
            f'<div style="border-left: 3px solid {colour}; padding: 4px 0 4px 14px; color: {INK}">'
            f"{marked} · Measured: <strong>{html.escape(found)}</strong>{verdict}</div>",
            f"{said} · Measured: {found}{verdict}",
            kind="text/html",
        )


class Quiz(Question):
    """A question with a reply to every option."""

    def __init__(self, question: str, replies: dict, answer):
        self.replies = {str(option): reply for option, reply in replies.items()}
        self.right = str(answer)
        if self.right not in self.replies:
            known = ", ".join(map(repr, self.replies))
            raise LessonError(f"quiz {question!r}: answer={self.right!r} is not one of {known}")
        super().__init__(question, self.replies)

    def __repr__(self):
        if self.answer is None:
            return "quiz: not answered yet"
        return f"quiz: {self.answer}: {self._verdict()} {self.replies[self.answer]}"

    @property
    def correct(self) -> bool | None:
        """Whether the chosen option is the right one; None as long as none is chosen."""
        return None if self.answer is None else self.answer == self.right

    def choose(self, option) -> str:
        """Choose an option without a browser; return the reply to it."""
        self.answer = option
        return self.replies[self.answer]

    def _verdict(self):
        return "✓ Right." if self.correct else "✗ Not this one."

    def _answered(self, answer):
        super()._answered(answer)
        if answer is None:
            self._say("", QUIET)
        else:
            reply = f"<strong>{self._verdict()}</strong> {_marked(self.replies[answer])}"
            self._say(reply, RIGHT if self.correct else WRONG)


def predict(question: str, *options) -> Prediction:
    """Ask for a prediction: one of `options`, or a number or word typed in if there are none.

    Shows the question and returns the Prediction, whose `reveal(measured)` comes later.
    """
    prediction = Prediction(question, options)
    prediction.show()
    return prediction


def quiz(notebook: str) -> list[Quiz]:
    """Ask the questions of a notebook ("04"), which stand in `quizzes/nb04.toml`, so that whoever
    reads the cell does not read the answers. Returns a Quiz for each."""
    path = QUIZZES / f"nb{notebook}.toml"
    try:
        questions = tomllib.loads(path.read_text(encoding="utf-8"))["question"]
    except FileNotFoundError:
        raise LessonError(f"there is no quiz {notebook!r} in {QUIZZES.name}/") from None
    return Questions(ask(one["ask"], one["replies"], one["answer"]) for one in questions)


class Questions(list):
    """Several questions; they are on the page already, and need not be listed again."""

    def _ipython_display_(self):
        pass


def ask(question: str, replies: dict, answer) -> Quiz:
    """Ask a question with a reply to every option, `{option: reply, ...}`; return the Quiz.

    `answer` is the right option. Raises LessonError if `answer` is not among the options.
    """
    asked = Quiz(question, replies, answer)
    asked.show()
    return asked


def _marked(text):
    # The two marks of Markdown that a question needs: `code` and **bold**.
    text = html.escape(str(text), quote=False)
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", text)
    return re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", text)


def _plain(text):
    return re.sub(r"`([^`]+)`|\*\*([^*]+)\*\*", r"\1\2", str(text))


def _text(markup):
    return f'<div role="status" style="color: {INK}; line-height: 1.5">{markup}</div>'


def _card(colour):
    return widgets.Layout(border_left=f"3px solid {colour}", padding="4px 0 4px 14px")


def _shown(measured):
    if isinstance(measured, Real) and not isinstance(measured, (bool, int)):
        return f"{measured:.3g}"
    return str(measured)


def _same(answer, measured, shown):
    if answer.strip().lower() == shown.strip().lower():
        return True
    try:
        return float(answer) == float(measured)
    except (TypeError, ValueError):
        return False
