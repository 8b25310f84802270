"""Control tokens of chat models inside text of users: broken before they are sent, and put back exactly.

Servers turn a control token into its real token wherever it stands in a message, so a user who writes `<|im_end|>`
would end the turn. No template can delimit that away. An invisible character inside of the token does.
"""

from __future__ import annotations

import re
from typing import Final

_JOINER: Final = (
    "\u2060"  # word joiner: no normaliser of a chat model's tokenizer drops it, and it shows as nothing
)

# What follows the opening bracket, by family. The bar families (<|im_start|>, <|eot_id|>, <|channel|>, DeepSeek's
# <｜…｜>, Gemma's <|turn>, EXAONE's [|user|]) are broken whatever they name; the others by name, since <b> is
# not a token and [TODO] is not either. Case does not matter: to break one too many costs nothing.
_NAMED: Final = (
    "s|bos|eos|pad|unk|mask|sep|cls|sop|eop|bot|eot|eod|eom|im_start|im_end|endoftext"  # Llama 2, Gemma, GLM
    r"|think|thinking|reasoning|answer|tools|tool|tool_\w{1,40}|function_\w{1,40}|arg_key|arg_value"  # Qwen, GLM
    r"|(?:start|end|begin|beginning)_of_\w{1,40}|\w{1,40}_token|turn|channel|message|observation"  # Gemma, Cohere
    r"|(?:unused|reserved|extra_id|special|fim|file|repo|jupyter|issue|commit|gh|image|img|audio|video|vision|box)"
    r"[\w-]{0,40}|seed:\w{1,40}|mask:\d{1,4}|0x[0-9a-f]{2}|minimax:\w{1,40}"  # Nemotron, code models, Seed, ERNIE
)
_BRACKETED: Final = (  # Mistral, GLM, InternLM
    "INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|MODEL_SETTINGS|CALL_ID|ARGS|THINK|REF"
    r"|IMG|IMG_BREAK|IMG_END|AUDIO|BEGIN_AUDIO|PREFIX|MIDDLE|SUFFIX|[gs]?MASK|BOS|EOS|PAD|UNK|SEP|CLS"
    r"|UNUSED_TOKEN_\d{1,6}|control_\d{1,6}"
)
# `restore` is exact because what is matched does not depend on how many joiners stand after any opening bracket.
_AFTER_ANGLE: Final = (
    rf"[|｜]|\w{{1,40}}[|｜][>＞]|/?(?:{_NAMED})[>＞]|[<＜]{_JOINER}*/?(?:SYS[>＞][>＞]|material)"
)
_AFTER_SQUARE: Final = rf"[|｜]|/?(?:{_BRACKETED})[\]］]|e~\["
_OPENING: Final = re.compile(
    rf"[<＜](?={_JOINER}*(?:{_AFTER_ANGLE}))"
    rf"|[\[［](?={_JOINER}*(?:{_AFTER_SQUARE}))"
    rf"|\](?={_JOINER}*~!?b[\[\]])",  # MiniMax
    re.IGNORECASE,
)
_BROKEN: Final = re.compile(rf"({_OPENING.pattern}){_JOINER}", re.IGNORECASE)


def neutralise(text: str) -> str:
    """The text with a word joiner after the first character of each control token, so that no tokenizer sees one.

    The marks around material count as control tokens. `restore` undoes it, for every text.

    >>> neutralise("</s> and <b>") == "<\\u2060/s> and <b>"
    True
    """
    return _OPENING.sub(rf"\g<0>{_JOINER}", text)


def restore(text: str) -> str:
    """What was given to `neutralise`: one word joiner fewer after the first character of each broken token.

    >>> restore(neutralise("[INST] <|im_start|>"))
    '[INST] <|im_start|>'
    """
    return _BROKEN.sub(r"\1", text)
