"""Personal data and secrets in a table's texts, as flags per row. Patterns: they miss names, addresses and much else.

What cannot belong to anybody does not count: example domains, 555 numbers, documentation and private networks, the card
and social security numbers that manuals print, keys that are filled with placeholders.
"""

from __future__ import annotations

from typing import Final

import polars as pl

from tilth.schemas.tables import PL_MESSAGES, polars_schema

KINDS: Final = ("email", "phone", "iban", "card", "ip", "ssn", "secret")
_TEXTS: Final = {
    "conversations": ("messages", "tool_calls_json"),
    "feedback": ("evidence.text",),
    "pairs": ("prompt", "chosen", "rejected", "tool_calls_json", "user_preferences"),
    "unpaired": ("prompt", "completion", "tool_calls_json"),
    "rationales": ("text", "evidence.quote"),
    "rubrics": ("prompt", "criteria.title", "criteria.description"),
    "preferences": ("preferences",),
    "responses": ("prompt", "completion"),
    "judgments": ("text",),
    "ratings": ("prompt", "completion"),
    "evaluation": ("prompt", "checklist", "reference"),
    "quarantine": ("payload",),
}
# A number that is long enough for any of these. Few texts hold one; the others are not looked at again, which is what
# makes this ten times faster.
_LONG: Final = r"[0-9][0-9 ().\-/]{5,}[0-9]"
_LEFT: Final = r"(?:^|[^0-9A-Za-z.+/@_\-])"  # no part of a longer word, version, path or number
_GAP: Final = r"[ .\-]"

_EMAIL: Final = r"[A-Za-z0-9][A-Za-z0-9._%+\-]*@(?:[A-Za-z0-9\-]+\.)+[A-Za-z]{2,24}\b"
_NO_EMAIL: Final = (
    r"(?i)@(?:[a-z0-9\-]+\.)*(?:example|test|invalid|localhost|local)(?:\.[a-z.]+)?$|"
    r"@(?:(?:your|my|some|the)?-?(?:domain|company|email|mail|site|website|server|host|school|university|business)|abc|xyz)"
    r"\.[a-z.]+$|^(?:git|user|username|you|your.*|name|email|someone|somebody|first\.last)@|"
    r"\.(?:png|jpe?g|gif|svg|webp|js|py|css|html?|md|json|ya?ml|service)$"
)
_PHONE: Final = (
    rf"{_LEFT}(?:\+[1-9][0-9]{{0,2}}{_GAP}?(?:\([0-9]{{1,4}}\){_GAP}?)?[0-9]{{1,4}}(?:{_GAP}?[0-9]{{2,4}}){{2,4}}|"
    rf"(?:1{_GAP})?(?:\([2-9][0-9]{{2}}\) ?|[2-9][0-9]{{2}}{_GAP})[2-9][0-9]{{2}}{_GAP}[0-9]{{4}}|"
    r"0[1-9](?:[ .][0-9]{2}){4}|0[0-9]{4} [0-9]{3} ?[0-9]{3}|07[0-9]{3} [0-9]{3} ?[0-9]{3}|0[0-9]{3} [0-9]{3} [0-9]{4}|"
    r"020 [0-9]{4} [0-9]{4}|"
    r"0[1-9][0-9]{1,3}[/\-][0-9]{6,9})(?:$|[^0-9A-Za-z_\-+=*]|-[^0-9])"
)
_NO_PHONE: Final = (
    r"(?:^|[^0-9])555[^0-9]*[0-9]{4}|555[^0-9]+[0-9]{3}[^0-9]+[0-9]{4}|123.?456.?789|0{6}|1234567|X"
)
_IBAN: Final = r"(?-u:\b)[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?-u:\b)"
_CARD: Final = (
    rf"{_LEFT}(?:[3-6][0-9]{{3}}(?:[ \-]?[0-9]{{4}}){{3}}|3[47][0-9]{{2}}[ \-]?[0-9]{{6}}[ \-]?[0-9]{{5}})"
    r"(?:$|[^0-9A-Za-z_.\-]|[.\-](?:$|[^0-9]))"
)
_ISSUED: Final = (
    r"^(?:4[0-9]{15}|5[1-5][0-9]{14}|2[2-7][0-9]{14}|3[47][0-9]{13}|35[0-9]{14}|"
    r"6(?:011|5[0-9]{2}|4[4-9][0-9])[0-9]{12})$"
)
_TEST_CARDS: Final = (
    "4242424242424242",
    "4111111111111111",
    "4012888888881881",
    "4000056655665556",
    "4000000000000002",
    "5555555555554444",
    "5105105105105100",
    "5200828282828210",
    "6011111111111117",
    "6011000990139424",
    "378282246310005",
    "371449635398431",
    "3530111333300000",
    "3566002020360505",
    "4532015112830366",
    "4539578763621486",
)
_OCTET: Final = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4: Final = rf"(?:^|[^0-9A-Za-z.\-_/]|//){_OCTET}(?:\.{_OCTET}){{3}}(?:$|[^0-9A-Za-z.\-_]|\.(?:$|[^0-9]))"
_NO_IPV4: Final = (
    r"^(?:0|10|127|169\.254|192\.168|192\.0\.2|192\.0\.0|198\.51\.100|203\.0\.113|198\.1[89]|172\.(?:1[6-9]|2[0-9]|3[01])|"
    r"100\.(?:6[4-9]|[7-9][0-9]|1[01][0-9]|12[0-7])|22[4-9]|2[3-5][0-9])\.|^(?:8\.8\.[48]\.[48]|1\.[01]\.[01]\.1|9\.9\.9\.9)$|"
    r"^(?:[0-2]?[0-9]\.){3}[0-2]?[0-9]$|\.0$"  # also what may as well be a version (all below 30), and networks
)
_IPV6: Final = (
    r"(?i)(?:^|[^0-9a-z:.])(?:2[0-9a-f]{3}:(?:[0-9a-f]{1,4}:){6}[0-9a-f]{1,4}|"
    r"2[0-9a-f]{3}:(?:[0-9a-f]{1,4}:){1,5}:[0-9a-f]{1,4})(?:$|[^0-9a-z:])"
)
_NO_IPV6: Final = r"(?i)2001:0?db8"
_SSN: Final = rf"{_LEFT}[0-8][0-9]{{2}}-[0-9]{{2}}-[0-9]{{4}}(?:$|[^0-9A-Za-z_\-])"
_NO_SSN: Final = r"^(?:000|666)|-00-|-0000$|^(?:123-45-6789|078-05-1120|219-09-9999|111-11-1111|123-12-1234)$"
_SECRET: Final = (
    r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{36,}\b|\bgithub_pat_[A-Za-z0-9_]{40,}|"
    r"\bsk-(?:ant-|proj-|svcacct-)?[A-Za-z0-9_\-]{20,}|\b[sr]k_live_[0-9A-Za-z]{16,}|\bxox[abeprs]-[0-9A-Za-z\-]{20,}|"
    r"\bAIza[0-9A-Za-z_\-]{35}|\bhf_[A-Za-z]{30,}\b|\bglpat-[0-9A-Za-z_\-]{20,}|\bnpm_[A-Za-z0-9]{36}\b|"
    r"\bSG\.[A-Za-z0-9_\-]{20,}\.[A-Za-z0-9_\-]{40,}|\beyJ[A-Za-z0-9_\-]{10,}\.eyJ[A-Za-z0-9_\-]{10,}\.[A-Za-z0-9_\-]{20,}|"
    r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----[\s\\nr]*(?:[A-Za-z\-]+: [^\n]*\n\s*)*[A-Za-z0-9+/=\s]{40}"
)
_NO_SECRET: Final = (
    r"(?i)example|xxxx|your|placeholder|dummy|insert|redacted|1234567890|abcdef|\.\.\.|_here|"
    r"SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c"  # the last is the signature of jwt.io's sample
)


def pii_flags(table: str) -> dict[str, pl.Expr]:
    """Flags for the rows of `table`: `pii_<kind>` for each of `KINDS`, and `pii` for any of them. Never null."""
    return flags_of(row_text(table))


def flags_of(text: pl.Expr) -> dict[str, pl.Expr]:
    """The flags of `pii_flags` for one text a row."""
    numbered = pl.when(text.str.contains(_LONG)).then(text)
    found = {
        "email": _left_over(text.str.extract_all(_EMAIL), _NO_EMAIL),
        "phone": _phones(numbered),
        "iban": _some(numbered.str.extract_all(_IBAN), _iban()),
        "card": _some(numbered.str.extract_all(_CARD), _card()),
        "ip": _left_over(_addresses(numbered), _NO_IPV4).fill_null(False)
        | _left_over(text.str.extract_all(_IPV6), _NO_IPV6),
        "ssn": _left_over(_bare(numbered.str.extract_all(_SSN), "0-9-"), _NO_SSN),
        "secret": _left_over(text.str.extract_all(_SECRET), _NO_SECRET),
    }
    flags = {f"pii_{kind}": flag.fill_null(False) for kind, flag in found.items()}
    return {**flags, "pii": pl.any_horizontal(flags.values())}


def row_text(table: str) -> pl.Expr:
    """All text of a row that somebody wrote, joined by line breaks."""
    schema = polars_schema(table)
    texts = [_text(name, schema[name.partition(".")[0]]) for name in _TEXTS[table]]
    return pl.concat_str(texts, separator="\n", ignore_nulls=True)


def _text(name: str, kind: pl.DataType) -> pl.Expr:
    column, _, field = name.partition(".")
    if kind == PL_MESSAGES:
        field = "content"
    if field:
        return pl.col(column).list.eval(pl.element().struct.field(field)).list.join("\n", ignore_nulls=True)
    return pl.col(column).list.join("\n", ignore_nulls=True) if isinstance(kind, pl.List) else pl.col(column)


def _left_over(found: pl.Expr, placeholder: str) -> pl.Expr:
    return _some(found, ~pl.element().str.contains(placeholder))


def _bare(found: pl.Expr, kept: str) -> pl.Expr:
    return found.list.eval(pl.element().str.replace_all(f"[^{kept}]", ""))


def _some(found: pl.Expr, holds: pl.Expr) -> pl.Expr:
    return found.list.eval(holds).list.any()


def _phones(text: pl.Expr) -> pl.Expr:
    number = pl.element()
    digits = number.str.count_matches("[0-9]").is_between(9, 15)
    return _some(text.str.extract_all(_PHONE), digits & ~number.str.contains(_NO_PHONE))


def _addresses(text: pl.Expr) -> pl.Expr:
    return _bare(text.str.extract_all(_IPV4), "0-9.").list.eval(pl.element().str.strip_chars("."))


def _luhn(number: pl.Expr) -> pl.Expr:
    """The check digit of payment cards: every second digit from the right doubled, all digits of that added up."""
    padded = number.str.zfill(16)
    digits = [padded.str.slice(place, 1).cast(pl.Int32, strict=False) for place in range(16)]
    doubled = [digit * 2 - pl.when(digit > 4).then(9).otherwise(0) for digit in digits[::2]]
    return pl.sum_horizontal(*doubled, *digits[1::2]) % 10 == 0


def _mod_97(iban: pl.Expr) -> pl.Expr:
    """What is left of an IBAN (ISO 13616) over 97: the country goes to the end, letters are 10 to 35."""
    turned = pl.concat_str(iban.str.slice(4), iban.str.head(4))
    letters = [chr(65 + place) for place in range(26)]
    padded = turned.str.replace_many(letters, [str(10 + place) for place in range(26)]).str.zfill(72)
    left = pl.lit(0, pl.Int64)
    for start in range(0, 72, 8):
        left = (left * 10**8 + padded.str.slice(start, 8).cast(pl.Int64, strict=False)) % 97
    return left


def _card() -> pl.Expr:
    number = pl.element().str.replace_all("[^0-9]", "")
    return number.str.contains(_ISSUED) & ~number.is_in(_TEST_CARDS) & _luhn(number)


def _iban() -> pl.Expr:
    number = pl.element().str.replace_all(" ", "", literal=True)
    manual = number.is_in(("GB82WEST12345698765432", "DE89370400440532013000", "GB29NWBK60161331926819"))
    return number.str.len_bytes().is_between(15, 34) & (_mod_97(number) == 1) & ~manual
