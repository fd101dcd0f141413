"""Options and reasons of `chat_marks`; the step is `pipelines/steps/chat_marks.py`."""

from services.jobs.steps import StepOptions


class ChatMarksOptions(StepOptions):
    """Removes the marks that a chat program put into answers: citations, reasoning folded away, labels of buttons.

    Marks in code stay, and so do marks of a kind that the user wrote about.
    """
