"""The whole numbers from one to another, as an expression of their digits. `json_schema.py` asks for them."""

from services.grammar.expressions import Characters, Expression, Text, choice, repeat, sequence

_DIGIT = Characters(((48, 57),))


def whole_number(low: int, high: int) -> Expression:
    """The texts of the numbers from `low` to `high`, in decimal and without leading zeros."""
    options: list[Expression] = []
    if low < 0:
        options.append(sequence(Text("-"), _natural(max(1, -high), -low)))
    if high >= 0:
        options.append(_natural(max(low, 0), high))
    return choice(options)


def _natural(low: int, high: int) -> Expression:
    """Numbers of each length apart: of one length, digits compare from the left."""
    options = []
    for length in range(len(str(low)), len(str(high)) + 1):
        least = max(low, 10 ** (length - 1) if length > 1 else 0)
        options.append(_same_length(str(least), str(min(high, 10**length - 1))))
    return choice(options)


def _same_length(low: str, high: str) -> Expression:
    if not low:
        return Text("")
    if set(low) == {"0"} and set(high) == {"9"}:
        return repeat(_DIGIT, len(low), len(low))
    if low[0] == high[0]:
        return sequence(Text(low[0]), _same_length(low[1:], high[1:])) if low[1:] else Text(low[0])
    return choice(_by_first_digit(low, high))


def _by_first_digit(low: str, high: str) -> list[Expression]:
    """Below the first digit of `high` and above that of `low`, any digits may follow."""
    rest = len(low) - 1
    if not rest:
        return [Characters(((ord(low), ord(high)),))]
    lowest, highest = ord(low[0]), ord(high[0])
    options = []
    if low[1:] != "0" * rest:
        options.append(sequence(Text(low[0]), _same_length(low[1:], "9" * rest)))
        lowest += 1
    if high[1:] != "9" * rest:
        options.append(sequence(Text(high[0]), _same_length("0" * rest, high[1:])))
        highest -= 1
    if lowest <= highest:
        options.append(sequence(Characters(((lowest, highest),)), repeat(_DIGIT, rest, rest)))
    return options
