"""HTML and SVG as values: text is escaped where it is put in, so that no text of a row can become markup."""

from __future__ import annotations

from html import escape
from typing import Final

_VOID: Final = frozenset({"meta", "br", "hr", "rect", "line", "path", "circle"})


class Html(str):
    """Markup that `tag` has made; any other string is text, and is escaped when it becomes a child."""

    __slots__ = ()


def tag(name: str, /, *children: str | None, **attributes: str | float | None) -> Html:
    """An element; `class_` is class, other underscores are hyphens, what is null is left out.

    >>> tag("p", "a < b", tag("b", "!"), class_="note")
    '<p class="note">a &lt; b<b>!</b></p>'
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Html(f"<{name}{given}>" if name in ("meta", "br", "hr") else f"<{name}{given}/>")
    return Html(f"<{name}{given}>{join(*children)}</{name}>")


def join(*children: str | None) -> Html:
    """Children one after another."""
    return Html("".join(one if isinstance(one, Html) else escape(one) for one in children if one is not None))
