"""Constraints of form in a request: format, language, case, words to use or to avoid; and what contradicts what."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final  # Any: parsed programs

from tilth.schemas import BadInput
from tilth.transforms.rubrics.constraint_counts import (
    NUMBER,
    NUMBERS,
    Found,
    counts_in,
    entries_in,
    inquires,
    number_of,
)
from tilth.transforms.rubrics.constraint_text import HIDDEN, READ_CHARS, Sentence, sentences_of
from tilth.transforms.rubrics.verifier_language import LANGUAGES
from tilth.transforms.rubrics.verifiers import program_of

Programs = list[tuple[str, dict[str, object]]]
Said = Callable[[str], str]

_Q: Final = rf"[\"'`]{HIDDEN}+[\"'`]"
_WORD: Final = r"[a-z][a-z0-9_'-]*"
_NOT_WORDS: Final = (
    r"(?!(?:count|limit|of|for|in|that|and|or|document|length|below|above|from|order|you|which|with|to|choice|"
    r"on|as|is|are|list|"
    r"problem|game|search|here|cloud|should|must|when|there)\b)"
)
_LIST_Q: Final = rf"{_Q}(?:(?:,? ?(?:and|or) |, ?){_Q}){{0,9}}"
_STOP: Final = (
    r"(?=\W*$|\W*\n|[.;:!?)]|,? (?:for|of|from|in|to|about|as|that|showing|by|where|at least|exactly|"
    r"somewhere|and (?:keep|make|no|use|write|then)|please)\b)"
)
_LIST_W: Final = (
    rf"{_NOT_WORDS}{_WORD}(?:, {_NOT_WORDS}{_WORD}){{0,9}}(?:,? (?:and|or) {_NOT_WORDS}{_WORD})?{_STOP}"
)
_LIST: Final = rf"(?:{_LIST_Q}|{_LIST_W})"
_NO: Final = (
    r"(?:\bno|\bwithout|\bavoid|\bdon't|\bdo not|\bnever|\bnot|\bskip|\bexclude|\bomit|\bleave out|\bmust not|"
    r"\bshouldn't)"
    r"(?: (?:use|using|include|including|add|adding|contain|containing|have|having|put|any|the|use of|an?|with|"
    r"write|writing|be|in|give me|"
    r"numbered|or|markdown|section|unnecessary))*"
)
_END: Final = (
    r"(?=\W*$|[.,;:!?)\n]| (?:please|and|only|not|instead|but|with|so|using|containing|why|how|what|"
    r"this|where|like|that|or|if possible|thanks|again|about|for|of)\b)"
)
_NEGATION: Final = re.compile(
    r"(?:\bnot|n't|\bnever|\bwithout|\bno|\bavoid|\binstead of|\b(?:rather|better|other|more) than|"
    r"\bnor)(?: \w+){0,2} *[\"'(]?$"
)
_TONGUES: Final = {name.lower(): code for code, name in LANGUAGES.items()} | {
    "mandarin": "zh",
    "brazilian portuguese": "pt",
}
_TONGUE: Final = "|".join(sorted(_TONGUES, key=len, reverse=True))
_ABOUT_TONGUE: Final = re.compile(
    r"\b(?:how|words?|phrases?|terms?|names?|called|say|said|mean|means|meaning|translation|translate|books?|"
    r"films?|movies?|songs?|"
    r"literature|lyrics|learn|learning|class|exam|test|order|subtitles|written|spoken|originally|lessons?|"
    r"grammar|essay i|verbs?|"
    r"is it|speakers?|keyboard|capable|able|know|understand|conversation with)\b[^.]{0,60}$"
)
_ANSWERED: Final = re.compile(
    r"\b(?:answer|respond|reply|response|speak|talk|write everything|output)\b[^.]{0,40}$"
)


@dataclass(frozen=True, slots=True)
class Rule:
    """One way to state one constraint.

    Args:
        pattern: over a sentence's lower-case text.
        programs: what it states, from the match and a function that gives the verbatim text of a group.
        negatable: whether a negation before it takes it back.
        made: whether it also holds where something is to be made that has a form of its own, such as code.
        refused: a pattern before the match that takes it back.
    """

    pattern: re.Pattern[str]
    programs: Callable[[re.Match[str], Said], Programs]
    negatable: bool = True
    made: bool = False
    refused: re.Pattern[str] | None = None


def _rule(
    pattern: str, verifier: str, *, negatable: bool = True, made: bool = False, **arguments: object
) -> Rule:
    return Rule(re.compile(pattern), lambda _, __: [(verifier, arguments)], negatable=negatable, made=made)


def _no(thing: str, verifier: str, **arguments: int) -> Rule:
    pattern = re.compile(rf"{_NO} (?:\w+(?:,| or|,? and) )?(?:{thing}){_END}")
    return Rule(pattern, lambda _, __: [(verifier, {**arguments})], negatable=False)


def _items(text: str) -> list[str]:
    """The items of a list as it stands in the request."""
    straight = text.translate(str.maketrans("“”‘’", "\"\"''"))
    quoted = re.findall(r"([\"'`])(.+?)\1(?=[\s,]|$)", straight)
    if quoted:
        return [item.rstrip(".,") if len(item) > 1 else item for _, item in quoted]
    return [item for item in re.split(r",? (?:and|or) |, ?", text.strip()) if item]


def _unquoted(text: str) -> str:
    return text.strip().strip("\"'`“”‘’").strip()


def _keywords(found: re.Match[str], said: Said) -> Programs:
    items = _items(said("list"))
    denied = re.search(
        r"(?:\bnot|n't|\bnever|\bwithout|\bavoid|\bno)(?: \w+){0,3}\W*$", found.string[: found.start()]
    )
    if denied or re.match("without|avoid", found[0]) or (found.groupdict().get("denied")):
        return [("keywords_absent", {"keywords": items})]
    if found.groupdict().get("times"):
        return [("min_keyword_count", {"limit": _times(found["times"]), "keyword": item}) for item in items]
    return [("keywords_present", {"keywords": items})]


def _times(text: str) -> int:
    return {"once": 1, "twice": 2}.get(text) or number_of(text.split(" time")[0])


def _table(found: re.Match[str], said: Said) -> Programs:
    stated: Programs = [("min_tables", {"limit": 1})]
    items = _items(said("columns")) if found["columns"] else []
    if len(items) > 1:
        stated.append(("table_columns", {"columns": items}))
    if found["across"]:
        stated.append(("table_column_count", {"count": number_of(found["across"])}))
    return stated


def _tongue(found: re.Match[str], _said: Said) -> Programs:
    before = found.string[: found.start()]
    if re.search(r"[,;] *$", before):
        return [("language", {"code": _TONGUES[found["tongue"]]})]
    if _ABOUT_TONGUE.search(before) and not _ANSWERED.search(before):
        return []
    return [("language", {"code": _TONGUES[found["tongue"]]})]


def _json(found: re.Match[str], said: Said) -> Programs:
    only = re.search(r"\b(?:only|just|nothing|solely|no other|no extra|no additional|strictly)\b", found[0])
    stated: Programs = [("valid_json", {"where": "whole" if only else "anywhere"})]
    if found["keys"]:
        stated.append(("json_keys", {"keys": _items(said("keys"))}))
    return stated


def _edge(verifier: str) -> Callable[[re.Match[str], Said], Programs]:
    return lambda _found, said: [(verifier, {"text": _unquoted(said("text"))})]


_TIMES: Final = rf"(?: (?:somewhere )?(?:at least|a minimum of) (?P<times>once|twice|{NUMBER} times))?"
_OF_OTHERS: Final = re.compile(
    r"\b(?:that|which|who|words?|names?|countries|cities|animals|each|every|lines?|sentences|paragraphs?|stanza|"
    r"verse) *(?:(?:must|should|to|all|can|may) )*$"
)
_ONLY_JSON: Final = (
    r"(?:,? ?(?:only|and nothing else|nothing else|no (?:other|extra|additional) (?:text|words|commentary)))?"
)
_JSON: Final = (
    r"(?:(?:\bas|\bin|\busing|\binto|\bto|\breturn|\boutput|\bgive me|\bproduce|\bwith|\bgenerate|\bprovide|"
    r"\bcreate|\bwrite|\bonly|\bjust|\bbe|\bwant)"
    r"(?: (?:only|just|nothing but|with|in|a|an|the|valid|raw|pure|well-formed|single|strict|as|result|output|"
    r"answer|format))*)"
    rf" json(?![- ]schema|l\b)(?: (?:object|array|format|document|file|output|form|list|response|data))*{_ONLY_JSON}"
    rf"(?:(?:[:,] an? (?:object|array|list))?,? (?:with|containing|having|using)(?: (?:the|only|these|following|"
    rf"exactly|two|three|four))* (?:keys?|"
    rf"fields?|properties|attributes)(?: (?:named|called))?:? (?P<keys>{_LIST}))?"
    r"(?=\W|$)(?!(?: (?:files? (?:is|are|in)|to |into |parser|api|schema)))"
)

RULES: Final = (
    Rule(re.compile(_JSON), _json),
    *(
        _rule(
            rf"\b(?:as|in|using|to|into|valid) (?:an? )?(?:valid )?{name}(?: (?:format|file|document|form))?{_END}",
            "code_parses",
            language=name,
        )
        for name in ("yaml", "xml")
    ),
    Rule(
        re.compile(
            r"(?:\b(?:in|as|using|into|with) (?:an? )?(?!coffee|dinner|wooden|periodic|database|pool|kitchen|"
            r"pivot|truth|round|times|multiplication)(?:\w+ )?(?:table|tabular form)(?: format| form|at)?"
            r"|\b(?:create|make|draw|produce|write|give me|generate|build|provide|return|want|need|include|use|"
            r"add)(?: me)? (?:an? |the )?(?:(?:markdown|comparison|summary|small|simple|short|neat) )?table)"
            rf"(?!s|\w|[- ](?:tennis|of contents|cloth|top|manners|read|lamp|for (?:two|my))|spoon)"
            rf"(?:[^.;\n]{{0,60}}?\bcolumns?(?: (?:named|called|for|titled|labell?ed))?:? (?P<columns>{_LIST})|"
            rf"(?: with| of)? (?P<across>{NUMBER}) columns\b)?"
        ),
        _table,
        refused=re.compile(r"\b(?:at|on|around|under|off|sits?|room)\b[^.]{0,30}$"),
    ),
    Rule(
        re.compile(rf"\bin (?P<tongue>{_TONGUE})(?: language)?(?= and (?!{_TONGUE})|(?! and| or|/){_END})"),
        _tongue,
    ),
    _no(r"(?:bulleted |numbered )?lists?(?! of| comprehension)", "max_list_items", limit=0),
    _no(r"bullet[- ]?points?|bullets", "max_bullets", limit=0),
    _no("emojis?|emoticons or emojis", "max_emojis", limit=0),
    _no("headings|headers|headlines or headers", "max_headings", limit=0),
    _no("links|urls|hyperlinks", "max_links", limit=0),
    _no("code blocks?", "max_code_blocks", limit=0),
    _no("tables", "max_tables", limit=0),
    _no("placeholders", "max_placeholders", limit=0),
    _no("commas", "no_commas"),
    _no("(?:the )?first[- ]person(?: pronouns?)?", "no_first_person"),
    _no("capital(?: letters|s|ization)|upper ?case(?: letters)?", "lower_case"),
    _no("lower ?case letters", "upper_case"),
    _rule(
        r"\b(?:using|use|in|with|as|into|give me|want|only|create|make|write|write me|provide|produce) (?:an? |"
        r"some |only |short |simple |clear |brief |concise |\w+ and )*"
        rf"(?:bullet[- ]?points?(?: list| format| form)?|bullets|bullet(?:ed|[- ]point)? (?:list|form|format)|"
        rf"bullet-list){_END}",
        "min_bullets",
        limit=1,
    ),
    _rule(
        rf"\b(?:as|in|using|into|with|make|give me|use|want|create) (?:an? |"
        rf"the )?(?:form of a )?numbered (?:list|steps|points|format|bullet points){_END}",
        "min_numbered_items",
        limit=1,
    ),
    _rule(r"(?:^\W*|, )(?:an? )?numbered list(?=\W*$|,? please)", "min_numbered_items", limit=1),
    _rule(
        r"(?:^\W*|, )(?:an? )?(?:bullet(?:ed)? list|bullet points)(?=\W*$|,? please)", "min_bullets", limit=1
    ),
    _rule(
        r"\b(?:use|with|include|add|using|including|insert|and) (?:(?:some|a few|lots of|many|plenty of|"
        r"appropriate|relevant|fun|cute|a lot of|the) )*emojis?\b",
        "min_emojis",
        limit=1,
    ),
    _rule(
        r"\b(?:with|include|including|add|provide|cite|citing|give|list|state|mention|and)(?: me)?(?: (?:your|"
        r"some|the|all|relevant|proper|any|reliable|scientific|academic|"
        r"peer-reviewed|inline|in-text|credible|full|links and|of your))* (?:citations|references|"
        r"sources)\b(?! (?:to|from|for your|in (?:the|his|her)|of (?!information)|such as))",
        "min_citations",
        limit=1,
    ),
    _rule(
        r"\b(?:with|use|using|include|including|add|under|insert)(?: (?:clear|section|proper|appropriate|"
        r"markdown|some|bold|descriptive|different|multiple|several|short))*"
        r" (?:sub)?head(?:ings|ers)\b(?! (?:row|column))",
        "min_headings",
        limit=1,
    ),
    _rule(
        r"\b(?:in|inside|within|using|as|into) (?:an? |the )?(?:single |markdown |fenced )?code[- ]?block",
        "min_code_blocks",
        limit=1,
        made=True,
    ),
    _rule(
        r"\b(?:in|all|use|using|only|with|be)(?: (?:only|all|the|in|entirely|just))* lower[- ]?case(?: letters|"
        r" text)?\b",
        "lower_case",
    ),
    _rule(
        r"\b(?:in|use|using|all|be|with)(?: (?:all|only|in|entirely|just|full))* (?:caps|capitals|"
        r"capital letters|upper[- ]?case(?: letters)?|all[- ]caps)\b(?! for| lock)",
        "upper_case",
    ),
    _rule(r"\b(?:in|use|using) title[- ]case\b", "title_case"),
    Rule(
        re.compile(
            r"\b(?:answer|respond|reply|say)(?: (?:me|only|just|simply|with|in|using|either|strictly|a|one word|"
            r"the|words?|single|is|by))*[ :,]*[\"']?(?P<a>\byes|\btrue|\x01+)[\"']? ?(?:or|/) ?[\"']?(?P<b>no\b|"
            r"false\b|\x01+)[\"']?"
            r"(?: (?:only|and nothing else|nothing else|without (?:any )?explanation|no explanation))?"
        ),
        lambda found, said: (
            [("one_of", {"options": [said("a").lower(), said("b").lower()]})]
            if re.search(
                r"\b(?:only|just|simply|strictly|nothing else|one word|single word|explanation)\b",
                found.string[: found.end()],
            )
            else []
        ),
    ),
    _rule(
        r"\b(?:wrap|enclose|put|surround|place)\w*\b[^.]{0,60}\b(?:in|with|inside|within|"
        r"by) (?:double )?(?:quotation marks|double quotes|quotes)\b",
        "quoted",
        negatable=False,
    ),
    _rule(
        r"\b(?:end|finish|conclude|close|ending)(?: (?:your \w+|it|the \w+|off|up|each \w+|with|by|asking|on|a|"
        r"an|one|me|open-ended|thoughtful|follow-up|rhetorical|thought-provoking))* question\b(?! mark)",
        "ends_with_question",
    ),
    _rule(
        r"\b(?:add|include|with|end|contain|have|at the end)\b[^.]{0,60}\b(?:postscript|p\.s|ps)\b",
        "postscript",
    ),
    Rule(
        re.compile(
            r"\b(?:start|begin|open)(?:ing)?(?: (?:it|your \w+|the \w+|with|off|by|saying|writing|the|exact|"
            r"following|words?|phrase|sentence|line|exactly|text))*"
            rf"[ :,]+(?P<text>{_Q})"
        ),
        _edge("starts_with"),
        refused=_OF_OTHERS,
    ),
    Rule(
        re.compile(
            r"\b(?:end|finish|conclude|close)(?:ing)?(?: (?:it|your \w+|the \w+|with|off|by|saying|writing|the|"
            r"this|exact|following|words?|phrase|sentence|line|exactly|text|up))*"
            rf"[ :,]+(?P<text>{_Q})"
        ),
        _edge("ends_with"),
        refused=_OF_OTHERS,
    ),
    Rule(
        re.compile(
            r"\b(?:includ(?:e|es|ing)|us(?:e|es|ing)|contain(?:s|ing)?|mention(?:s|ing)?|incorporat(?:e|ing)|"
            r"hav(?:e|ing)|with|without|avoid|insert|work in|add|say)"
            r"(?: (?:the|all of|all|these|following|both|exact|each|any|a|somewhere|two|three|four))*"
            rf" (?:words?|phrases?|terms?|keywords?|key words?):? (?P<list>{_LIST}){_TIMES}"
        ),
        _keywords,
        negatable=False,
        refused=re.compile(
            r"\b(?:sentences?|words|verbs?) that\W*$|\b(?:start|begin|open|end|finish|conclud|clos)\w*\b[^.]{0,30}$"
        ),
    ),
    Rule(
        re.compile(
            rf"\bthe (?:words?|phrases?|terms?|keywords?) (?P<list>{_LIST_Q}|{_WORD}) (?:should|must|has to|"
            rf"have to|needs to)(?P<denied> not| never)? (?:appear|be (?:used|included|mentioned|present)|occur|"
            rf"show up){_TIMES}"
        ),
        _keywords,
        negatable=False,
    ),
    Rule(
        re.compile(
            r"\b(?:in|as|use|using|the|format)(?: (?:the|date|dates|format|as))* (?P<format>yyyy-mm-dd|"
            r"dd/mm/yyyy|mm/dd/yyyy|dd\.mm\.yyyy)\b"
        ),
        lambda found, _: [("date_format", {"format": found["format"].upper()})],
    ),
    Rule(
        re.compile(
            rf"\b(?:no sentences?|sentences)(?: (?:should|must|be|can|is|are|short|that|"
            rf"which))* (?P<sign>longer than|more than|over|under|at most|no longer than|shorter than|to|"
            rf"below) (?P<count>{NUMBER}) words"
        ),
        lambda found, _: [
            (
                "max_sentence_words",
                {"limit": number_of(found["count"]) - (found["sign"] in ("under", "shorter than", "below"))},
            )
        ],
        negatable=False,
    ),
)

_TRIGGER: Final = re.compile(
    rf"\d|[\"“`]|(?<!\w)['‘]|\b(?:{_TONGUE}|{'|'.join(word for word in NUMBERS if ' ' not in word)}|words?|"
    rf"phrases?|sentences?|json|yaml|xml|tables?|"
    r"tabular|lists?|bullet\w*|emojis?|head(?:ings|ers)|subheadings|links|urls|code|commas|first|capitals?|caps|"
    r"upper ?case|lower-?case|upper-?case|lower|"
    r"title|numbered|citations?|references|sources|yes|true|quotes|quotation|question|postscript|p\.?s|"
    r"placeholders?|characters|keywords?|terms?|"
    r"paragraphs?|yyyy|dd)\b",
    re.IGNORECASE,
)


def programs_in(text: str) -> dict[str, str]:
    """The programs that a request states, each with the words that state it (verbatim); none that contradict."""
    if _TRIGGER.search(text[:READ_CHARS]) is None:
        return {}
    sentences = sentences_of(text)
    asked = any((sentence.asks and sentence.own) or inquires(sentence) for sentence in sentences)
    found: dict[str, str] = {}
    for sentence in sentences if asked else []:
        for verifier, arguments, start, end in _stated(sentence, text, asked=asked):
            quote = text[sentence.start + start : sentence.start + end].strip(" ,.;:()\n")
            program = _program(verifier, arguments)
            if program is not None:
                found.setdefault(program, quote)
    return consistent(found)


def _program(verifier: str, arguments: dict[str, object]) -> str | None:
    try:
        return program_of(verifier, arguments)
    except BadInput:  # a number or a text beyond what the verifier takes
        return None


def _stated(sentence: Sentence, text: str, *, asked: bool) -> Iterator[Found]:
    if not (_TRIGGER.search(sentence.text) and sentence.own):
        return
    yield from counts_in(sentence, asked=asked)
    yield from entries_in(sentence)
    if not (sentence.asks or (asked and not sentence.question and not sentence.states)):
        return
    made = sentence.made
    for rule in RULES:
        for found in rule.pattern.finditer(sentence.text) if rule.made or not made else ():
            yield from _applied(rule, found, sentence, text)


def _applied(rule: Rule, found: re.Match[str], sentence: Sentence, text: str) -> Iterator[Found]:
    before = sentence.text[: found.start()]
    if rule.negatable and _NEGATION.search(before):
        return
    if rule.refused and rule.refused.search(before):
        return

    def said(group: str) -> str:
        return text[sentence.start + found.start(group) : sentence.start + found.end(group)]

    for verifier, arguments in rule.programs(found, said):
        yield Found(verifier, arguments, found.start(), found.end())


_ALONE: Final = ("language", "starts_with", "ends_with", "one_of", "date_format")
_WHOLES: Final = ("valid_json", "only_code_block", "one_of", "quoted")
_LISTED: Final = ("bullets", "numbered_items", "entries")


def consistent(found: dict[str, str]) -> dict[str, str]:
    """The programs without those that contradict each other, and without those that others imply."""
    parsed = {program: json.loads(program) for program in found}
    against = {
        one
        for one, first in parsed.items()
        for other, second in parsed.items()
        if one != other and (_contradict(first, second) or _contradict(second, first))
    }
    left = {program: quote for program, quote in found.items() if program not in against}
    return {
        program: quote
        for program, quote in left.items()
        if not any(_implies(parsed[other], parsed[program]) for other in left if other != program)
    }


def _interval(program: dict[str, Any]) -> tuple[str, int, float]:
    """What is counted, and the least and most of it that pass."""
    sign, _, unit = program["verifier"].partition("_")
    given = program["arguments"]
    if sign == "min" and "limit" in given:
        return unit, given["limit"], float("inf")
    if sign == "max" and "limit" in given:
        return unit, 0, given["limit"]
    if sign == "exact":
        off = given.get("tolerance", 0)
        return unit, given["count"] - off, given["count"] + off
    return "", 0, float("inf")


def _contradict(one: dict[str, Any], other: dict[str, Any]) -> bool:
    (unit, low, _), (counted, _, high) = _interval(one), _interval(other)
    counts = unit == counted or (counted == "list_items" and high == 0 and unit in _LISTED)
    if unit and counts and low > high and "keyword" not in unit:
        return True
    name, second = one["verifier"], other["verifier"]
    if name == second and name in _ALONE:
        return True
    if {name, second} == {"lower_case", "upper_case"}:
        return True
    if name == "keywords_present" and second == "keywords_absent":
        return not {*one["arguments"]["keywords"]}.isdisjoint(other["arguments"]["keywords"])
    return (
        name in _WHOLES
        and (unit or counted) in ("bullets", "tables", "headings", "numbered_items")
        and name != second
    )


def _implies(one: dict[str, Any], other: dict[str, Any]) -> bool:
    (unit, low, high), (counted, least, most) = _interval(one), _interval(other)
    if unit and unit == counted and "keyword" not in unit:
        return low >= least and high <= most and (low, high) != (least, most)
    same = one["verifier"] == other["verifier"] == "valid_json"
    return same and one["arguments"]["where"] == "whole" and other["arguments"]["where"] == "anywhere"
