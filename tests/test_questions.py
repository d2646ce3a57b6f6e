"""Questions to the reader, as they work with and without a browser."""

from uuid import uuid4

import ipywidgets
import pytest

from classroom import predict, quiz
from classroom.cells import LessonError
from classroom.questions import QUIZZES, ask


@pytest.fixture
def question():
    """A question that nobody has answered yet in this process."""
    return f"How many? {uuid4()}"


REPLIES = {"one": "Too few.", "two": "Both `slots`.", "three": "Too many."}


def field(question):
    """The widget that a reader uses."""
    _, field, _ = question._box.children
    return field


def reply(question):
    """What stands below it, as HTML."""
    return question._box.children[-1].value


def test_a_question_without_a_notebook_is_printed_with_its_options(question, capsys):
    predict(f"**{question}**", 1, "`two`")
    assert capsys.readouterr().out == f"{question}\n  ( ) 1\n  ( ) two\n"


def test_nobody_has_to_answer(question, capsys):
    guess = predict(question, 1, 2, 3)
    capsys.readouterr()
    assert guess.answer is None and repr(guess) == "prediction: none yet"
    guess.reveal(2)
    assert capsys.readouterr().out == "No prediction · Measured: 2\n"


def test_the_prediction_stands_beside_what_was_measured(question, capsys):
    guess = predict(question, 1, 2, 3)
    guess.answer = 3
    capsys.readouterr()
    guess.reveal(2)
    assert capsys.readouterr().out == "You predicted: 3 · Measured: 2\n"
    guess.reveal(3)
    assert capsys.readouterr().out == "You predicted: 3 · Measured: 3 · as predicted\n"
    assert guess.answer == "3" and repr(guess) == "prediction: 3"


@pytest.mark.parametrize(
    ("answer", "measured", "shown"),
    [
        ("20", 23.456, "23.5"),
        ("2.0", 2, "2 · as predicted"),
        ("23.5", 23.456, "23.5 · as predicted"),
        ("Raises", "raises", "raises · as predicted"),
        ("many", 7, "7"),
    ],
)
def test_numbers_and_words_compare_as_a_reader_would(question, answer, measured, shown, capsys):
    guess = predict(question)
    guess.answer = answer
    capsys.readouterr()
    guess.reveal(measured)
    assert capsys.readouterr().out == f"You predicted: {answer} · Measured: {shown}\n"


def test_choosing_in_the_browser_answers(question):
    guess = predict(question, 1, 2, 3)
    assert isinstance(field(guess), ipywidgets.RadioButtons) and field(guess).value is None
    field(guess).index = 2
    assert guess.answer == "3"


def test_typing_in_the_browser_answers_and_emptying_takes_it_back(question):
    guess = predict(question)
    assert isinstance(field(guess), ipywidgets.Text)
    field(guess).value = "20"
    assert guess.answer == "20"
    field(guess).value = ""
    assert guess.answer is None


def test_an_answer_outlives_its_cell_as_long_as_it_is_an_option(question):
    predict(question, 1, 2, 3).answer = 3
    assert predict(question, 1, 2, 3).answer == "3"
    assert field(predict(question, 1, 2, 3)).index == 2
    assert predict(question, 1, 2).answer is None
    predict(question, 1, 2, 3).answer = None
    assert predict(question, 1, 2, 3).answer is None


def test_what_is_not_an_option_is_refused(question):
    guess = predict(question, 1, 2)
    with pytest.raises(LessonError, match="'4' is not one of '1', '2'"):
        guess.answer = 4


def test_two_options_that_read_the_same_are_refused(question):
    with pytest.raises(LessonError, match="two options are the same"):
        predict(question, 1, "1")


def test_a_quiz_replies_to_every_option(question):
    asked = ask(question, REPLIES, answer="two")
    assert asked.correct is None and repr(asked) == "quiz: not answered yet"
    for option, said in REPLIES.items():
        assert asked.choose(option) == said
        assert asked.correct is (option == "two")
        assert ("✓ Right." in reply(asked)) is (option == "two")
        assert ("✗ Not this one." in reply(asked)) is (option != "two")
    field(asked).index = 1
    assert "Both <code>slots</code>." in reply(asked)
    assert ask(question, REPLIES, answer="two").correct is True


def test_a_quiz_whose_answer_is_no_option_is_refused(question):
    with pytest.raises(LessonError, match="answer='four' is not one of 'one', 'two', 'three'"):
        ask(question, REPLIES, answer="four")


def test_what_a_question_says_is_text_and_never_markup(question):
    asked = ask(f"{question} <b>?", {"<i>": "`<u>`", "x": "y"}, answer="x")
    asked.choose("<i>")
    assert "<code>&lt;u&gt;</code>" in reply(asked)
    assert "<b>?" not in asked._box.children[0].value


@pytest.mark.parametrize("path", sorted(QUIZZES.glob("nb*.toml")), ids=lambda path: path.stem)
def test_every_notebooks_quiz_can_be_asked_and_has_a_right_answer(path, capsys):
    asked = quiz(path.stem.removeprefix("nb"))
    assert 3 <= len(asked) <= 5
    for one in asked:
        assert all(reply.strip() for reply in one.replies.values())
        one.choose(one.right)
        assert one.correct


def test_a_quiz_that_is_not_there_is_named():
    with pytest.raises(LessonError, match="no quiz '99'"):
        quiz("99")
