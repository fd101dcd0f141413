"""Code in ten languages, and formulas: plain, and as ChatGPT's page rendered them. Used by answers.py and questions.py.

All variants are made once per process from code.yaml.
"""

import html
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

SOURCE = Path(__file__).parent / "code.yaml"
NUMBERS = (2, 3, 5, 7, 10, 12, 24, 30, 64, 100)
_STRING_OR_NUMBER = r"|(?P<string>\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'|`[^`]*`)|(?P<number>\b\d+(?:\.\d+)?\b)"
_COPY_ICON = (
    '<svg stroke="currentColor" fill="none" stroke-width="2" viewBox="0 0 24 24" stroke-linecap="round" '
    'stroke-linejoin="round" class="h-4 w-4" height="1em" width="1em" xmlns="http://www.w3.org/2000/svg"><path d="M16 '
    '4h2a2 2 0 0 1 2 2v14a2 2 0 0 1-2 2H6a2 2 0 0 1-2-2V6a2 2 0 0 1 2-2h2"></path><rect x="8" y="2" width="8" '
    'height="4" rx="1" ry="1"></rect></svg>'
)
_MACROS = {
    r"\alpha": "α", r"\beta": "β", r"\gamma": "γ", r"\lambda": "λ", r"\mu": "μ", r"\sigma": "σ", r"\pi": "π",
    r"\theta": "θ", r"\eta": "η", r"\Delta": "Δ", r"\nabla": "∇", r"\leq": "≤", r"\to": "→", r"\sum": "∑", r"\int": "∫",
    r"\log": "log", r"\lim": "lim", r"\,": " ",
}  # fmt: skip
_TEX_TOKEN = re.compile(r"\\[A-Za-z]+|\\,|\d+|[A-Za-z]|\S")


@dataclass(frozen=True)
class Snippet:
    language: str
    code: str
    block: str  # the same as HTML, with its bar, copy button and highlighting


@dataclass(frozen=True)
class Formula:
    tex: str
    inline: str
    display: str


@cache
def snippets() -> tuple[Snippet, ...]:
    """Every template with every thing."""
    source = yaml.safe_load(SOURCE.read_text("utf-8"))
    return tuple(
        _snippet(name, language, _filled(template, thing, NUMBERS[number % len(NUMBERS)]))
        for name, language in source["languages"].items()
        for template in language["snippets"]
        for number, thing in enumerate(source["things"])
    )


@cache
def formulas() -> tuple[Formula, ...]:
    source = yaml.safe_load(SOURCE.read_text("utf-8"))
    return tuple(_formula(tex) for tex in source["formulas"])


def _filled(template: str, thing: str, number: int) -> str:
    filled = template.replace("@thing@", thing).replace("@Thing@", thing.capitalize())
    return filled.replace("@number@", str(number))


def _snippet(name: str, language: dict[str, Any], code: str) -> Snippet:
    words = "|".join(re.escape(word) for word in language["keywords"].split())
    pattern = re.compile(
        rf"(?P<comment>{language['comment']}){_STRING_OR_NUMBER}|(?P<keyword>(?<!\w)(?:{words})(?!\w))", re.DOTALL
    )
    return Snippet(name, code, _code_block(name, _highlighted(code, pattern)))


def _highlighted(code: str, pattern: re.Pattern[str]) -> str:
    parts, end = [], 0
    for match in pattern.finditer(code):
        parts += [
            _escaped(code[end : match.start()]),
            f'<span class="hljs-{match.lastgroup}">{_escaped(match[0])}</span>',
        ]
        end = match.end()
    return "".join([*parts, _escaped(code[end:])])


def _escaped(text: str) -> str:
    return html.escape(text, quote=False)


def _code_block(name: str, code: str) -> str:
    return (
        '<pre><div class="bg-black rounded-md mb-4"><div class="flex items-center relative text-gray-200 bg-gray-800 '
        f'px-4 py-2 text-xs font-sans justify-between rounded-t-md"><span>{name}</span><button class="flex ml-auto '
        f'gap-2">{_COPY_ICON}Copy code</button></div><div class="p-4 overflow-y-auto"><code class="!whitespace-pre '
        f'hljs language-{name}">{code}</code></div></div></pre>'
    )


def _formula(tex: str) -> Formula:
    math = (
        '<span class="katex"><span class="katex-mathml"><math xmlns="http://www.w3.org/1998/Math/MathML"><semantics>'
        f'<mrow>{_mathml(tex)}</mrow><annotation encoding="application/x-tex">{_escaped(tex)}</annotation></semantics>'
        f'</math></span><span class="katex-html" aria-hidden="true">{_boxes(tex)}</span></span>'
    )
    return Formula(
        tex,
        f'<span class="math math-inline">{math}</span>',
        f'<div class="math math-display"><span class="katex-display">{math}</span></div>',
    )


def _symbols(tex: str) -> list[str]:
    """What one sees, from left to right."""
    symbols = (_MACROS.get(token, token) for token in _TEX_TOKEN.findall(tex))
    return [symbol for symbol in symbols if symbol[0] not in "\\{}^_"]


def _mathml(tex: str) -> str:
    """A flat row. KaTeX nests fractions and scripts; every reader takes the annotation."""
    return "".join(f"<{tag}>{_escaped(text)}</{tag}>" for text in _symbols(tex) for tag in [_mathml_tag(text)])


def _mathml_tag(symbol: str) -> str:
    return "mn" if symbol.isdigit() else "mi" if symbol.isalpha() else "mo"


def _boxes(tex: str) -> str:
    marks = "".join(f'<span class="mord mathnormal">{_escaped(symbol)}</span>' for symbol in _symbols(tex))
    return (
        f'<span class="base"><span class="strut" style="height:0.8141em;vertical-align:-0.25em;"></span>{marks}</span>'
    )
