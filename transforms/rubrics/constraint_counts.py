"""Limits of length and number in a request: "in at most 100 words", "3 bullet points", "a 500-word essay", "5 tips".

A plain number of words or characters is meant roughly: 10 % either way, 20 % after "about", none after "exactly" and
none up to 20. Other units are meant as they stand; after "about", one either way.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from tilth.transforms.rubrics.constraint_text import Sentence

_SMALL: Final = (
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
    " sixteen seventeen eighteen nineteen twenty"
)
_TENS: Final = "thirty forty fifty sixty seventy eighty ninety"
NUMBERS: Final = {
    **{word: value for value, word in enumerate(_SMALL.split(), 1)},
    **{word: value for value, word in zip(range(30, 100, 10), _TENS.split(), strict=True)},
    "a single": 1,
    "single": 1,
    "a hundred": 100,
    "a thousand": 1000,
    "a dozen": 12,
}
NUMBER: Final = (
    r"(?:\d{1,3}(?:,\d{3})+|\d{1,6}|(?:(?:a|one|two|three|four|five|six|seven|eight|nine) (?:hundred|thousand|dozen))|"
    + "|".join(sorted((word for word in NUMBERS if " " not in word), key=len, reverse=True))
    + r"|a single)"
)
UNITS: Final = {
    "words": r"words?",
    "characters": r"characters?|chars?",
    "sentences": r"sentences?|sentances?",
    "paragraphs": r"paragraphs?",
    "lines": r"lines?",
    "bullets": r"bullet[- ]points?|bullets|bullet|bulleted (?:points|items)",
    "headings": r"headings?|headers",
    "citations": r"citations?|sources|references",
    "placeholders": r"placeholders?",
    "emojis": r"emojis?",
    "links": r"links?",
    "highlights": r"highlighted (?:sections?|parts?|phrases?)",
    "code_blocks": r"code blocks?",
}
_ROUGH: Final = ("words", "characters")
_UNIT: Final = "|".join(f"(?P<{name}>{form})" for name, form in UNITS.items())
_ADJECTIVES: Final = (
    r"(?:(?:short|brief|concise|long|simple|clear|full|complete|different|separate|main|key|single|good|detailed|"
    r"coherent|english|total|unique|distinct|rhyming|relevant|more|further|well-written|small|medium|quick)[ ,]{1,2})"
)
_MOST: Final = (
    r"at (?:the )?(?:most|max(?:imum)?)|(?:no|not|never) (?:more|longer|greater|bigger|larger) than|"
    r"(?:a )?max(?:imum|\.)?(?: (?:of|length|limit)){0,2}[: ]?|"
    r"up to|limit(?:ed)? (?:it |this |that |your \w+ |the \w+ )?to|within|(?:not|n't|to not|"
    r"never) exceed(?:ing)?|not (?:to )?exceed(?:ing)?"
)
_UNDER: Final = r"under|below|(?:less|fewer|shorter) than"
_LEAST: Final = (
    r"at (?:the )?(?:least|minimum)|(?:no|not) (?:less|fewer|shorter) than|"
    r"(?:a )?min(?:imum|\.)?(?: (?:of|length)){0,2}[: ]?"
)
_OVER: Final = r"more than|over|longer than|above|exceeding|greater than"
_ABOUT: Final = r"about|around|approximately|approx\.?|roughly|circa|close to|near(?:ly)?|some|~|almost"
_EXACT: Final = r"exactly|precisely|only|just|strictly"
_COUNT: Final = re.compile(
    rf"(?<![\w$€£.,-])(?:(?P<most>{_MOST})|(?P<under>{_UNDER})|(?P<least>{_LEAST})|(?P<over>{_OVER})|"
    rf"(?P<about>{_ABOUT})|"
    rf"(?P<exact>{_EXACT}))? ?(?:(?P<low>between )?(?P<first>{NUMBER})(?P<plus>\+)?(?: ?(?:-|to|and|"
    rf"or) ?(?P<second>{NUMBER}))?)"
    rf"(?:[- ]|  )?{_ADJECTIVES}{{0,3}}(?:{_UNIT})(?![\w-])"
    rf"(?P<after> (?:or|and) (?:less|fewer|under|below|shorter|more|longer|above)\b|"
    rf",? (?:at (?:the )?)?(?:max(?:imum)?|most|min(?:imum)?|least)\b)?"
)
_THING: Final = (
    r"(?:answer|response|reply|output|summary|essay|story|article|poem|post|text|description|letter|e-?mail|message|"
    r"paragraph|review|report|explanation|tweet|speech|blog(?: post)?|introduction|bio|abstract|synopsis|script|song|"
    r"caption|title|slogan|pitch|note|ad|statement|haiku|riddle|joke|tale|list|overview|definition|result|"
    r"whole thing|analysis|"
    r"cover letter|memo|proposal|scene|monologue|dialogue|narrative|press release|paper|piece|review|quote|"
    r"toast|eulogy)"
)
_VERB: Final = (
    r"(?:write|compose|generate|create|draft|produce|make|provide|prepare|craft|give|need|want|like|tell|send|"
    r"use|include|"
    r"have|add|contain|with|output|return|be|keep|consists? of|get|present|need to be|containing|using|including)"
)
_PREPOSITION: Final = re.compile(r"(?:^|\b)(?:in|within|with|using|into|to|of|as|under)\W*$")
_OBJECT: Final = re.compile(
    rf"\b{_VERB}(?: me| us| it| this| that| your {_THING}| the {_THING})?(?: to| at| up| be| with| have)?(?: a|"
    rf" an| the)?\W*$"
)
_SUBJECT: Final = re.compile(
    rf"\b(?:it|this|that|they|(?:the|your|my) (?:\w+ )?{_THING}|you|length|limit)\b(?: \w+){{0,3}}? (?:should|"
    rf"must|needs? to|has to|have to|can|may|shall|will|is to|cannot|can't|shouldn't|mustn't|not)"
    rf"(?: \w+){{0,5}}?\W*$"
)
_RELATIVE: Final = re.compile(
    r"\b(?:so (?:that )?(?:it|they)|that|which)(?: is| are|'s|'re)(?: \w+){0,2}\W*$"
)
_STATES: Final = re.compile(
    r"\b(?:word count|word limit|length|limit|size|max(?:imum)? length)\b(?: is| of| should be)?[ :=]*$"
)
_NEGATED: Final = re.compile(r"(?:\bnot|n't|\bnever|\bwithout)\b[^,.;]{0,25}$")
_PART: Final = re.compile(
    r"\b(?:each|every|per|first|second|third|last|final|(?:with|and|its|plus|including|has|have|a|the) (?:\w+ )?"
    r"(?:title|subject line|subject|headline|introduction|intro|conclusion|caption|tagline|hook|ending|"
    r"opening))\b[^,.;]{0,40}$"
)
_ARTICLED: Final = re.compile(
    r"\b(?:my|your previous|the|these|those|his|her|their|first|last|top|next|all|of the|any|another|other|"
    r"following)\W*$"
)
_EACH: Final = re.compile(
    r"\W{0,3}(?:(?:long|max|maximum|or (?:less|more|fewer)|in length)\W{0,2})?\b(?:each|per|apiece|for each|"
    r"for every|every|of code|of text (?:from|in)|of (?:the|this|my)|apart|from|a (?:day|week|month|minute))\b"
)
_LISTED_WORDS: Final = re.compile(
    r"\W?(?:that|which|start|end|rhym|related|describ|mean|to |for |with|synonym|containing|associated|in \w+ that)"
)
_LIST_OF_WORDS: Final = re.compile(r"\b(?:list of|give|give me|name|tell me|suggest|think of|find|list)\W*$")
_MAX_LISTED: Final = 30
_FRAGMENT: Final = re.compile(r"(?:^|[,;:(\n]|\band\b|\bbut\b|^\W*[-*•]|\d[.)])\W*$")
_FRAGMENT_END: Final = re.compile(
    r"\W*(?:long|max|maximum|min|minimum|please|only|in total|total|in length|or so|and|but|with|,|$|\))"
)
_LEAD: Final = re.compile(r"^\W*(?:no [^.]{1,40},\W*)?$")
_QUESTION: Final = re.compile(
    r"^\W*(?:(?:so|and|ok|okay|hi|hello|hey)\W+)?(?:in [^,]{3,30}, )?(?:what|who|when|where|which|why|how (?:is|"
    r"are|does|did|was|were))\b"
)
_ANSWERING: Final = re.compile(r"(?:\bin|\busing|\bwith)\W*$")


class Found(NamedTuple):
    """A verifier with arguments, and where in the sentence it is stated."""

    verifier: str
    arguments: dict[str, object]
    start: int
    end: int


def inquires(sentence: Sentence) -> bool:
    """Whether a sentence asks for information: who, what, why, how something is."""
    return _QUESTION.match(sentence.text) is not None


def number_of(text: str) -> int:
    """The value of a number as `NUMBER` matches it."""
    bare = text.replace(",", "")
    if bare.isdigit():
        return int(bare)
    if bare in NUMBERS:
        return NUMBERS[bare]
    first, _, scale = bare.partition(" ")
    return (1 if first == "a" else NUMBERS[first]) * {"hundred": 100, "thousand": 1000, "dozen": 12}[scale]


def counts_in(sentence: Sentence, *, asked: bool) -> Iterator[Found]:
    """The limits that a sentence states. `asked`: whether some sentence of the request asks for something."""
    if not sentence.own or sentence.made:
        return
    for found in _COUNT.finditer(sentence.text):
        if _limits_reply(sentence, found, asked=asked):
            for verifier, arguments in _bounds(found, sentence.text[: found.start()]):
                yield Found(verifier, arguments, found.start(), found.end())


def _limits_reply(sentence: Sentence, found: re.Match[str], *, asked: bool) -> bool:
    before, after = sentence.text[: found.start()], sentence.text[found.end() :]
    if _PART.search(before) or _EACH.match(after) or _ARTICLED.search(before):
        return False
    if found["words"] and _LIST_OF_WORDS.search(before) and number_of(found["first"]) <= _MAX_LISTED:
        return False
    compared = any(
        found[name] for name in ("most", "under", "least", "over", "about", "exact", "low", "after")
    )
    if found["words"] and not compared and _LISTED_WORDS.match(after):
        return False
    if sentence.question and not sentence.asks:
        return bool(
            inquires(sentence) and _ANSWERING.search(before) and not after.strip(" ?!.\n")
        ) or not before.strip(" \n\t,.:-in")
    if _SUBJECT.search(before) or _STATES.search(before):
        return True
    if sentence.asks and (
        _PREPOSITION.search(before)
        or _RELATIVE.search(before)
        or _OBJECT.search(before)
        or _compound(found, before)
    ):
        return True
    whole = bool(_FRAGMENT.search(before) and _FRAGMENT_END.match(after))
    return whole and (sentence.asks or (asked and _LEAD.search(before) is not None))


def _compound(found: re.Match[str], before: str) -> bool:
    """`a 500-word essay`: a number as an adjective of what is asked for."""
    return bool(re.search(r"\b(?:a|an|your|the)(?: \w+){0,2}\W*$", before)) and not found["most"]


def _bounds(found: re.Match[str], before: str) -> list[tuple[str, dict[str, object]]]:
    unit = next(name for name in UNITS if found[name])
    first, after = number_of(found["first"]), found["after"] or ""
    if found["second"]:
        return _range(unit, first, number_of(found["second"]))
    negated = bool(_NEGATED.search(before))
    if (
        found["most"]
        or re.search(r"less|fewer|under|below|shorter|max|most", after)
        or (found["over"] and negated)
    ):
        return _most(unit, first)
    if found["under"]:
        return _least(unit, first) if negated else _most(unit, first - 1)
    if found["least"] or found["plus"] or re.search(r"more|longer|above|min|least", after):
        return _least(unit, first)
    if found["over"]:
        return _least(unit, first + 1)
    return [] if negated else _exactly(unit, first, about=bool(found["about"]), exact=bool(found["exact"]))


def _range(unit: str, low: int, high: int) -> list[tuple[str, dict[str, object]]]:
    if low >= high:
        return []
    return [*(_least(unit, low) if low > 1 else []), *_most(unit, high)]


def _most(unit: str, limit: int) -> list[tuple[str, dict[str, object]]]:
    return [(f"max_{unit}", {"limit": limit})] if limit > 0 else []


def _least(unit: str, limit: int) -> list[tuple[str, dict[str, object]]]:
    return [(f"min_{unit}", {"limit": limit})] if limit > 0 else []


def _exactly(unit: str, count: int, *, about: bool, exact: bool) -> list[tuple[str, dict[str, object]]]:
    if not count:
        return [(f"max_{unit}", {"limit": 0})] if unit not in ("words", "characters", "sentences") else []
    share = 0.2 if about else 0.1
    rough = unit in _ROUGH and not exact and (count > 20 or about)
    tolerance = math.ceil(round(count * share, 6)) if rough else int(about)
    return [(f"exact_{unit}", {"count": count, "tolerance": tolerance})]


_ENTRY: Final = (
    "examples|ideas|tips|ways|reasons|options|suggestions|names|titles|facts|steps|questions|quotes|recommendations|"
    "alternatives|advantages|disadvantages|benefits|pros|cons|differences|similarities|causes|effects|types|kinds|"
    "strategies|techniques|methods|books|movies|films|songs|recipes|activities|words|things|places|countries|"
    "cities|topics|"
    "headlines|slogans|taglines|jokes|synonyms|antonyms|exercises|hobbies|skills|keywords|use cases|features|events|"
    "people|animals|games|hashtags|arguments|points|subject lines|variations|versions|scenarios|applications|factors|"
    "characteristics|principles|rules|lessons|habits|dishes|restaurants|companies|podcasts|artists|authors|problems|"
    "solutions|challenges|goals|projects|prompts|statements|theories|metaphors|sayings|proverbs|puns|riddles"
)
_ENTRIES: Final = re.compile(
    rf"(?:\b(?P<naming>list|name|suggest|recommend|brainstorm)|\b(?:give|provide|share|come up with|generate|"
    rf"write|propose|tell|show|offer|"
    rf"create|think of|need|want|identify|mention|state|outline|make|compile|find|pick|have|get|produce))"
    rf"(?: me| us| out| down| up)?(?: with)?(?: a (?:\w+ )?list of| please| some| a list with|"
    rf" a(?= top))?(?: the| my| your)? ?"
    rf"(?:(?P<least>{_LEAST})|(?P<most>{_MOST})|(?P<exact>{_EXACT}))? ?(?:top |best |"
    rf"most \w+ )?(?P<count>{NUMBER})(?P<plus>\+)? (?:list of )?(?:the )?"
    rf"(?P<adjectives>(?:(?!of\b|in\b|for\b|to\b|and\b|or\b|about\b|that\b|words?\b|minutes?\b|paragraphs?\b|"
    rf"sentences?\b|lines?\b|bullet)[\w'-]+,? ){{0,3}}?)"
    rf"(?P<noun>{_ENTRY}|(?:\w+(?<![su])s|people)\b)(?![\w-])"
)
_FOR_EACH: Final = re.compile(r"\W{0,3}(?:each|per|apiece|for each|for every|from each|of each)\b")
_MEASURED: Final = re.compile(
    r"(?:minute|hour|day|week|month|year|second|dollar|euro|pound|cup|gram|kilo|meter|metre|mile|percent|time|degree|"
    r"word|character|sentence|paragraph|line|bullet|page|point|token|digit|decimal|letter|column|row|section|"
    r"table|stanza|verse|"
    r"part|draft|kid|child|friend|person|liter|litre|inche|feet|spoon|tablespoon|teaspoon|emoji|poem|stor|essay|"
    r"article|post|"
    r"email|tweet|haiku|song|bullet|heading|source|citation|reference|link|placeholder|image|picture)"
)


def entries_in(sentence: Sentence) -> Iterator[Found]:
    """How many examples, tips or options a sentence asks for: "give me five examples"."""
    if not (sentence.own and sentence.asks) or sentence.made:
        return
    for found in _ENTRIES.finditer(sentence.text):
        noun, after = found["noun"], sentence.text[found.end() :]
        listed = re.fullmatch(_ENTRY, noun) is not None
        if not listed and (not found["naming"] or _MEASURED.match(noun)):
            continue
        count = number_of(found["count"])
        listing = (
            found["naming"]
            or _LISTED_WORDS.match(after)
            or _LIST_OF_WORDS.search(found[0][: found.start("count") - found.start()])
        )
        if noun in ("words", "points") and (count > _MAX_LISTED or not listing):
            continue
        if not 1 < count <= 1000 or _FOR_EACH.match(after):
            continue
        if found["least"] or found["plus"]:
            yield Found("min_entries", {"limit": count}, found.start(), found.end())
        elif found["most"]:
            yield Found("max_entries", {"limit": count}, found.start(), found.end())
        else:
            yield Found("exact_entries", {"count": count}, found.start(), found.end())
