"""How the words of a byte-level BPE are cut out of a text, by the name that a GGUF has for it: `tokenizer.ggml.pre`.

The names are llama.cpp's; the expressions are those of the models' own tokenizer.json, in the dialect of the library
`tokenizers` (Oniguruma). `gguf_tokenizer.py` builds a tokenizer from them, `stretches.py` knows some by sight.

The expressions of a name work one after another: each cuts its matches out of the pieces that the one before left.
"""

from dataclasses import dataclass

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACES = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
_SYMBOLS = r"| ?[^\s\p{L}\p{N}]+[\r\n]*"


def _words(letters: str = r"\p{L}", *, digits: str, symbols: str = _SYMBOLS, spaces: str = _SPACES) -> str:
    return rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?{letters}+|{digits}{symbols}{spaces}"


def _cased(digits: str, *, upper: str = _UPPER, lower: str = _LOWER, end: str = "", symbols: str) -> str:
    """A word is capitals and then small letters."""
    start = r"[^\r\n\p{L}\p{N}]?"
    words = rf"{start}[{upper}]*[{lower}]+{end}|{start}[{upper}]+[{lower}]*{end}"
    return rf"{words}|{digits}{symbols}{_SPACES}"


GPT2_SPLIT = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
EACH_DIGIT = r"\p{N}"
LLAMA3_SPLIT = _words(digits=r"\p{N}{1,3}")
QWEN2_SPLIT = _words(digits=r"\p{N}")
QWEN35_SPLIT = _words(r"[\p{L}\p{M}]", digits=r"\p{N}", symbols=r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*")
GPT4O_SPLIT = _cased(r"\p{N}{1,3}", end=rf"{_CONTRACTIONS}?", symbols=r"| ?[^\s\p{L}\p{N}]+[\r\n/]*")
TEKKEN_SPLIT = _cased(r"\p{N}", symbols=r"| ?[^\s\p{L}\p{N}]+[\r\n/]*")
_CJK = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
_NO_HAN = r"&&[^\p{Han}]"
_KIMI_SPLIT = r"[\p{Han}]+|" + _cased(
    r"\p{N}{1,3}", upper=_UPPER + _NO_HAN, lower=_LOWER + _NO_HAN, end=rf"{_CONTRACTIONS}?", symbols=_SYMBOLS
)
_PUNCTUATED = (  # a word may begin with an ASCII mark; marks are joined to letters
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+"
)
_DEEPSEEK3_SPLIT = _PUNCTUATED + r"[\r\n]*" + _SPACES
_LONG_SPACES = "".join(rf"|\s{{{length}}}(?!\S)" for length in (512, 256, 128, 64, 32, 16, 8, 4))
_JAIS2_SPLIT = _words(digits=r"\p{N}{1,3}", spaces=rf"|\s*[\r\n]+{_LONG_SPACES}|\s{{1,2}}(?!\S)|\s{{1}}")
_EXAONE_SPLIT = (
    rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?(?:\p{{L}}\p{{M}}*(?: \p{{L}}\p{{M}}*)*)+|\p{{N}}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+"
)
_BAILING_SPLIT = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)
_BLOOM_SPLIT = " ?[^(\\s|.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)]+"
_HANGUL_AND_CHINESE = (
    "[\uac00-\ud7a3\u3131-\u318e]+"
    "|[\uff01\u2026\u201c\u201d\u2018\u2019\u2014\uff1a\uff1b\uff0c\u3001-\u303f\ufe30-\ufe4f]+"
    f"|[\u3105-\u312f]+|{_CJK}"
)
_ASIAN = (
    "[\u4e00-\u9fff\u3400-\u4dbf\uf900-\ufaff\u3040-\u309f\u30a0-\u30ff\uff65-\uff9f\u2f00-\u2fdf\u0e00-\u0e7f"
    "\u0e80-\u0eff\u1780-\u17ff\u1000-\u109f\uaa60-\uaa7f\ua9e0-\ua9ff\uac00-\ud7af\u1100-\u11ff]+"
)
_CHINESE_AND_KOREAN = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
_CASED_LETTERS = (
    "A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373"
    "\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f"
    "\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77"
    "\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d"
    "\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb"
    "\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128"
    "\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4"
    "\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf"
    "\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3"
    "\U000104d8-\U000104fb\U00010c80-\U00010cb2\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943"
)
_DEEPSEEK_LLM = (
    r"[\r\n]",
    rf"\s?[{_CASED_LETTERS}]+",
    "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+",
    r"\s+$",
    _CHINESE_AND_KOREAN,
    r"\p{N}+",
)
_DEEPSEEK_CODER = (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _CHINESE_AND_KOREAN, r"\p{N}")
_CHAMELEON = (
    "<sentinel:[0-9]+>",
    "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z",
    "([\\t\\n]|    |  )",
    EACH_DIGIT,
    r"[\p{P}!-/:-@\[-`{-~]",
    GPT2_SPLIT,
)


@dataclass(frozen=True)
class PreTokenizer:
    """How a text is cut before the merges, and whether a word that is a token whole is taken without merges."""

    patterns: tuple[str, ...]
    ignore_merges: bool = False


_PATTERNS: dict[tuple[str, ...], str] = {
    (GPT2_SPLIT,): "gpt-2 phi-2 jina-es jina-de gigachat jina-v2-es jina-v2-de a.x-4.0 mellum modern-bert jina-v1-en"
    " jina-v2-code roberta-bpe exaone4 mpt olmo jais trillion granite-docling",
    (EACH_DIGIT, GPT2_SPLIT): "starcoder refact command-r smollm codeshell exaone minerva-7b mellum2",
    (LLAMA3_SPLIT,): "llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano dbrx smaug-bpe"
    " chatglm-bpe glm4 glm5",
    (QWEN2_SPLIT,): "qwen2 deepseek-r1-qwen kormo f2llmv2 megrez stablelm2 hunyuan solar-open grok-2",
    (QWEN35_SPLIT,): "qwen35",
    (GPT4O_SPLIT,): "gpt-4o llama4 kanana2 talkie minimax-m2 granite-embed-multi-97m",
    (TEKKEN_SPLIT,): "tekken",
    (_KIMI_SPLIT,): "kimi-k2",
    (r"\p{N}{1,3}", _CJK, _DEEPSEEK3_SPLIT): "deepseek-v3 hunyuan-dense joyai-llm hy_v4",
    (r"\p{N}{1,3}", _CJK, _PUNCTUATED + r"|[\r\n]|\s+(?!\S)|\s+", EACH_DIGIT): "spark2_5",
    _DEEPSEEK_LLM: "deepseek-llm",
    _DEEPSEEK_CODER: "deepseek-coder",
    (_JAIS2_SPLIT,): "jais-2",
    (_HANGUL_AND_CHINESE, _cased(r"\p{N}", end=rf"{_CONTRACTIONS}?", symbols=r"| ?[^\s\p{L}\p{N}]+[\r\n/]*")): "youtu",
    (r"\d{1,3}(?=(?:\d{3})*\b)", GPT4O_SPLIT): "tiny_aya cohere2moe",
    (r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))", _ASIAN, _DEEPSEEK3_SPLIT): "afmoe",
    (r"[\p{P}\$\+<=>\^~\|`]+", GPT2_SPLIT, "[0-9][0-9][0-9]"): "falcon",
    (r"[\p{P}\$\+<=>\^~\|]+", GPT2_SPLIT, r"\p{N}+", "[0-9][0-9][0-9]"): "default",
    (_BLOOM_SPLIT,): "poro-chat bloom gpt3-finnish",
    (_BLOOM_SPLIT, EACH_DIGIT): "viking",
    _CHAMELEON: "chameleon",
    (r"\p{N}+", r"(?=(\d{3})+(?!\d))"): "superbpe",
    (_BAILING_SPLIT,): "bailingmoe bailingmoe2 llada-moe",
    (_EXAONE_SPLIT,): "exaone-moe",
    (_words(digits=r"\p{N}{1}", symbols=r"| ?[^\s\p{L}\p{N}\r\n]+"),): "seed-coder",
    (QWEN2_SPLIT.removeprefix(f"{_CONTRACTIONS}|"),): "ufakzeka",
    (r"[^\n]+|[\n]+", QWEN2_SPLIT): "laguna",
    (r"\p{N}{1,3}", _words(digits=r"\p{N}+")): "minicpm5",
}
_IGNORE_MERGES = (
    "llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano glm4 glm5 tekken youtu minicpm5"
    " granite-embed-multi-97m"
)

PRE_TOKENIZERS = {
    name: PreTokenizer(patterns, ignore_merges=name in _IGNORE_MERGES.split())
    for patterns, names in _PATTERNS.items()
    for name in names.split()
}
