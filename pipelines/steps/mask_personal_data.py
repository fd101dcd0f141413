"""Replaces personal data by `[EMAIL]`, `[PHONE]`, `[CARD]`, `[IBAN]`, `[IP]` and `[KEY]`. Best effort, counted by kind.

The step checks cards by Luhn's digit, IBANs by country, length and remainder, and masks public IP addresses only. It
looks for telephone numbers and IP addresses in prose alone, since code is full of numbers that look like them. It masks
keys, addresses and account numbers everywhere.
"""

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator

from pipelines.records.conversation import Conversation, Turn
from pipelines.records.ledger import Ledger
from pipelines.steps import Step
from pipelines.text.prose import edit_prose
from services.jobs.steps.mask_personal_data import MaskPersonalDataOptions

Mask = Callable[[str], str]


def build(options: MaskPersonalDataOptions) -> Step:
    masks = [(kind, f"[{kind.upper()}]", mask) for kind, mask in _MASKS.items() if kind in options.kinds]

    def masked(turn: Turn, ledger: Ledger) -> Turn:
        text = turn.text
        for kind, name, mask in masks:
            new = mask(text)
            if new is not text and new != text:
                ledger.changed(kind, new.count(name) - text.count(name))
                text = new
        return turn if text is turn.text else Turn(turn.role, text)

    def step(conversations: Iterable[Conversation], ledger: Ledger) -> Iterator[Conversation]:
        for conversation in conversations:
            turns = [masked(turn, ledger) for turn in conversation.turns]
            changed = any(new is not old for new, old in zip(turns, conversation.turns, strict=True))
            yield conversation.with_turns(turns) if changed else conversation

    return step


# --- keys ---

_KEY_SIGNS = (
    *("AKIA", "ASIA", "sk-", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "xox", "AIza", "glpat-"),
    *("hf_", "npm_", "k_live_", "eyJ", "PRIVATE KEY-----"),
)
_KEY = re.compile(
    r"""-----BEGIN\ (?:[A-Z]{2,12}\ ){0,2}PRIVATE\ KEY-----[^-]{16,8192}-----END\ [A-Z ]{11,40}-----
    | (?<![\w-])(?:
        A(?:KIA|SIA)[0-9A-Z]{16}                                    # AWS
      | sk-(?=[\w-]*\d)(?=[\w-]*[A-Z])(?=[\w-]*[a-z])[\w-]{20,200}  # OpenAI, Anthropic
      | gh[pousr]_[0-9A-Za-z]{36,255} | github_pat_\w{22,255}
      | xox[abeprs]-[0-9A-Za-z-]{10,250}                            # Slack
      | AIza[\w-]{35}                                               # Google
      | glpat-[\w-]{20,64}                                          # GitLab
      | hf_[0-9A-Za-z]{30,64}                                       # Hugging Face
      | npm_[0-9A-Za-z]{36}
      | [sr]k_live_[0-9A-Za-z]{16,255}                              # Stripe
      | eyJ[\w-]{8,4096}\.eyJ[\w-]{8,8192}\.[\w-]{16,4096}          # a JSON Web Token
    )(?![\w-])""",
    re.VERBOSE | re.ASCII,
)


def _mask_keys(text: str) -> str:
    return _KEY.sub("[KEY]", text) if any(sign in text for sign in _KEY_SIGNS) else text


# --- email ---

_AT = re.compile(r"@((?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,62})\.){1,8}([A-Za-z]{2,24}))(?![\w@(-])")
_LOCAL = re.compile(r"(?<![\w.%+/-])[A-Za-z0-9_](?:[A-Za-z0-9._%+-]{0,63})$", re.ASCII)
_NOBODY = re.compile(r"(?:.*\.)?(?:example\.(?:com|org|net|edu)|example|test|invalid|localhost|local)$", re.IGNORECASE)
_NO_DOMAINS = {"png", "jpg", "jpeg", "gif", "svg", "webp", "js", "ts", "css", "py", "html", "json"}  # icon@2x.png


def _mask_emails(text: str) -> str:
    pieces, done = [], 0
    for match in _AT.finditer(text) if "@" in text else ():
        local = _LOCAL.search(text[max(done, match.start() - 65) : match.start()])
        if local and not _is_nobody(local[0], match, text):
            pieces += [text[done : match.start() - len(local[0])], "[EMAIL]"]
            done = match.end()
    return "".join([*pieces, text[done:]]) if done else text


def _is_nobody(local: str, match: re.Match[str], text: str) -> bool:
    """An address that documents use, a file, or a repository (`git@github.com:…`)."""
    if match[2].lower() in _NO_DOMAINS or _NOBODY.match(match[1]):
        return True
    return local == "git" and text[match.end() : match.end() + 1] in (":", "/")


# --- bank accounts ---

_IBAN = re.compile(r"[A-Z](?<![\w-].)[A-Z][0-9]{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?![\w-])", re.ASCII)
_IBAN_CHARS = {
    length: set(countries.split())
    for length, countries in {
        15: "NO", 16: "BE", 18: "DK FI FO GL NL", 19: "MK SI", 20: "AT BA EE KZ LT LU XK", 21: "CH HR LI LV",
        22: "BG BH CR DE GB GE IE ME RS VA", 23: "AE GI IL IQ TL", 24: "AD CZ ES MD PK RO SA SE SK TN VG", 25: "PT ST",
        26: "IS TR", 27: "BI DJ FR GR IT MC MR SM", 28: "AL AZ BY CY DO GT HU LB NI PL SV", 29: "BR EG PS QA UA",
        30: "JO KW MU", 31: "MT SC", 32: "LC", 33: "RU",
    }.items()
}  # fmt: skip


def _mask_ibans(text: str) -> str:
    return _IBAN.sub(lambda match: "[IBAN]" if is_iban(match[0]) else match[0], text)


def is_iban(text: str) -> bool:
    """ISO 13616: the country's length, and 1 as the remainder."""
    code = text.replace(" ", "")
    if code[:2] not in _IBAN_CHARS.get(len(code), ()):
        return False
    digits = "".join(str(int(char, 36)) for char in code[4:] + code[:4])
    return int(digits) % 97 == 1


# --- cards ---

_CARD = re.compile(
    r"[2-6](?<![\w.,+-].)(?:\d{3}([ -]?)\d{4}\1\d{4}\1\d{4}(?:\1\d{1,3})?|(?<=3)\d{3}([ -]?)\d{6}\2\d{4,5})"
    r"(?![\w-]|[.,]\d| \d{2})",
    re.ASCII,
)
_ISSUERS = re.compile(
    r"4\d{12}(?:\d{3}){0,2}$|5[1-5]\d{14}$|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}$|3[47]\d{13}$"
    r"|6(?:011|5\d\d|4[4-9]\d)\d{12}$|3(?:0[0-5]|[68]\d)\d{11}$|35(?:2[89]|[3-8]\d)\d{12}$|62\d{14,17}$",
    re.ASCII,
)


def _mask_cards(text: str) -> str:
    return _CARD.sub(lambda match: "[CARD]" if is_card(match[0]) else match[0], text)


def is_card(text: str) -> bool:
    """An issuer's prefix and length, and Luhn's check digit."""
    digits = re.sub("[ -]", "", text)
    return bool(_ISSUERS.match(digits)) and len(set(digits)) > 1 and _luhn(digits)


def _luhn(digits: str) -> bool:
    doubled = (sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (sum(map(int, digits[-1::-2])) + sum(doubled)) % 10 == 0


# --- IP addresses ---

_IPV4 = re.compile(r"[0-9](?<![\w.:/-].)\d{0,2}\.(?:\d{1,3}\.){2}\d{1,3}(?![\w-]|\.\d)", re.ASCII)
_IPV6 = re.compile(r"[23](?<![\w.:].)[0-9a-f]{3}:[0-9a-f:]{2,34}(?![\w:]|\.\d)", re.ASCII | re.IGNORECASE)
_MAY_BE_IP = re.compile(r"[0-9]\.[0-9]{1,3}\.[0-9]|:[0-9a-fA-F]{0,4}:")
_NO_ADDRESS = re.compile(
    r"(?:\bv|\bver|version|release|build|firmware|driver|section|chapter|§)[.:]?\s*(?:(?:is|to|of)\s+)?$"
    r"|(?:\boids?|object identifiers?)\b[^.\n]*$",
    re.IGNORECASE,
)
_OIDS = ("2.5.4.", "2.5.29.")  # of X.509: attributes and extensions


def _mask_ips(text: str) -> str:
    text = _IPV4.sub(_ip_or_not, text) if "." in text else text
    return _IPV6.sub(_ip_or_not, text) if ":" in text else text


def _ip_or_not(match: re.Match[str]) -> str:
    if not is_public(match[0]) or match[0].startswith(_OIDS):
        return match[0]
    if _NO_ADDRESS.search(match.string, max(0, match.start() - 32), match.start()):
        return match[0]
    return "[IP]"


def is_public(text: str) -> bool:
    """An address of the internet: neither private nor reserved, nor one of those that documents use."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return address.is_global and not address.is_multicast


# --- telephone numbers ---

_MAY_BE_PHONE = re.compile("[0-9][0-9 ()./-]{7,}[0-9]")
# North America: area codes do not begin with N9, exchanges are not N11, and groups that are all round are sizes. Three
# groups with spaces between are numbers as any others, so these need parentheses.
_AREA = r"(?!(?:\d[05]0\D{1,2}){2})[2-9][0-8]\d"
_PHONE = re.compile(
    rf"""(?<![\w.,+/=$€£-])(?:
        \+[1-9](?:[ ./()-]{{0,3}}\d){{8,14}}                                                   # international
      | (?:1[ .-])?(?:\({_AREA}\)[ ]?|{_AREA}(?P<us>[.-]))[2-9](?!11)\d\d(?(us)(?P=us)|[ .-])\d{{4}}  # North America
      | 0[1-9](?P<fr>[ .])\d\d(?:(?P=fr)\d\d){{3}}                                         # France
      | \(0\d{{2,4}}\)[ ]?\d{{3,4}}[ ]?\d{{3,4}} | 0\d{{2,4}}[ /-]{{1,3}}\d{{3,4}}[ ]?\d{{3,5}}  # Germany, Britain
    )(?![\w-]|[.,/]\d|[ ]?\(?\d)""",
    re.VERBOSE | re.ASCII,
)


def _mask_phones(text: str) -> str:
    return _PHONE.sub(lambda match: "[PHONE]" if is_phone(match[0]) else match[0], text)


def is_phone(text: str) -> bool:
    """As many digits as numbers have, in groups, and not one number with its decimals."""
    groups = re.findall("[0-9]+", text)
    if not 9 <= sum(map(len, groups)) <= 15:
        return False
    return len(groups) <= 7 and max(map(len, groups)) >= 2 and not (len(groups) == 2 and "." in text)


_MASKS: dict[str, Mask] = {  # in this order: what is masked by a check first cannot be taken for what has none
    "key": _mask_keys,
    "email": _mask_emails,
    "iban": _mask_ibans,
    "card": _mask_cards,
    "ip": lambda text: edit_prose(text, _mask_ips) if _MAY_BE_IP.search(text) else text,
    "phone": lambda text: edit_prose(text, _mask_phones) if _MAY_BE_PHONE.search(text) else text,
}
