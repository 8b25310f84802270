"""The page of a report: sections of HTML from facts. Nothing in it leads outside, and nothing in it runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final  # Any: cells of tables, rows of samples

from tilth.flows.markup import Html, join, tag
from tilth.flows.plots_svg import Bins, balance, bars, graph, grid, histogram, number
from tilth.flows.report_facts import CHATS, STEPS, Facts
from tilth.flows.report_style import STYLE
from tilth.schemas.labels import DSAT, SAT

MEANINGS: Final = {
    "gratitude": "thanks for the reply",
    "learning": "says that something was learned or understood",
    "compliance": "says that the reply does what was asked",
    "praise": "praises the reply or the assistant",
    "personal_details": "opens up about themselves with goodwill",
    "humor": "jokes or is amused",
    "acknowledgement": "confirms, agrees, accepts",
    "positive_closure": "ends warmly",
    "getting_there": "finds it better than before, and not finished",
    "negative_feedback": "complains, is frustrated, insults",
    "revision": "asks for it again, or repeats the request",
    "factual_error": "points out a wrong fact or a wrong step",
    "unrealistic_expectation": "asks for more than is possible and does not accept that",
    "no_engagement": "does not answer the assistant's question",
    "ignored": "says that a part of the request was passed over",
    "lower_quality": "finds it worse than before or than elsewhere",
    "insufficient_detail": "wants more, or something more specific",
    "style": "objects to tone, length or format",
    "thumbs_up": "reacted with a thumb up",
    "thumbs_down": "reacted with a thumb down",
}
"""What the user does, by label; as in the reference of feedback."""
_WHAT: Final = {
    "conversations": "One row is one logged conversation.",
    "feedback": "One row is one signal by a user about one reply, with the words that show it.",
    "pairs": "One row is a preference: a prompt, a chosen reply, and a rejected one.",
    "unpaired": "One row is a reply with a label, good or bad.",
    "rationales": "One row is a reason why one reply of a pair is better.",
    "rubrics": "One row is a prompt with the criteria of a good reply.",
    "preferences": "One row is what a user wants of a reply.",
    "responses": "One row is a reply, logged or by a model.",
    "judgments": "One row is what one judge said of one comparison or one reply.",
    "ratings": "One row is a reply with its ratings.",
    "evaluation": "One row is a prompt to evaluate a model with.",
    "quarantine": "One row is a row that could not go on, and why.",
}
_DRIFT_ROWS: Final = 25
_LONG_CHARS: Final = 36
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"
Section = tuple[str, str, Html]  # id, heading, body


def page(facts: Facts) -> str:
    """The whole document."""
    version = facts.version
    title = f"{version.name}@{version.version}"
    sections = [one for one in _sections(facts) if one[2]]
    toc = tag("ul", *(tag("li", tag("a", heading, href=f"#{id_}")) for id_, heading, _ in sections))
    body = join(
        tag(
            "header",
            tag("p", "Dataset report", class_="kicker"),
            tag("h1", version.name, tag("span", f"@{version.version}", class_="version")),
            tag("p", _WHAT.get(version.table, ""), class_="lead"),
            _tiles(facts),
        ),
        tag("nav", toc, aria_label="Sections"),
        tag("main", *(_section(*one) for one in sections)),
        tag("footer", tag("p", _private(facts))),
    )
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{title}: dataset report"),
        tag("style", Html(STYLE)),
    )
    return f"<!doctype html>\n{tag('html', head, tag('body', body), lang='en')}\n"


def _sections(facts: Facts) -> list[Section]:
    return [
        ("made", "How it was made", _how_made(facts)),
        ("rows", "What is in it", _rows(facts)),
        ("lengths", "Lengths", _lengths(facts)),
        ("labels", "What users said", _labels(facts)),
        ("models", "Models and judges", _models(facts)),
        ("factors", "Measured factors", _factors(facts)),
        ("audit", "Checks", _audit(facts)),
        ("drift", "Changes since the version before", _drift(facts)),
        ("aside", "What was set aside", _set_aside(facts)),
        ("samples", "Samples", _samples(facts)),
    ]


def _section(id_: str, heading: str, body: Html) -> Html:
    return tag(
        "section", tag("h2", heading, id=f"{id_}-heading"), body, id=id_, aria_labelledby=f"{id_}-heading"
    )


def _private(facts: Facts) -> str:
    if facts.samples:
        return "This report holds text of conversations: share it as you would share the logs."
    return "This report holds counts and names alone, and no text of a conversation."


def _tiles(facts: Facts) -> Html:
    version = facts.version
    failed = [check for check in facts.checks if check["success"] is False]
    worst = "critical" if any(check["severity"] == "critical" for check in failed) else "warning"
    passed = sum(check["success"] is True for check in facts.checks)
    checks = f"{passed} of {len(facts.checks)} passed" if facts.checks else "not stored"
    told = [
        ("rows", number(version.rows), None),
        ("made", f"{version.created_at:%Y-%m-%d %H:%M} UTC", None),
        ("recipe", version.family, None),
        ("checks", checks, worst if failed else None),
    ]
    return tag(
        "dl",
        *(tag("div", tag("dt", name), tag("dd", value, class_=kind)) for name, value, kind in told),
        class_="tiles",
    )


# Sections


def _how_made(facts: Facts) -> Html:
    made = facts.made
    told = [
        ("run", made.get("run_id")),
        ("configuration", made.get("config_sha")),
        ("Tilth", made.get("code_version")),
        ("made from", ", ".join(made.get("parents") or ()) or "logs"),
        ("stream", made.get("stream")),
        ("licences of the sources", _licences(made.get("licences"))),
    ]
    listed = [join(tag("dt", name), tag("dd", tag("code", str(value)))) for name, value in told if value]
    sources = [
        [one["source"], one.get("rows_in"), one.get("rows_out"), one.get("rows_quarantined")]
        for one in made["sources"]
    ]
    columns = ["source", "rows in", "rows out", "quarantined"]
    return join(
        tag("dl", *listed, class_="facts"),
        _lineage(facts),
        _table(f"{number(len(sources))} sources", columns, sources) if sources else None,
        *(tag("p", f"Note of the run: {warning}", class_="note") for warning in made["warnings"]),
    )


def _lineage(facts: Facts) -> Html | None:
    """What each table was made from, without quarantine, which is made from all of them."""
    here = facts.version.table
    known = {name: some for name, some in facts.lineage.items() if name == here or name != "quarantine"}
    return _figure(graph("What each table was made from", known, here)) if known else None


def _licences(counted: Any) -> str | None:
    if not isinstance(counted, Mapping):
        return None
    return ", ".join(f"{name} ({number(count)})" for name, count in counted.items())  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]


def _rows(facts: Facts) -> Html:
    numbers = [
        _figure(
            histogram(f"Rows by {column}", {column: Bins(found["edges"], found["counts"])}, column),
            f"From {number(found['low'])} to {number(found['high'])}, median {number(found['median'])}.",
        )
        for column, found in facts.numbers.items()
        if found
    ]
    counted = {"split": facts.splits, **facts.counts}
    plots = [
        _counted(f"Rows by {column.replace('_', ' ')}", found) for column, found in counted.items() if found
    ]
    tables = [[name, rows] for name, rows in facts.tables.items()]
    return join(
        _table("All tables of this release", ["dataset", "rows"], tables),
        tag("div", *plots, *numbers, class_="plots"),
    )


def _counted(title: str, counts: Mapping[str, int]) -> Html:
    return _figure(bars(title, list(counts.items())))


def _lengths(facts: Facts) -> Html:
    known = {column: counts for column, counts in facts.lengths.items() if sum(counts)}
    sides = {column: known.pop(column) for column in ("chosen", "rejected") if column in known}
    plots = [
        _figure(histogram(f"Length of {column}", {column: _trimmed(counts)[column]}, "characters"))
        for column, each in known.items()
        for counts in [{column: each}]
    ]
    if sides:
        plots.insert(
            0, _figure(histogram("Length of chosen and rejected replies", _trimmed(sides), "characters"))
        )
    if facts.pairwise:
        plots.append(_pairwise(facts.pairwise))
    return tag("div", *plots, class_="plots") if plots else Html()


def _trimmed(series: Mapping[str, Sequence[int]]) -> dict[str, Bins]:
    """Bins without the empty ones at both ends."""
    some = [at for counts in series.values() for at, count in enumerate(counts) if count]
    low, high = min(some), max(some) + 1
    return {name: Bins(STEPS[low : high + 1], counts[low:high]) for name, counts in series.items()}


def _pairwise(cells: Mapping[tuple[int, int], int]) -> Html:
    ends = [at for cell in cells for at in cell]
    low, high = min(ends), max(ends) + 1
    moved = {(rejected - low, chosen - low): count for (chosen, rejected), count in cells.items()}
    plot = grid(
        "Chosen against rejected length",
        STEPS[low : high + 1],
        moved,
        "rejected, characters",
        "chosen, characters",
    )
    return _figure(plot, "Above the line the chosen reply is the longer one. Darker is more pairs.")


def _labels(facts: Facts) -> Html:
    if not facts.labels:
        return Html()
    polarity = {
        **dict.fromkeys([*SAT, "thumbs_up"], "positive"),
        **dict.fromkeys([*DSAT, "thumbs_down"], "negative"),
    }
    known = {(of, label): facts.labels.get((of, label), 0) for label, of in polarity.items()}
    listed = {**facts.labels, **{key: count for key, count in known.items() if key not in facts.labels}}
    rows = [[label, of, MEANINGS.get(label, ""), count] for (of, label), count in listed.items()]
    plots = [
        _counted(
            f"{of.capitalize()} signals",
            {label: n for (side, label), n in facts.labels.items() if side == of},
        )
        for of in ("positive", "negative")
        if any(side == of for side, _ in facts.labels)
    ]
    return join(
        tag("div", *plots, class_="plots"),
        _table(
            "Labels of feedback, and what the user does", ["label", "polarity", "the user", "signals"], rows
        ),
    )


def _models(facts: Facts) -> Html:
    wrote = ["chosen", "rejected"] if facts.version.table == "pairs" else ["rows"]
    models = [[name, *counts] for name, counts in facts.models.items()]
    judges = [
        [
            one["judge"],
            one["items"],
            one["votes"],
            one["failed"],
            *(one["verdicts"].get(verdict, 0) for verdict in ("win", "loss", "tie", "inconsistent")),
            _share(None if one["conflict"] is None else 1 - one["conflict"]),
            _share(one["first_preferred"]),
        ]
        for one in facts.judges
    ]
    columns = ["judge", "items", "votes", "failed", "win", "loss", "tie", "inconsistent"]
    columns += ["same in both orders", "first preferred"]
    same = [
        (one["judge"], round(1 - one["conflict"], 3)) for one in facts.judges if one["conflict"] is not None
    ]
    elo = [[one.get(column) for column in one] for one in facts.made.get("elo") or ()]
    return join(
        _table("Who wrote the replies, in rows", ["model", *wrote], models) if models else None,
        _table("Judges", columns, judges) if judges else None,
        _figure(bars("Share of items on which a judge says the same in both orders", same)) if same else None,
        _table("Policies by their matches", list(facts.made["elo"][0]), elo) if elo else None,
    )


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _factors(facts: Facts) -> Html:
    if not facts.factors:
        return Html()
    columns = ["factor", "pairs", "concordant", "discordant", "tied", "tau"]
    known = [(str(one["factor"]), float(one["tau"])) for one in facts.factors if one.get("tau") is not None]
    told = "How far something that can be measured goes with the label: 1 where the chosen reply always has more of it."
    return join(
        tag("p", told),
        _figure(balance("Kendall's tau of factor and label", known, ("rejected has more", "chosen has more")))
        if known
        else None,
        _table(
            "Measured factors", columns, [[one.get(column) for column in columns] for one in facts.factors]
        ),
    )


def _audit(facts: Facts) -> Html:
    said = {True: "passed", False: "failed", None: "skipped"}
    rows = [
        [
            tag("span", said[check["success"]], class_=f"badge {said[check['success']]}"),
            check["severity"],
            check["column"],
            check["observed"],
            check["wanted"],
            check["why"],
        ]
        for check in facts.checks
    ]
    if not rows:
        return tag("p", "No audit is stored with this version.", class_="note")
    columns = ["result", "severity", "metric", "observed", "wanted", "why"]
    return _table("Checks of the audit before the commit, failures first", columns, rows)


def _drift(facts: Facts) -> Html:
    if facts.before is None:
        return Html()
    if not facts.drift:
        return tag("p", f"No share or mean differs from {facts.before}.")
    rows = [
        [one["metric"], _measure(one["before"]), _measure(one["now"]), _signed(one["now"] - one["before"])]
        for one in facts.drift
    ]
    more = len(rows) - _DRIFT_ROWS
    return join(
        _table(f"Against {facts.before}", ["metric", facts.before, "now", "change"], rows[:_DRIFT_ROWS]),
        tag("p", f"{more} more changed less.", class_="note") if more > 0 else None,
    )


def _measure(value: float) -> str:
    return number(round(value, 4))


def _signed(value: float) -> str:
    return f"{'+' if value > 0 else ''}{number(round(value, 4))}"


def _set_aside(facts: Facts) -> Html:
    plots = [_counted(heading, _most_first(counts)) for heading, counts in facts.set_aside.items()]
    return tag("div", *plots, class_="plots") if plots else Html()


def _most_first(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda one: (-one[1], one[0])))


def _samples(facts: Facts) -> Html:
    return join(*(_sample(at, row) for at, row in enumerate(facts.samples, 1)))


def _sample(at: int, row: Mapping[str, Any]) -> Html:
    chats = [column for column in CHATS if row.get(column)]
    sides = [column for column in ("chosen", "rejected") if column in chats]
    alone = [column for column in chats if column not in sides]
    short = {name: value for name, value in row.items() if isinstance(value, str | int | float | bool)}
    kept = [
        f"{name.replace('_', ' ')}: {_cell(value)}"
        for name, value in short.items()
        if name in ("origin", "label", "margin", "method", "split", "kind", "rating", "polarity")
    ]
    texts = [tag("p", row["text"], class_="said")] if isinstance(row.get("text"), str) else []
    return tag(
        "article",
        tag("h3", f"{at}. ", tag("code", str(row["id"])[:12])),
        tag("p", " · ".join(kept), class_="note"),
        *(_chat(column, row[column]) for column in alone),
        *texts,
        tag("div", *(_chat(column, row[column]) for column in sides), class_="sides") if sides else None,
        _criteria(row["criteria"]) if row.get("criteria") else None,
        class_="sample",
    )


def _chat(column: str, messages: Iterable[Mapping[str, str | None]]) -> Html:
    turns = [
        join(tag("p", str(one["role"]), class_="role"), tag("p", one["content"] or "", class_="said"))
        for one in messages
    ]
    return tag("section", tag("h4", column), *turns, class_=f"chat {column}", aria_label=column)


def _criteria(criteria: Iterable[Mapping[str, Any]]) -> Html:
    rows = [[f"{one['weight']:+.2f}", one["check"], one["description"]] for one in criteria]
    return _table("Criteria", ["weight", "checked by", "criterion"], rows)


# Parts


def _figure(plot: Html, caption: str | None = None) -> Html:
    """A plot under its title; the title is said once to those who see and once to those who do not."""
    title = plot.partition("<title")[2].partition(">")[2].partition("</title>")[0]
    return tag(
        "figure", tag("p", Html(title), class_="plot-title", aria_hidden="true"), plot,
        tag("figcaption", caption) if caption else None,
    )  # fmt: skip


def _table(caption: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Html:
    kinds = [_kind([row[at] for row in rows]) for at in range(len(columns))]
    head = tag(
        "tr",
        *(tag("th", name, scope="col", class_=kind) for name, kind in zip(columns, kinds, strict=True)),
    )
    body = [
        tag("tr", *(tag("td", _cell(value), class_=kind) for value, kind in zip(row, kinds, strict=True)))
        for row in rows
    ]
    table = tag("table", tag("caption", caption), tag("thead", head), tag("tbody", *body))
    return tag("div", table, class_="scroll", role="region", aria_label=caption, tabindex="0")


def _kind(values: Sequence[Any]) -> str | None:
    """How a column is set: numbers to the right, long texts with room to stand in few lines."""
    if values and all(isinstance(value, int | float | None) for value in values):
        return "number"
    texts = [value for value in values if isinstance(value, str) and not isinstance(value, Html)]
    return "text" if max(map(len, texts), default=0) > _LONG_CHARS else None


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, Html):
        return value
    if isinstance(value, bool):
        return "yes" if value else "no"
    return number(round(value, 4)) if isinstance(value, int | float) else str(value)
