"""OASST trees (Köpf et al., 2023), one message or one nested tree a row: each path from root to leaf is a conversation.

Ranks (0 is best) and emojis become reactions of their turn, on every path that holds it. Quality labels are not
read. A message that was deleted or cannot be used is set aside, and so is everything below it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from tilth.schemas import Reason
from tilth.transforms.ingest.fields import check_text, instant, kind_of, name
from tilth.transforms.ingest.reactions import from_emojis, number
from tilth.transforms.ingest.record import (
    Conversation,
    Reaction,
    ReadConfig,
    Record,
    Refused,
    Turn,
    own_turns,
)
from tilth.transforms.ingest.turns import ROLES, check, turn_of


@dataclass(slots=True)
class Node:
    """A message in its tree. `row` is its ordinal among the rows of the tree; nested messages share theirs."""

    row: int
    id: str
    parent: str | None
    turn: Turn
    rank: float | None
    user: str | None
    said_at: datetime | None
    language: str | None
    model: str | None
    children: list[Node] = field(default_factory=list)


class Loss(NamedTuple):
    """Rows of a tree that did not make it into any conversation, by ordinal, and why."""

    rows: tuple[int, ...]
    refusal: Refused


class Tree(NamedTuple):
    """What the rows of one tree became."""

    record: Record | None
    losses: list[Loss]


def is_nested(row: Mapping[str, Any]) -> bool:
    """Whether a row holds a whole tree (`prompt` with `replies`) and not one message."""
    return isinstance(row.get("prompt"), Mapping)


def tree_id(row: Mapping[str, Any]) -> str:
    """The tree a message row belongs to. Raises `Refused` where none is named."""
    found = name(row.get("message_tree_id")) or (
        name(row.get("message_id")) if row.get("parent_id") is None else None
    )
    if found is None:
        raise Refused(Reason.NOT_A_CONVERSATION, "a message without `message_tree_id`")
    check_text(found, "`message_tree_id`")
    return found


def grow(tree: str, rows: Sequence[Mapping[str, Any]], config: ReadConfig) -> Tree:
    """One tree from its message rows. A row is in the record or in exactly one loss."""
    nodes, losses = _nodes(rows)
    roots = _link(nodes)
    reached = {node.id for path in _walk(roots) for node in path}
    orphans = [node for node in nodes.values() if node.id not in reached]
    losses += [
        Loss((node.row,), Refused(Reason.ORPHAN_MESSAGE, "its parent is not there")) for node in orphans
    ]
    return _tree(tree, roots, losses, config)


def grow_nested(row: Mapping[str, Any], config: ReadConfig) -> Tree:
    """One tree from one row, whose losses cost no row as long as a path is left. Raises `Refused` otherwise."""
    flat = list(_flatten(row["prompt"]))
    found = name(row.get("message_tree_id")) or name(row["prompt"].get("message_id"))
    tree = grow(found or "", flat, config)
    if tree.record is None:
        raise tree.losses[0].refusal
    tree.record.rows = 1
    tree.record.source_id = found
    tree.record.refusals = [loss.refusal for loss in tree.losses]
    return Tree(tree.record, [])


def _flatten(prompt: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    # Ids are made from places: nested exports may leave them out.
    waiting: list[tuple[Any, str | None, str]] = [(prompt, None, "0")]
    while waiting:
        message, parent, place = waiting.pop()
        if not isinstance(message, Mapping):
            raise Refused(Reason.WRONG_TYPE, f"a reply is {kind_of(message)}, wanted an object")
        here = name(message.get("message_id")) or place
        yield {**message, "message_id": here, "parent_id": parent}
        replies = message.get("replies") or []
        waiting += (
            [(reply, here, f"{place}.{n}") for n, reply in enumerate(replies)]
            if isinstance(replies, list)
            else []
        )


def _nodes(rows: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Node], list[Loss]]:
    nodes: dict[str, Node] = {}
    losses: list[Loss] = []
    for number_, row in enumerate(rows):
        try:
            node = _node(row, number_)
            if node.id in nodes:
                raise Refused(Reason.DUPLICATE, "a `message_id` that the tree has already")
            nodes[node.id] = node
        except Refused as refusal:
            losses.append(Loss((number_,), refusal))
    return nodes, losses


def _node(row: Mapping[str, Any], ordinal: int) -> Node:
    if row.get("deleted") is True:
        raise Refused(Reason.DELETED_MESSAGE, "the source marks it as deleted")
    found = name(row.get("message_id"))
    if found is None:
        raise Refused(Reason.WRONG_TYPE, "a message without `message_id`")
    message = {"role": row.get("role"), "text": row.get("text"), "message_id": found}
    turn = turn_of(message, 0, "role", "text", ROLES)
    rank = number(row.get("rank"))
    turn.key = (found,)
    turn.reactions = [*([] if rank is None else [Reaction("rank", rank)]), *from_emojis(row.get("emojis"))]
    user, language, model = (_text(row, key) for key in ("user_id", "lang", "model_name"))
    said_at = instant(row.get("created_date"))
    return Node(ordinal, found, name(row.get("parent_id")), turn, rank, user, said_at, language, model)


def _text(row: Mapping[str, Any], key: str) -> str | None:
    found = name(row.get(key))
    if found is not None:
        check_text(found, f"`{key}`")
    return found


def _link(nodes: Mapping[str, Node]) -> list[Node]:
    """Hangs children below parents, best rank first, then by id, so that the order of rows does not matter."""
    roots = [node for node in nodes.values() if node.parent is None]
    for node in nodes.values():
        if node.parent is not None and node.parent in nodes:
            nodes[node.parent].children.append(node)
    for siblings in (roots, *(node.children for node in nodes.values())):
        siblings.sort(key=lambda node: (node.rank is None, node.rank or 0.0, node.id))
    return roots


def _walk(roots: Sequence[Node]) -> Iterator[list[Node]]:
    """Root-to-leaf paths, depth first."""
    waiting = [[root] for root in reversed(roots)]
    while waiting:
        path = waiting.pop()
        if not path[-1].children:
            yield path
        waiting += [[*path, child] for child in reversed(path[-1].children)]


def _tree(tree: str, roots: Sequence[Node], losses: list[Loss], config: ReadConfig) -> Tree:
    kept: set[int] = set()
    conversations: list[Conversation] = []
    refused: list[tuple[list[Node], Refused]] = []
    for path in _walk(roots):
        try:
            conversations.append(check(_conversation(path), config))
            kept.update(node.row for node in path)
        except Refused as refusal:
            refused.append((path, refusal))
    losses = losses + list(_lost_paths(refused, kept))
    if not conversations:
        return Tree(None, losses)
    own_turns(conversations)
    return Tree(Record(tree, conversations, rows=len(kept)), losses)


def _lost_paths(refused: Iterable[tuple[list[Node], Refused]], kept: set[int]) -> Iterator[Loss]:
    """The rows of refused paths that no kept path and no earlier refused one holds."""
    taken = set(kept)
    for path, refusal in refused:
        rows = tuple(node.row for node in path if node.row not in taken)
        taken.update(rows)
        if rows:
            yield Loss(rows, refusal)


def _conversation(path: Sequence[Node]) -> Conversation:
    turns = [
        Turn(n.turn.role, n.turn.content, key=n.turn.key, id=n.turn.id, reactions=list(n.turn.reactions))
        for n in path
    ]
    users = [node.user for node in path if node.turn.role == "user"]
    others = dict.fromkeys(user for user in users[1:] if user and user != users[0])
    model = next((node.model for node in path if node.model), None)
    return Conversation(
        turns, users[0] if users else None, list(others), path[0].said_at, model, path[0].language
    )
