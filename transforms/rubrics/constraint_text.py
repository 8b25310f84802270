"""What a request says of the reply itself: its sentences, without what is quoted, pasted, asked about or supposed.

Offsets are those of the text, so that the words of a constraint can be cut out of it verbatim.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

READ_CHARS: Final = 4000  # requests stand at the start; what follows is pasted
HIDDEN: Final = "\x01"  # stands for each character that is quoted or pasted

_STRAIGHT: Final = str.maketrans(
    {"’": "'", "‘": "'", "“": '"', "”": '"', "\u00a0": " ", "–": "-", "—": "-", HIDDEN: " "}
)
_FENCED: Final = re.compile(r"```.{0,4000}?(?:```|\Z)", re.DOTALL)
_QUOTED: Final = re.compile(
    r"\"[^\"\n]{1,600}\"|(?<![\w'])'[^'\n]{0,20}[^'\s](?:'\w[^'\n]{0,80}|[^'\n]{0,300})'(?!\w)|`[^`\n]{1,200}`"
)
_MULTILINE_QUOTE: Final = re.compile(r"\"[^\"]{1,3000}\"")
_CITED: Final = re.compile(r"^[ \t]*>.*$", re.MULTILINE)
_STATED: Final = re.compile(
    r"\b(?:requirements?|rules?|constraints?|guidelines?|instructions?|criteria|conditions?|notes?|format|reminders?|"
    r"please|things|remember|important)\b[^:\n]{0,40}$"
)
_GIVEN: Final = re.compile(
    r"\b(?:translate|rewrite|rephrase|reword|paraphrase|proofread|summari[sz]e|summary|edit|correct|fix|improve|"
    r"shorten|"
    r"convert|classify|grammar|continue|finish|complete|analy[sz]e|review|critique|evaluate|grade|answer|solve|"
    r"text|article|passage|paragraph|sentences?|e-?mails?|messages?|story|poem|code|essay|following|transcript|"
    r"document|"
    r"letter|draft|statement|below|input|context|question|prompt|conversation|this|these|says?|said|wrote|"
    r"reads?)\b[^:\n]{0,60}$"
)
_HANDED: Final = re.compile(
    r"^[^\n]{0,200}\b(?:translate|rewrite|rephrase|reword|paraphrase|proofread|summari[sz]e|edit|correct|fix|"
    r"improve|shorten)\b[^\n]{0,60}"
    r"\b(?:following|this|below|text|article|e-?mail|letter|paragraph|message)\b[^\n]{0,40}[.!]?[ \t]*\n[ \t]*\n"
)
_COLON: Final = re.compile(r":(?=\s)")
_END: Final = re.compile(
    r"(?<!\bmax)(?<!\bmin)(?<!\bapprox)(?<!\be\.g)(?<!\bi\.e)[.!?](?=[\s)\"']|$)|[.!?]$|\n|;"
    r"|,(?= (?:and |but |please )?(?:answer|respond|reply)\b)"
)
_VERBS: Final = (
    "write|give|answer|respond|reply|explain|describe|summari[sz]e|tell|list|name|make|create|draft|compose|generate|"
    "provide|produce|return|output|show|suggest|recommend|compare|discuss|outline|define|rewrite|rephrase|paraphrase|"
    "shorten|condense|translate|convert|present|format|prepare|craft|brainstorm|keep|limit|use|include|add|start|begin|"
    "end|finish|conclude|mention|avoid|do|don't|put|organi[sz]e|structure|formulate|pretend|act|speak|talk|continue|"
    "help|need|want|like|introduce|analy[sz]e|design|propose|share|offer|state|express|say|let|print|elaborate|"
    "simplify|"
    "recap|sum|turn|wrap|ensure|be|teach|cite|come|pick|choose|identify|find|review|develop|invent|extend|"
    "expand|shrink|tone|reduce|cut|trim|compress|re-write|replace|rank|order|restate|sketch|record|fill"
)
_REQUEST: Final = re.compile(
    rf"^[\W_]*(?:\d+[.)]\s*)?(?:(?:hi|hello|hey|ok|okay|now|then|so|also|and|but|next|finally|instead|thanks|"
    rf"great|yes|well)\b[\s,!]*)*"
    rf"(?:please|pls|kindly|just)?[\s,]*(?:{_VERBS})\b"
    rf"|\b(?:please|pls|kindly)[\s,]+(?:\w+ly )?(?:{_VERBS})\b"
    rf"|\b(?:can|could|would|will|may) you\b|\bi(?:'d| would) like\b|\bi (?:want|need)(?: you| it| this| an?|"
    rf" \d+| two| three| four| five| ten|"
    rf" some|\b[^.]{{0,30}}\bfor me)\b"
    rf"|\byour (?:task|job|goal|answer|response|reply|output|entire|whole)\b|[,:]\s*(?:and |then |please |"
    rf"but )?(?:{_VERBS})\b"
    rf"|\b(?:and|then) (?:{_VERBS}) "
)
_OTHER: Final = re.compile(
    r"\bhow (?:do|can|should|would|could|did|might|long|many|much|often)\b(?! you (?:please|describe|explain))"
    r"|(?<!me )(?<!explain )(?<!describe )\bhow to\b"
    r"|\bi(?:'ve| have| had| need| got|'ve got| have got| must| am supposed|'m supposed| am trying|'m trying|"
    r" used| was asked| was told| tried| want| would like|'d like) to (?!see|have|get|know|hear|read|be )"
    r"|\b(?:if|when|whenever|suppose|unless) (?:i|we|someone|people|he|she|they)\b|\bshould (?:i|we|a|an|the)\b"
    r"|\b(?:my|our|his|her|their|the) (?:teacher|boss|professor|manager|friend|client|instructor|editor|tutor|"
    r"mother|mom|father|dad|sister|brother|wife|husband|colleague|assignment|prof|"
    r"supervisor)s?\b[^.]{0,60}\b(?:say|says|said|ask|asks|asked|want|wants|wanted|told|tells|require|requires|"
    r"required|insist|insists)\b"
    r"|\b(?:he|she|they|people|teachers|someone|everyone|somebody) (?:say|says|said|ask|asks|asked|want|wants|"
    r"told|tell|tells|write|writes|use|uses)\b"
    r"|\bwhat (?:does|do|is meant|did)\b|\bwhat(?:'s| is| are) (?:the (?:difference|meaning|word|best way|"
    r"correct way|point|purpose)|a|an)\b"
    r"|\bdo you (?:think|know|prefer|like|usually)\b|\bis (?:it|that|this|there)\b|\bare there\b|\bdoes (?:it|"
    r"the|a|an|this)\b|\bused to\b"
    r"|^\W*(?:why|is|are|was|were|did|does|who|whose|am)\b|\bi (?:wrote|was|did|made|gave|got|asked|told|said|"
    r"don't (?:like|know|understand|think))\b"
)
_STATEMENT: Final = re.compile(
    r"\W*(?:(?:i|we|he|she|they|there|my|our|his|her|their|someone|people)\b"
    r"|the (?!(?:words?|phrases?|terms?|keywords?|answer|response|reply|output|text|result|summary|essay|story|"
    r"first word)\b))"
)
_MAKING: Final = re.compile(
    r"\b(?:write|writes|create|make|makes|build|implement|develop|design|generate|code|program|need|want|"
    r"give me|fix|add|"
    r"convert|refactor|debug|draw|returns?|prints?|matches)\b"
)
_ANSWER_FIRST: Final = re.compile(r"\W*in (?:just |exactly |only )?\w+ \w+,")  # "In one sentence, what is …?"
_MADE: Final = re.compile(
    r"\b(?:functions?|programs?|scripts?|regex(?:es|p)?|regular expressions?|class(?:es)?|methods?|quer(?:y|"
    r"ies)|algorithms?|macros?|formulas?|"
    r"apps?|applications?|websites?|web ?pages?|apis?|bots?|components?|commands?|sql|html|css|latex|excel|"
    r"spreadsheets?|code|snippets?|"
    r"python|javascript|java|c\+\+|rust|bash|php|ruby|golang|react|django|flask|json schema|database|software|"
    r"parsers?|c#|midjourney|"
    r"images?|logos?|pictures?|drawings?|prompts? (?:for|that)|templates?|forms?)\b"
)


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence of a request, in lower case and with what is not the writer's own hidden.

    Args:
        text: the sentence; as long as what it stands for.
        start: where it starts in the whole text.
    """

    text: str
    start: int

    @property
    def asks(self) -> bool:
        """Whether it asks for something to be done, or says what an answer must be."""
        return _REQUEST.search(self.text) is not None

    @property
    def own(self) -> bool:
        """Whether it may constrain the reply: no report, no question about how things are done, no supposition."""
        return _OTHER.search(self.text) is None or _ANSWER_FIRST.match(self.text) is not None

    @property
    def made(self) -> bool:
        """Whether it is about something to be made that has limits of its own: code, an image."""
        return _MAKING.search(self.text) is not None and _MADE.search(self.text) is not None

    @property
    def states(self) -> bool:
        """Whether it states something of people or things, and so is no fragment that adds to a request."""
        return _STATEMENT.match(self.text) is not None

    @property
    def question(self) -> bool:
        """Whether it ends with a question mark."""
        return self.text.rstrip().endswith("?")


def lowered(text: str) -> str:
    """Lower case, with straight quotes and plain dashes, and of the same length."""
    straight = text.translate(_STRAIGHT)
    lower = straight.lower()
    if len(lower) == len(straight):
        return lower
    return "".join(letter.lower() if len(letter.lower()) == 1 else letter for letter in straight)


def hidden(text: str) -> str:
    """`lowered` with every character hidden that is quoted, cited, code, or pasted after a colon."""
    shown = lowered(text)
    for pattern in (_FENCED, _CITED):
        shown = pattern.sub(lambda found: HIDDEN * len(found[0]), shown)
    for pattern in (_QUOTED, _MULTILINE_QUOTE):
        shown = pattern.sub(_inside, shown)
    return _without_pasted(shown)


def _inside(found: re.Match[str]) -> str:
    whole = found[0]
    return whole[0] + HIDDEN * (len(whole) - 2) + whole[-1]


def _without_pasted(shown: str) -> str:
    handed = _HANDED.match(shown.lstrip("\n"))
    if handed and not shown.startswith("\n"):
        return shown[: handed.end()] + HIDDEN * (len(shown) - handed.end())
    for colon in _COLON.finditer(shown):
        head = shown[max(0, colon.start() - 200) : colon.start()]
        head = head[max(head.rfind("\n"), head.rfind(". "), head.rfind("? "), head.rfind("! ")) + 1 :]
        quoted_next = shown[colon.end() :].lstrip()[:1] in ('"', "'", "`", HIDDEN)
        if _GIVEN.search(head) and not _STATED.search(head) and not quoted_next:
            return shown[: colon.end()] + HIDDEN * (len(shown) - colon.end())
    return shown


def sentences_of(text: str) -> list[Sentence]:
    """The sentences of the first 4,000 characters of a request."""
    shown = hidden(text[:READ_CHARS])
    found: list[Sentence] = []
    start = 0
    for end in [*(mark.end() for mark in _END.finditer(shown)), len(shown)]:
        piece = shown[start:end]
        if piece.strip(" \n\t\r\x01.!?;-*"):
            found.append(Sentence(piece, start))
        start = end
    return found
