"""Calls of tools in a model's text: each family's parser finds the same, however the text is cut."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.tokens.call_families import FAMILIES, CallParser
from services.tokens.pieces import Piece

FAMILY = {family.name: family for family in FAMILIES}
Told = list[tuple[str, str]]
WEATHER = [("call", "weather"), ("arguments", '{"city": "Paris"}')]
TIME = [("call", "time"), ("arguments", '{"zone": {"of": ["a }", "\\"]"]}, "n": -1.5e3}')]
W, T = '{"name": "weather", "arguments": {"city": "Paris"}}', '{"name": "time", "arguments": ' + TIME[1][1] + "}"

PARAMETERS = {
    "city": {"type": "string"},
    "days": {"type": "integer"},
    "id": {"type": ["string", "null"]},
    "of": {"anyOf": [{"type": "array"}, {"type": "null"}]},
}
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"properties": PARAMETERS}}}]


def qwen(*values: tuple[str, str]) -> str:
    keyed = "".join(f"<parameter={key}>\n{value}\n</parameter>\n" for key, value in values)
    return f"<tool_call>\n<function=weather>\n{keyed}</function>\n</tool_call>"


def glm(*values: tuple[str, str]) -> str:
    keyed = "".join(f"<arg_key>{key}</arg_key>\n<arg_value>{value}</arg_value>\n" for key, value in values)
    return f"<tool_call>weather\n{keyed}</tool_call>"


def weather(arguments: str) -> Told:
    return [("call", "weather"), ("arguments", arguments)]


KIMI = (
    "<|tool_calls_section_begin|><|tool_call_begin|>{}<|tool_call_argument_begin|>{}<|tool_call_end|>"
    "<|tool_calls_section_end|>"
)
SEED = "<seed:tool_call>\n<function=weather>\n<parameter=city>Paris</parameter>\n</function>\n</seed:tool_call>"
INVOKE = '<invoke name="weather">\n<parameter name="city">Paris</parameter>\n</invoke>\n'
DSML = (
    INVOKE.replace("</", "</｜DSML｜")
    .replace("<i", "<｜DSML｜i")
    .replace("<p", "<｜DSML｜p")
    .replace('y">', 'y" string="true">')
)
DSML_DAYS = DSML.replace("city", "days").replace("Paris", "3")
NEWER: list[tuple[str, str, Told]] = [
    ("qwen-coder", "I look.\n\n" + qwen(("city", "Paris")) + "\n", [("answer", "I look."), *WEATHER]),
    ("qwen-coder", qwen(("city", "Paris")), WEATHER),
    ("qwen-coder", qwen(), weather("{}")),
    (
        "qwen-coder",
        qwen(("city", '\n"<a>" \\\n'), ("days", "3"), ("of", "[1, {}]"), ("id", "7"), ("other", "True")),
        weather('{"city": "\\n\\"<a>\\" \\\\\\n", "days": 3, "of": [1, {}], "id": "7", "other": true}'),
    ),
    ("qwen-coder", qwen(("city", "3"), ("id", "None")), weather('{"city": "3", "id": null}')),
    ("qwen-coder", qwen(("days", "many")) + qwen(), [*weather('{"days": "many"}'), *weather("{}")]),
    ("qwen-coder", f"<tool_call>\n{W}\n</tool_call>", [("answer", f"<tool_call>\n{W}\n</tool_call>")]),
    ("qwen-coder", qwen(("city", "Paris")).partition("s\n</p")[0], weather('{"city": "Pari')),
    (
        "qwen-coder",
        qwen(("city", "Paris")).replace("</function>", "oh"),
        [*WEATHER, ("answer", "\noh\n</tool_call>")],
    ),
    ("qwen-coder", qwen(("city", "Paris")).replace("</function>\n", "") + "\nSo.", [*WEATHER, ("answer", "\nSo.")]),
    ("qwen-coder", qwen(("city", "Paris")).partition("</function")[0], weather('{"city": "Paris"')),
    ("seed", SEED, WEATHER),
    ("seed", SEED.replace("</function>\n", ""), WEATHER),
    (
        "seed",
        SEED.replace("</seed", "<function=b ad</seed"),
        [*WEATHER, ("answer", "\n<function=b ad</seed:tool_call>")],
    ),
    ("glm", glm(("city", "Paris")), WEATHER),
    ("glm", glm(("city", "Paris")).replace("\n", "") * 2, WEATHER * 2),
    ("glm", glm(("days", "2"), ("city", "a\nb")), weather('{"days": 2, "city": "a\\nb"}')),
    ("glm", "<tool_call>see there</tool_call>", [("answer", "<tool_call>see there</tool_call>")]),
    (
        "hunyuan",
        glm(("city", "Paris"))
        .replace("weather", "weather<tool_sep>")
        .replace("<tool_call>", "<tool_calls>\n<tool_call>")
        .replace(">", ":opensource>")
        + "\n</tool_calls:opensource>",
        WEATHER,
    ),
    ("minimax", f"<minimax:tool_call>\n{INVOKE}</minimax:tool_call>", WEATHER),
    ("minimax", f"<minimax:tool_call>\n{INVOKE}{INVOKE}</minimax:tool_call>", WEATHER * 2),
    ("deepseek-3.2", f"<｜DSML｜function_calls>\n{DSML}</｜DSML｜function_calls>", WEATHER),
    (
        "deepseek-3.2",
        f"<｜DSML｜function_calls>\n{DSML_DAYS}{DSML_DAYS.replace('true', 'false')}</｜DSML｜function_calls>",
        [*weather('{"days": "3"}'), *weather('{"days": 3}')],
    ),
    ("deepseek-4", f"<｜DSML｜tool_calls>\n{DSML}</｜DSML｜tool_calls>", WEATHER),
    (
        "muse",
        "<atem:function_calls>\n"
        + INVOKE.replace("</", "</atem:").replace("<i", "<atem:i").replace("<p", "<atem:p")
        + "</atem:function_calls>",
        WEATHER,
    ),
    ("minicpm", '<function name="weather"><param name="city">Paris</param></function>', WEATHER),
    (
        "minicpm",
        '<function name="weather"><param name="city"><![CDATA[a</param>]]></param></function>',
        weather('{"city": "a</param>"}'),
    ),
    ("apriel", f"<tool_calls>[{W}]</tool_calls>", WEATHER),
    ("apriel", f"<tool_calls>\n{W}\n{T}\n</tool_calls>", [*WEATHER, *TIME]),
    ("apriel", f"<tool_calls>[{W}, {T}]</tool_calls>", [*WEATHER, *TIME]),
    ("apriel", f"<tool_calls>[{W}, 1]", [*WEATHER, ("answer", " 1]")]),
    ("nemotron", f"<TOOLCALL>[{W}]</TOOLCALL>", WEATHER),
    ("gigachat", f"<|function_call|>{W}", WEATHER),
    (
        "cohere",
        "<|START_ACTION|>[\n    "
        f'{{"tool_call_id": "0", "tool_name": "weather", "parameters": {WEATHER[1][1]}}}\n]<|END_ACTION|>',
        WEATHER,
    ),
    ("command-r", f"Action:\n```json\n[\n{W.replace('name', 'tool_name')}\n]```", WEATHER),
    ("command-r", "Action:\n```json\n[1]```", [("answer", "Action:\n```json\n[1]```")]),
    ("kimi", KIMI.format("functions.weather:0", WEATHER[1][1]), WEATHER),
    ("kimi", KIMI.format("no name", "{}"), [("answer", KIMI.format("no name", "{}"))]),
    (
        "functionary",
        f"<function=weather>{WEATHER[1][1]}</function><function=time>{TIME[1][1]}</function>",
        [*WEATHER, *TIME],
    ),
    ("functionary", f"<function=weather>{WEATHER[1][1]}</function>", WEATHER),
    (
        "solar",
        "<|tool_calls|><|tool_call:begin|>a1<|tool_call:name|>weather<|tool_call:args|>"
        f"{WEATHER[1][1]}<|tool_call:end|><|calls|>",
        WEATHER,
    ),
    ("harmony", f" to=functions.weather<|channel|>commentary json<|message|>{WEATHER[1][1]}<|call|>", WEATHER),
    (
        "harmony",
        f"I look. to=functions.weather <|constrain|>json<|message|>{WEATHER[1][1]}\n to=functions.time<|message|>"
        + TIME[1][1],
        [("answer", "I look."), *WEATHER, *TIME],
    ),
    (
        "harmony",
        " to=functions.no name here<|message|>[]<|call|>",
        [("answer", " to=functions.no name here<|message|>[]<|call|>")],
    ),
    ("harmony", " to=functions." + "x" * 300, [("answer", " to=functions." + "x" * 300)]),
    ("gemma", '<|tool_call>call:weather{city:<|"|>Paris<|"|>}<tool_call|>', WEATHER),
    (
        "gemma",
        '<|tool_call>call:weather{a:[1,{<|"|>b c<|"|>:true}],d:{},e:<|"|>"x",}<|"|>}<tool_call|>',
        weather('{"a": [1, {"b c": true}], "d": {}, "e": "\\"x\\",}"}'),
    ),
    (
        "gemma",
        '<|tool_call>call:weather{ city : <|"|>a<|"|>, of: [ 1 , true ], d: { } }<tool_call|>',
        weather('{"city": "a", "of": [1, true], "d": {}}'),
    ),
    ("gemma", "<|tool_call>weather{}<tool_call|>", [("answer", "<|tool_call>weather{}<tool_call|>")]),
    ("gemma", "<|tool_call>call:weather{a:b c}", [*weather('{"a": '), ("answer", "b c}")]),
    ("python", "<|tool_call_start|>[weather(city='Paris')]<|tool_call_end|>", weather('{"city":"Paris"}')),
    (
        "python",
        "<|tool_call_start|>[weather(city='a]', of=[None, True]), time()]<|tool_call_end|>",
        [*weather('{"city":"a]","of":[null,true]}'), ("call", "time"), ("arguments", "{}")],
    ),
    (
        "python",
        "<|tool_call_start|>[weather(x + 1)]<|tool_call_end|>",
        [("answer", "<|tool_call_start|>[weather(x + 1)]<|tool_call_end|>")],
    ),
    ("python", "<|tool_call_start|>[weather(", [("answer", "<|tool_call_start|>[weather(")]),
    ("apertus", '<|tools_prefix|>[{"weather": {"city": "Paris"}}]<|tools_suffix|>', WEATHER),
    (
        "apertus",
        f'<|tools_prefix|>[{{"weather": {WEATHER[1][1]}}}, {{"time": {TIME[1][1]}}}]<|tools_suffix|>',
        [*WEATHER, *TIME],
    ),
    ("apertus", "<|tools_prefix|>[]", [("answer", "<|tools_prefix|>[]")]),
]
FOUND: list[tuple[str, str, Told]] = [
    ("hermes", f"<tool_call>\n{W}\n</tool_call>", WEATHER),
    (
        "hermes",
        f"I look.\n\n<tool_call>\n{W}\n</tool_call>\n<tool_call>\n{T}\n</tool_call>\n",
        [("answer", "I look."), *WEATHER, *TIME],
    ),
    ("hermes", f"<tool_call>{W}</tool_call>\nThere.", [*WEATHER, ("answer", "\nThere.")]),
    ("hermes", f"<tool_call>\n{W}", WEATHER),
    ("hermes", f"<tool_call>{W}<tool_call>{W}</tool_call>", [*WEATHER, *WEATHER]),
    ("hermes", '<tool_call>{"arguments": {"city": "Paris"}, "name": "weather"}</tool_call>', WEATHER),
    ("hermes", '<tool_call>{"name": "weather", "arguments": "{\\"city\\": \\"Paris\\"}"}</tool_call>', WEATHER),
    ("hermes", '<tool_call>{"name": "now"}</tool_call>', [("call", "now"), ("arguments", "{}")]),
    ("hermes", '<tool_call>{"name": "now", "arguments": null}</tool_call>', [("call", "now"), ("arguments", "{}")]),
    ("hermes", '<tool_call>{"name": "weather", "arguments": {"city": "Pa', [WEATHER[0], ("arguments", '{"city": "Pa')]),
    ("hermes", "<tool_call>\nno JSON\n</tool_call>", [("answer", "<tool_call>\nno JSON\n</tool_call>")]),
    ("hermes", "See \n<tool_call>{}</tool_call>", [("answer", "See \n<tool_call>{}</tool_call>")]),
    ("hermes", f"<tool_call>bad<tool_call>{W}</tool_call>", [("answer", "<tool_call>bad"), *WEATHER]),
    (
        "hermes",
        '<tool_call>{"name": "weather", "arguments": 7}</tool_call>',
        [("answer", '<tool_call>{"name": "weather", "arguments": 7}</tool_call>')],
    ),
    ("hermes", "1 < 2 <tool\n", [("answer", "1 < 2 <tool\n")]),
    (
        "hermes",
        '<tool_call>{"name": "a", "arguments": {"x": 1 oh</tool_call>',
        [("call", "a"), ("arguments", '{"x": 1 '), ("answer", "oh</tool_call>")],
    ),
    ("mistral", f"[TOOL_CALLS][{W}]", WEATHER),
    ("mistral", f"[TOOL_CALLS] [{W}, {T}]", [*WEATHER, *TIME]),
    ("mistral", '[TOOL_CALLS][{"name": "weather", "arguments": {"city": "Paris"}, "id": "abcdefghi"}]', WEATHER),
    ("mistral", '[TOOL_CALLS]weather[ARGS]{"city": "Paris"}', WEATHER),
    (
        "mistral",
        f"Look: [TOOL_CALLS]weather[CALL_ID]abcdefghi[ARGS]{WEATHER[1][1]}[TOOL_CALLS]time[ARGS]{TIME[1][1]}",
        [("answer", "Look:"), *WEATHER, *TIME],
    ),
    ("mistral", "[TOOL_CALLS]weather and more\n", [("answer", "[TOOL_CALLS]weather and more\n")]),
    ("mistral", "[TOOL_CALLS][1, 2]", [("answer", "[TOOL_CALLS][1, 2]")]),
    ("mistral", f"[TOOL_CALLS][{W}, oops]", [*WEATHER, ("answer", " oops]")]),
    ("mistral", "[TOOL_CALLS]" + "x" * 300, [("answer", "[TOOL_CALLS]" + "x" * 300)]),
    ("llama", '{"name": "weather", "parameters": {"city": "Paris"}}', WEATHER),
    ("llama", '<|python_tag|>{"type": "function", "name": "weather", "parameters": {"city": "Paris"}}', WEATHER),
    ("llama", f"\n{W}; {T}", [*WEATHER, *TIME]),
    ("llama", '{"answer": 42}', [("answer", '{"answer": 42}')]),
    ("llama", "{", [("answer", "{")]),
    ("llama", f"So: {W}", [("answer", f"So: {W}")]),
    ("llama", '<|python_tag|>brave_search.call(query="x")', [("answer", '<|python_tag|>brave_search.call(query="x")')]),
    *NEWER,
]
IDS = [f"{family}-{text[:40]}" for family, text, _ in FOUND]


def read(family: str, parts: list[str], *, parallel: bool = True) -> Told:
    """What the parser tells, pieces of one part together."""
    parser = CallParser(FAMILY[family], TOOLS, parallel=parallel)
    pieces = [piece for part in parts for piece in parser.text(part)]
    return joined([*pieces, *parser.finish()])


def joined(pieces: list[Piece]) -> Told:
    told: Told = []
    for kind, text in pieces:
        if told and told[-1][0] == kind and kind != "call":
            told[-1] = (kind, told[-1][1] + text)
        else:
            told.append((kind, text))
    return told


@pytest.mark.parametrize(("family", "text", "told"), FOUND, ids=IDS)
def test_calls_are_found_and_all_else_is_text(family: str, text: str, told: Told) -> None:
    assert read(family, [text]) == told


@pytest.mark.parametrize(("family", "text", "told"), FOUND, ids=IDS)
def test_a_token_may_end_anywhere(family: str, text: str, told: Told) -> None:
    assert read(family, list(text)) == told
    for at in range(1, len(text)):
        assert read(family, [text[:at], text[at:]]) == told, f"cut before character {at}"


@given(family=st.sampled_from(sorted(FAMILY)), data=st.data())
def test_any_text_is_read_alike_however_it_is_cut(family: str, data: st.DataObject) -> None:
    words = [
        "<tool_call>",
        "</tool_call>",
        "[TOOL_CALLS]",
        "[ARGS]",
        "[CALL_ID]",
        "<|python_tag|>",
        W,
        T,
        "{",
        "}",
        "[",
    ]
    words += [FAMILY[family].opening, *FAMILY[family].marks, "call:a", "a", "=", "(", ")", "'"]
    words += ["]", '"name"', ":", ",", '"a"', '"arguments"', " ", "\n", "text", "\\", '"', ";", "1"]
    text = "".join(data.draw(st.lists(st.sampled_from(words), max_size=12)))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=5)))
    parts = [text[start:end] for start, end in pairwise([0, *cuts, len(text)])]
    told = read(family, [text])
    assert read(family, parts) == told
    if not any(kind == "call" for kind, _ in told):
        assert told == ([("answer", text)] if text else [])


def test_the_name_comes_first_and_the_arguments_as_they_are_said() -> None:
    parser = CallParser(FAMILY["hermes"])
    assert parser.text('<tool_call>\n{"name": "weather", "arguments":') == []
    assert parser.text(' {"ci') == [Piece("call", "weather"), Piece("arguments", '{"ci')]
    assert parser.text('ty"') == [Piece("arguments", 'ty"')]


def test_text_that_can_be_no_call_is_not_held_back() -> None:
    assert joined(CallParser(FAMILY["llama"]).text('{"city": ')) == [("answer", '{"city":')]
    assert CallParser(FAMILY["hermes"]).text("a <b") == [Piece("answer", "a <b")]


@pytest.mark.parametrize("family", sorted(FAMILY))
def test_an_answer_is_over_after_its_only_call(family: str) -> None:
    text, told = next((text, told) for name, text, told in FOUND if name == family and len(told) == 2)
    parser = CallParser(FAMILY[family], TOOLS, parallel=False)
    over = [(parser.text(character), parser.is_over)[1] for character in text]
    whole = "".join(piece for kind, piece in told if kind == "arguments")
    assert joined(parser.finish()) == [] and over.index(True) >= text.rindex(whole[-6:-2])
    if "}" in text:
        assert over.index(True) == text.index("}")
    assert read(family, [text + text + " more"], parallel=False) == told
