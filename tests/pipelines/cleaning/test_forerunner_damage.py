"""What the forerunner's cleaner damaged comes out right, through the whole shipped recipe.

The rows are measured outputs of FastChat's clean_sharegpt; each says what it made of the text. Which samples are
dropped and how long ones are split is in tests/pipelines/steps/ (roles, select, deduplicate, quality, split_long).
"""

import json

import pytest

from pipelines.cleaning import local
from pipelines.cleaning.cleaning import Cleaning
from services.jobs.recipe import parse_recipe
from services.places import ROOT

QUESTIONS = {  # the forerunner read questions as HTML
    "escaped: snake\\_case and 2\\*3\\*4": "snake_case and 2*3*4, how are they read?",
    "tags eaten: std::vector v; List x": "std::vector<int> v; List<String> x; what are these?",
    "read as bold: if a**d then**": "if a<b and c>d then what is printed?",
    "indentation collapsed": "line1\nline2\n\n    indented by four, why?",
    "counter at the start": "2 / 3 cups of flour is needed, how much is that?",
    "entities decoded": "What does &lt;div&gt; or &amp; mean?",
    "blank lines collapsed": "a\n\n\n\nb: why so many lines?",
}
HEADER = '<pre><div class="bg-black rounded-md"><div class="flex items-center"><span>python</span>'
CODE = HEADER + '<button class="flex ml-auto">Copy code</button></div><div class="p-4 overflow-y-auto">'
ANSWERS = {  # what it made → (HTML, markdown)
    "right": (
        CODE + '<code class="!whitespace-pre hljs language-python"><span class="hljs-keyword">def</span> f_x():\n'
        "    return 1\n</code></div></div></pre><p>That is all.</p>",
        "```python\ndef f_x():\n    return 1\n```\n\nThat is all.",
    ),
    "without a language": (
        "<pre><code>x = 1\n</code></pre><p>No language here.</p>",
        "```\nx = 1\n```\n\nNo language here.",
    ),
    "counter removed": ("<p>2 / 2</p><p>The answer itself.</p>", "The answer itself."),
    "cups of flour is needed": ("<p>2 / 3 cups of flour is needed</p>", "2 / 3 cups of flour is needed"),
    "paragraph break lost": ("<p>para 1 of it</p>\n\n<p>para 2 of it</p>", "para 1 of it\n\npara 2 of it"),
    "blank lines in code lost": (
        "<pre><code>a\n\n\nb\n</code></pre><p>Three of them.</p>",
        "```\na\n\n\nb\n```\n\nThree of them.",
    ),
    "stray backticks": (
        "<pre><code><code>x = nested()</code>\n</code></pre><p>Nested code.</p>",
        "```\nx = nested()\n```\n\nNested code.",
    ),
    "broken at the inner fence": (
        "<pre><code>say ```\nCopy code\n```\n</code></pre><p>A fence in code.</p>",
        "````\nsay ```\nCopy code\n```\n````\n\nA fence in code.",
    ),
    "words of the button in prose": (
        "<p>Press Copy code, then Copy12 chars / 3 words.</p>",
        "Press Copy code, then Copy12 chars / 3 words.",
    ),
    "list, table, entities": (
        "<ol><li><p>One</p></li><li><p>Two</p></li></ol><table><thead><tr><th>a</th><th>b</th></tr></thead><tbody>"
        "<tr><td>1</td><td>2</td></tr></tbody></table><p>&lt;tag&gt;</p>",
        "1. One\n\n2. Two\n\n| a | b |\n| --- | --- |\n| 1 | 2 |\n\n<tag>",
    ),
    "escaped": ("<p>snake_case and 2*3*4 [x] #1</p>", "snake_case and 2*3*4 [x] #1"),
}
IMPORT = "```python\nimport openai\nclient = openai.OpenAI()\n```\n\nSee https://api.openai.com/v1 for the rest."


@pytest.fixture(scope="module")
def cleaned(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Id → the texts that the recipe left."""
    folder = tmp_path_factory.mktemp("damage")
    pairs = {name: (text, f"An answer that says enough about it: {name}.") for name, text in QUESTIONS.items()}
    pairs |= {name: (f"Tell me: {name}, number {n}?", html) for n, (name, (html, _)) in enumerate(ANSWERS.items())}
    pairs["drops every sample that imports the library"] = ("How do I call it from Python?", IMPORT)
    records = [
        {"id": name, "conversations": [{"from": "human", "value": one}, {"from": "gpt", "value": other}]}
        for name, (one, other) in pairs.items()
    ]
    (folder / "in.json").write_text(json.dumps(records))
    text = (ROOT / "infra/recipes/vicuna.yaml").read_text("utf-8").replace("near: true", "near: false")
    local.run(Cleaning(folder / "out", parse_recipe(text), [str(folder / "in.json")]), 1, lambda *_: None)
    lines = [json.loads(line) for name in ("data", "validation") for line in (folder / "out" / f"{name}.jsonl").open()]
    return {line["id"]: [turn["value"] for turn in line["conversations"]] for line in lines}


@pytest.mark.parametrize("name", QUESTIONS)
def test_what_people_typed_is_not_touched(cleaned: dict[str, list[str]], name: str) -> None:
    assert cleaned[name][0] == QUESTIONS[name]


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_is_the_markdown_that_it_was(cleaned: dict[str, list[str]], name: str) -> None:
    assert cleaned[name][1] == ANSWERS[name][1]


def test_code_that_imports_a_library_is_kept(cleaned: dict[str, list[str]]) -> None:
    assert cleaned["drops every sample that imports the library"][1] == IMPORT
