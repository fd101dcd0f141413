"""What people typed: plain text, with code pasted into it as it came. Used by bench/corpus/__init__.py."""

from bench.corpus.prose import Writer
from bench.corpus.snippets import snippets

# Of the questions.
WITH_CODE = 0.10
WITH_PASTE = 0.06
WITH_DETAILS = 0.25

# What a parser of HTML or of markdown would damage.
PASTES = (
    "std::vector<int> v; List<String> x = new ArrayList<>();",
    "if a<b and c>d then swap(a, b)",
    "snake_case and 2*3*4 and __name__ and C:\\new\\table",
    "2 / 3 cups of flour is needed, is it not?",
    "Traceback (most recent call last):\n  File \"main.py\", line 12, in <module>\n    run(**options)\nKeyError: 'id'",
    "error: expected ‘;’ before ‘}’ token\n\n   12 |     return x\n      |             ^",
    "name;amount;date\nA & B;1,50;2023-01-02\n\n\nC < D;2,00;2023-01-03",
    '<div class="box">\n\n    <p>Hello &amp; welcome</p>\n</div>',
    "# not a heading\n* not a list\n    four spaces\n\ttab",
)


def first_question(writer: Writer) -> str:
    text = writer.fill(writer.words.questions)
    if writer.dice.chance(WITH_DETAILS):
        text += writer.words.space.join(["\n", writer.plain(), writer.plain()])
    return _with_paste(writer, text)


def follow_up(writer: Writer) -> str:
    return _with_paste(writer, writer.fill(writer.words.follow_ups))


def _with_paste(writer: Writer, text: str) -> str:
    dice = writer.dice
    if dice.chance(WITH_CODE):
        return f"{dice.pick(writer.words.code_questions)}\n\n{dice.pick(snippets()).code}"
    if dice.chance(WITH_PASTE):
        return f"{text}\n\n{dice.pick(PASTES)}"
    return text
