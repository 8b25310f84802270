"""Does a text name a reply by where it was shown? Rules for English."""

from __future__ import annotations

import re
from typing import Final

_ONE: Final = r"(?:reply|response|answer|assistant|completion)"
_MANY: Final = r"(?:replies|responses|answers|assistants|completions)"
_LOOSE: Final = r"(?:option|choice|candidate|model|output|solution|chatbot)"
_NTH: Final = r"(?:first|second|third|fourth|1st|2nd|3rd|4th)"
_SAID: Final = (
    r"(?:longer|shorter|long|short|better|worse|weaker|stronger|good|bad|wrong|correct|detailed|concise|given"
    r"|candidate|AI|(?:assistant|model|bot)(?:['’]s)?)"
)
_BETTER: Final = r"(?:better|worse|stronger|weaker|preferable|superior|inferior)"
_MARK: Final = r"\s*(?:no\.?|number|\#)?\s*"
_AFTER: Final = (  # "the reply 2 days later", "the reply one would hope for", "the answer 3.5"
    r"(?![.,/]\d|%|\s*[-+*×=^]|\s+(?:times|seconds|minutes|hours|days|weeks|months|years|words|lines|sentences|steps"
    r"|paragraphs|percent|would|could|might|should|can|may|expects|hopes|wants|needs|gets)\b)"
)
_LABEL: Final = (
    rf"{_MARK}(?:[\[(](?:[a-d]|[1-4])[\])]"
    rf"|[\[(\"“'‘`]?(?:(?-i:[A-D])\b(?!['’]\w\w)|[1-4]\b|one\b|two\b){_AFTER})"
)
_VERB: Final = (
    r"(?:is|was|has|does|gives|gets|says|names|lists|answers|explains|provides|offers|keeps|fails|responds|only|just"
    r"|simply|merely|never|also)"
)

_POSITIONS: Final = re.compile(
    "|".join(
        (
            rf"\bthe {_NTH}(?:,? {_SAID}){{0,2}},? {_ONE}\b(?! (?:choice|option|key)s?\b)",
            rf"(?:^|[.;:!?\n]\s*|\b(?:while|whereas|but|than)\s+){_NTH} {_ONE}\b"
            r"(?!\s+(?:the|a|an|your|this|that|all|each|every)\b)",
            rf"\b(?:repl(?:y|ies)|responses?|assistants?|completions?){_LABEL}",
            r"\bthe last (?:reply|response|of the two)\b",
            rf"\bthe (?:first|second|last) of (?:the|these|both) (?:two\b(?! \w)|(?:two )?{_MANY}\b)",
            # "the former" is more often a word for "ex-"; "the latter" is not
            r"\bthe latter\b(?! (?:half|parts?|portion|sections?|stages?|case|years?|days|months)\b)",
            rf"\bthe former(?:\s*(?:[,;:.!?)]|$)|['’]s\b| (?:{_VERB}|{_ONE}|one)\b)",
            rf"\b(?:{_ONE}|one) (?:that (?:is|was) )?(?:(?:shown|given|printed|listed|placed|presented) )?"
            r"(?:above|below|on the (?:left|right)|at the (?:top|bottom))\b(?! (?:the|an?|its|average|\d))",
            rf"\bthe (?:above|left|left-hand|right-hand) {_ONE}\b|\bthe (?:top|bottom) (?:reply|response)\b",
            r"\b(?:reply|response|one) (?:that )?(?:(?:is|was|comes|came|appears) )?"
            r"(?:shown|listed|displayed|presented|placed|printed|comes|came|appears) (?:first|second|last)\b",
            rf"^\W*the (?:first|second|1st|2nd)(?: one)? {_VERB}\b",
            rf"\b{_MANY}\b[^.!?\n]*\bthe (?:first|second|1st|2nd)(?: one\b| {_VERB}\b|\s*(?:[,;:.!?)]|$))",
            rf"\bthe (?:first|second|1st|2nd)(?: one)? (?:is|was) (?:\w+ )?{_BETTER}\b",
            r"(?:^|[.;:,!?(]\s*|\b(?:that|because|since|and|but|while|whereas|than) )"
            rf"[\"“'‘]?(?-i:[AB])[\"”'’]? (?:is|was) (?:\w+ )?{_BETTER}\b",
        )
    ),
    re.IGNORECASE,
)
# What may be the subject of the talk itself: options of a quiz, a number that is the answer, models of cars.
_LABELLED: Final = re.compile(
    r"(?:(?<!\bthe )(?<!\ban )(?<!\bits )(?<!\bright )(?<!\bcorrect )(?<!\bfinal )(?<!\bwrong )"
    rf"\banswer|\b{_LOOSE}s?){_LABEL}"
    r"|\banswers?\s*(?:no\.?|number|\#)\s*[1-4]\b|\banswers (?:(?-i:[A-D])|[1-4]) (?:and|or) ",
    re.IGNORECASE,
)
_ORDERED: Final = re.compile(rf"\bthe {_NTH} ({_LOOSE})\b", re.IGNORECASE)


def names_position(text: str, about: str = "") -> bool:
    """Whether `text` calls a reply by its place or label: "the first answer", "Response B", "the latter".

    "The better reply", "the second paragraph of the better reply", "Plan B" and "vitamin A" name none. `about` is the
    request and the replies: what they themselves call "option B" or "solution 1" may be called so. Strict where words
    alone cannot tell: "the latter" counts whatever it stands for. English only; other languages pass.
    """
    if _POSITIONS.search(text):
        return True
    names = [_plain(match[0]) for match in _LABELLED.finditer(text)]
    names += [match[1].casefold() for match in _ORDERED.finditer(text)]
    known = _plain(about) if names else ""
    return any(name not in known for name in names)


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))
