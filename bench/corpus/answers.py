"""Answers as ShareGPT's raw dumps have them: the HTML of ChatGPT's page. Used by `bench.corpus` and damage.py."""

from collections.abc import Callable

from bench.corpus.prose import Writer
from bench.corpus.snippets import formulas, snippets

OPEN = '<div class="markdown prose w-full break-words dark:prose-invert dark">'
CLOSE = "</div>"

# Of the answers.
WITH_CODE = 0.22
WITH_COUNTER = 0.04
WITH_COPY_COUNT = 0.01
WITH_INTRO = 0.4
WITH_CLOSING = 0.25

_ARROW = (
    '<svg stroke="currentColor" fill="none" viewBox="0 0 24 24" class="h-3 w-3"><polyline points="{}"></polyline></svg>'
)
_COUNTER = (
    '<div class="text-xs flex items-center justify-center gap-1 self-center"><button class="dark:text-white" '
    f'disabled="">{_ARROW.format("15 18 9 12 15 6")}</button><span class="flex-grow flex-shrink-0">{{}} / {{}}</span>'
    f'<button class="dark:text-white">{_ARROW.format("9 18 15 12 9 6")}</button></div>'
)
_COPY_COUNT = (
    '<div class="flex items-center justify-between text-xs text-gray-400"><button class="flex gap-2">Copy</button>'
    "<span>{} chars / {} words</span></div>"
)


def answer(writer: Writer) -> str:
    """One answer: an introduction, a few blocks, and what the page puts around them."""
    dice, words = writer.dice, writer.words
    blocks = [f"<p>{writer.fill(words.intros)}</p>"] if dice.chance(WITH_INTRO) else []
    blocks += [block(writer) for _ in range(dice.between(1, 3))]
    if dice.chance(WITH_CODE):
        blocks.insert(dice.between(0, len(blocks)), code(writer))
    if dice.chance(WITH_CLOSING):
        blocks.append(f"<p>{writer.fill(words.closings)}</p>")
    return decorated(writer, wrapped("".join(blocks)))


def wrapped(blocks: str) -> str:
    return f"{OPEN}{blocks}{CLOSE}"


def decorated(writer: Writer, value: str) -> str:
    """Counters of the page around an answer: which of several it is, how long it is."""
    dice = writer.dice
    if dice.chance(WITH_COUNTER):
        count = dice.between(2, 5)
        value = _COUNTER.format(dice.between(1, count), count) + value
    if dice.chance(WITH_COPY_COUNT):
        value += _COPY_COUNT.format(len(value) // 2, len(value) // 12)
    return value


def block(writer: Writer) -> str:
    left = writer.dice.random()
    for share, make in _BLOCKS:
        left -= share
        if left < 0:
            return make(writer)
    return paragraph(writer)


def paragraph(writer: Writer) -> str:
    return f"<p>{writer.sentences(2, 5)}</p>"


def paragraph_with_formula(writer: Writer) -> str:
    formula = writer.dice.pick(formulas())
    return f"<p>{writer.sentence()} {formula.inline} {writer.sentences(1, 2)}</p>"


def display_formula(writer: Writer) -> str:
    return f"<p>{writer.sentence()}</p>{writer.dice.pick(formulas()).display}<p>{writer.sentence()}</p>"


def code(writer: Writer) -> str:
    intro = writer.fill(writer.words.code_intros)
    return f"<p>{intro}</p>{writer.dice.pick(snippets()).block}<p>{writer.sentences(1, 2)}</p>"


def numbered_list(writer: Writer) -> str:
    """Loose, as ChatGPT wrote its numbered lists: each item is a paragraph."""
    items = [f"<li><p>{writer.sentences(1, 2)}</p></li>" for _ in range(writer.dice.between(3, 7))]
    return f"<ol>{''.join(items)}</ol>"


def bullet_list(writer: Writer) -> str:
    items = [f"<li>{writer.sentence()}</li>" for _ in range(writer.dice.between(3, 6))]
    return f"<ul>{''.join(items)}</ul>"


def nested_list(writer: Writer) -> str:
    items = [f"<li><p>{writer.sentence()}</p>{_inner_list(writer)}</li>" for _ in range(writer.dice.between(2, 4))]
    return f"<ol>{''.join(items)}</ol>"


def _inner_list(writer: Writer) -> str:
    deepest = f"<ul><li>{writer.sentence()}</li></ul>" if writer.dice.chance(0.3) else ""
    return f"<ul><li>{writer.sentence()}{deepest}</li><li>{writer.sentence()}</li></ul>"


def table(writer: Writer) -> str:
    columns = writer.words.columns[: writer.dice.between(2, 4)]
    head = "".join(f"<th>{column}</th>" for column in columns)
    rows = [_row(writer, len(columns)) for _ in range(writer.dice.between(2, 5))]
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _row(writer: Writer, num_columns: int) -> str:
    pick, topic = writer.dice.pick, writer.topic
    cells = (pick(topic.terms), pick(topic.actions), pick(topic.reasons), f"{writer.dice.between(2, 99)} &lt; n")
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells[:num_columns])}</tr>"


def quotation(writer: Writer) -> str:
    return f"<blockquote><p>{writer.sentences(1, 2)}</p></blockquote>"


def section(writer: Writer) -> str:
    level = writer.dice.between(1, 4)
    return f"<h{level}>{writer.dice.pick(writer.words.headings)}</h{level}><p>{writer.sentences(2, 4)}</p>"


def rule(writer: Writer) -> str:
    return f"<p>{writer.sentence()}<br>{writer.sentence()}</p><hr><p>{writer.sentence()}</p>"


# Of the blocks; the rest are paragraphs.
_BLOCKS: tuple[tuple[float, Callable[[Writer], str]], ...] = (
    (0.13, numbered_list),
    (0.09, bullet_list),
    (0.06, nested_list),
    (0.04, table),
    (0.05, section),
    (0.02, quotation),
    (0.03, paragraph_with_formula),
    (0.02, display_formula),
    (0.01, rule),
)
