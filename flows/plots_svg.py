"""Plots of counts as inline SVG: no script, no font, no colour of their own, so that they follow the page's theme.

Every plot has a title and a description for those who do not see it. Colours are CSS variables of the page.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Final, NamedTuple

from tilth.flows.markup import Html, join, tag

_WIDTH: Final = 460.0
_LABEL: Final = 168.0
_ROW: Final = 24.0
_HEIGHT: Final = 190.0
_LABEL_CHARS: Final = 24
_BOX: Final = (118.0, 26.0)
Point = tuple[float, float]
_ids = count(1)


class Bins(NamedTuple):
    """Counts between edges, one less than edges; the first edge belongs to its bin, the last edge to the last."""

    edges: Sequence[float]
    counts: Sequence[int]


def number(value: float) -> str:
    """A number for people: whole ones with commas, others with as many digits as say something.

    >>> number(12345), number(0.25), number(3.0)
    ('12,345', '0.25', '3')
    """
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.3g}"


def short(value: float) -> str:
    """A number in few characters, for axes.

    >>> short(20000), short(0.5), short(1500000)
    ('20k', '0.5', '1.5M')
    """
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def bars(title: str, counts: Sequence[tuple[str, float]], describe: str = "") -> Html:
    """A horizontal bar for each name, with its count."""
    most = max((value for _, value in counts), default=0) or 1
    room = _WIDTH - _LABEL - 62
    rows = [
        _bar(at * _ROW, name, value, room * value / most, number(value))
        for at, (name, value) in enumerate(counts)
    ]
    told = describe or "; ".join(f"{name}: {number(value)}" for name, value in counts)
    return _svg(title, told, len(counts) * _ROW, *rows)


def _bar(y: float, name: str, value: float, length: float, shown: str) -> Html:
    return tag(
        "g",
        tag("title", f"{name}: {number(value)}"),
        _text(_LABEL - 8, y + 16, _clipped(name), anchor="end"),
        tag("rect", x=_LABEL, y=y + 4, width=f"{max(length, 1):.1f}", height=_ROW - 8, rx=2, class_="one"),
        _text(_LABEL + length + 6, y + 16, shown, class_="value"),
    )


def balance(title: str, values: Sequence[tuple[str, float]], ends: tuple[str, str]) -> Html:
    """A bar from 0 for each name, of a value in [-1, 1]; `ends` say what -1 and 1 mean."""
    room = (_WIDTH - _LABEL - 48) / 2
    middle = _LABEL + room + 4
    height = len(values) * _ROW + 22
    rows = [tag("line", x1=middle, x2=middle, y1=0, y2=height - 20, class_="axis")]
    for at, (name, value) in enumerate(values):
        left, y = middle + min(0.0, value) * room, at * _ROW
        rows += [
            tag(
                "g",
                tag("title", f"{name}: {value:+.2f}"),
                _text(_LABEL - 8, y + 16, _clipped(name), anchor="end"),
                tag("rect", x=f"{left:.1f}", y=y + 4, width=f"{max(abs(value) * room, 1):.1f}", height=_ROW - 8, rx=2,
                    class_="one" if value >= 0 else "two"),
                _text(_WIDTH, y + 16, f"{value:+.2f}", anchor="end", class_="value"),
            )
        ]  # fmt: skip
    rows += [
        _text(middle - room, height - 4, ends[0], class_="small"),
        _text(middle + room, height - 4, ends[1], anchor="end", class_="small"),
    ]
    return _svg(title, "; ".join(f"{name}: {value:+.2f}" for name, value in values), height, *rows)


def histogram(title: str, series: Mapping[str, Bins], unit: str) -> Html:
    """Counts over bins of equal width on the page, whatever their edges; up to two series side by side."""
    bins = next(iter(series.values()))
    most = _top(max((max(one.counts, default=0) for one in series.values()), default=0))
    step = (_WIDTH - 44) / max(1, len(bins.counts))
    floor, room = _HEIGHT - 44, _HEIGHT - 68
    drawn: list[Html] = [*_scale(most, floor, room)]
    for at in range(len(bins.counts)):
        for place, (name, one) in enumerate(series.items()):
            tall = room * one.counts[at] / most
            wide = (step - 2) / len(series)
            span = f"{short(bins.edges[at])} to {short(bins.edges[at + 1])} {unit}"
            drawn.append(
                tag(
                    "g",
                    tag("title", f"{name}, {span}: {number(one.counts[at])}"),
                    tag("rect", x=f"{40 + at * step + 1 + place * wide:.1f}", y=f"{floor - tall:.1f}",
                        width=f"{max(wide - (1 if len(series) > 1 else 0), 1):.1f}", height=f"{tall:.1f}",
                        class_="one" if place == 0 else "two"),
                )
            )  # fmt: skip
    drawn += [
        _text(40 + at * step, floor + 15, short(edge), anchor="middle", class_="small")
        for at, edge in enumerate(bins.edges)
        if at % math.ceil(len(bins.edges) / 9) == 0
    ]
    drawn.append(_text(_WIDTH, _HEIGHT - 8, unit, anchor="end", class_="small"))
    drawn += _legend(list(series)) if len(series) > 1 else []
    told = "; ".join(f"{name}: {_told(one, unit)}" for name, one in series.items())
    return _svg(title, told, _HEIGHT, *drawn)


def _told(bins: Bins, unit: str) -> str:
    some = [at for at, value in enumerate(bins.counts) if value]
    if not some:
        return "nothing"
    peak = max(some, key=lambda at: bins.counts[at])
    ends = f"from {short(bins.edges[some[0]])} to {short(bins.edges[some[-1] + 1])} {unit}"
    most = f"most, {number(bins.counts[peak])}, between {short(bins.edges[peak])} and {short(bins.edges[peak + 1])}"
    return f"{ends}; {most}"


def _scale(top: float, floor: float, room: float) -> list[Html]:
    drawn: list[Html] = []
    for value in (0, top / 2, top) if top > 1 else (0, top):
        y = floor - room * value / top
        drawn += [
            tag("line", x1=40, x2=_WIDTH, y1=f"{y:.1f}", y2=f"{y:.1f}", class_="grid" if value else "axis"),
            _text(34, y + 4, short(value), anchor="end", class_="small"),
        ]
    return drawn


def _top(most: float) -> int:
    """The end of an axis of counts: not below `most`, and with a whole half.

    >>> _top(1), _top(19), _top(21), _top(999)
    (1, 20, 30, 1000)
    """
    if most <= 1:
        return 1
    power = 10 ** math.floor(math.log10(most))
    steps = (2, 4, 6, 8, 10) if power == 1 else (1, 2, 3, 4, 5, 6, 8, 10)
    return next(step * power for step in steps if step * power >= most)


def _legend(names: Sequence[str]) -> list[Html]:
    drawn: list[Html] = []
    for at, name in enumerate(names):
        x = 40 + at * 110
        drawn += [
            tag("rect", x=x, y=_HEIGHT - 18, width=10, height=10, rx=2, class_="one" if at == 0 else "two"),
            _text(x + 15, _HEIGHT - 9, name, class_="small"),
        ]
    return drawn


def grid(title: str, edges: Sequence[float], cells: Mapping[tuple[int, int], int], x: str, y: str) -> Html:
    """Counts over two measures with the same edges; darker is more, the line is where both are equal."""
    size = len(edges) - 1
    side = 300.0 / max(1, size)
    left, floor = 92.0, 312.0
    most = max(cells.values(), default=0) or 1
    drawn: list[Html] = [
        tag(
            "g",
            tag("title", f"{x} {_span(edges, at)}, {y} {_span(edges, up)}: {number(found)}"),
            tag("rect", x=f"{left + at * side + 0.5:.1f}", y=f"{floor - (up + 1) * side + 0.5:.1f}",
                width=f"{side - 1:.1f}", height=f"{side - 1:.1f}", class_="one",
                fill_opacity=f"{0.15 + 0.85 * math.sqrt(found / most):.2f}"),
        )
        for (at, up), found in sorted(cells.items())
    ]  # fmt: skip
    drawn.append(tag("line", x1=left, y1=floor, x2=left + size * side, y2=floor - size * side, class_="axis"))
    for at, edge in enumerate(edges):
        if at % math.ceil(len(edges) / 8) == 0:
            drawn += [
                _text(left + at * side, floor + 15, short(edge), anchor="middle", class_="small"),
                _text(left - 6, floor - at * side + 4, short(edge), anchor="end", class_="small"),
            ]
    drawn += [
        _text(left + size * side, floor + 32, x, anchor="end", class_="small"),
        tag("text", y, x=30, y=floor - size * side / 2, class_="small", text_anchor="middle",
            transform=f"rotate(-90 30 {floor - size * side / 2:.0f})"),
    ]  # fmt: skip
    below = sum(found for (at, up), found in cells.items() if up < at)
    above = sum(found for (at, up), found in cells.items() if up > at)
    told = f"{number(below)} rows have {x} in a larger bin than {y}, {number(above)} the other way round"
    return _svg(title, told, floor + 40, *drawn)


def _span(edges: Sequence[float], at: int) -> str:
    return f"{short(edges[at])} to {short(edges[at + 1])}"


def graph(title: str, inputs: Mapping[str, Sequence[str]], here: str) -> Html:
    """What is made from what, from top to bottom; `here` is marked."""
    depth = _depths(inputs)
    layers = [
        sorted(name for name in depth if depth[name] == level) for level in range(max(depth.values()) + 1)
    ]
    (wide, tall), gap = _BOX, 58.0
    centre = {
        name: (_WIDTH * (at + 1) / (len(layer) + 1), level * gap + tall / 2 + 4)
        for level, layer in enumerate(layers)
        for at, name in enumerate(layer)
    }
    edges = [(of, name) for name, some in inputs.items() for of in some]
    drawn = [
        _edge(centre[of], centre[name], [box for other, box in centre.items() if other not in (of, name)])
        for of, name in edges
    ]
    for name, (x, y) in centre.items():
        kind = "node here" if name == here else "node"
        drawn += [
            tag(
                "rect",
                x=f"{x - wide / 2:.1f}",
                y=f"{y - tall / 2:.1f}",
                width=wide,
                height=tall,
                rx=6,
                class_=kind,
            ),
            _text(x, y + 4.5, _clipped(name, 18), anchor="middle", class_="name"),
        ]
    told = "; ".join(f"{name} from {', '.join(some)}" for name, some in inputs.items() if some)
    return _svg(title, told, len(layers) * gap - (gap - tall) + 8, *drawn)


def _depths(inputs: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """The longest way down to each name; what is part of a circle is as deep as there are names."""
    names = list(dict.fromkeys([*(of for some in inputs.values() for of in some), *inputs]))
    depth = dict.fromkeys(names, 0)
    for _ in names:
        for name, some in inputs.items():
            depth[name] = min(len(names), max([0, *(depth[of] + 1 for of in some)]))
    levels = sorted(set(depth.values()))
    return {name: levels.index(level) for name, level in depth.items()}


def _edge(start: Point, end: Point, others: Sequence[Point]) -> Html:
    """A curve that runs through as few other boxes as can be, and otherwise as straight as can be."""
    ways = [_bent(start, end, aside) for aside in (0, 60, -60, 120, -120, 190, -190)]
    best = min(ways, key=lambda way: sum(_hits(way, box) for box in others))
    (x1, y1), *rest = best
    curve = " ".join(f"{x:.0f} {y:.0f}" for x, y in rest)
    return tag("path", d=f"M{x1:.0f} {y1:.0f}C{curve}", class_="edge")


def _bent(start: Point, end: Point, aside: float) -> tuple[Point, Point, Point, Point]:
    """The four points of a Bezier curve between two boxes."""
    (x1, y1), (x2, y2) = (start[0], start[1] + _BOX[1] / 2), (end[0], end[1] - _BOX[1] / 2)
    way = (y2 - y1) / 3
    return (x1, y1), (x1 + aside, y1 + way), (x2 + aside, y2 - way), (x2, y2)


def _hits(way: tuple[Point, Point, Point, Point], box: Point) -> bool:
    for step in range(1, 20):
        t = step / 20
        parts = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3)
        x, y = (sum(part * point[axis] for part, point in zip(parts, way, strict=True)) for axis in (0, 1))
        if abs(x - box[0]) < _BOX[0] / 2 + 4 and abs(y - box[1]) < _BOX[1] / 2 + 2:
            return True
    return False


def _text(x: float, y: float, text: str, anchor: str | None = None, class_: str | None = None) -> Html:
    return tag("text", text, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor, class_=class_)


def _clipped(text: str, most: int = _LABEL_CHARS) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _svg(title: str, describe: str, height: float, *drawn: Html) -> Html:
    at = next(_ids)
    return tag(
        "svg",
        tag("title", title, id=f"plot-{at}-title"),
        tag("desc", describe, id=f"plot-{at}-desc"),
        join(*drawn),
        viewBox=f"0 0 {_WIDTH:.0f} {max(height, 1):.0f}",
        role="img",
        aria_labelledby=f"plot-{at}-title plot-{at}-desc",
    )
