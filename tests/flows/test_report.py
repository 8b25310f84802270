"""`tilth report`: one file that loads nothing, says what a query says, and shows text only when it is asked to."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Final

import polars as pl
import pyarrow.parquet as pq
import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from tilth.catalog import Release, open_catalog, query
from tilth.flows.markup import tag
from tilth.flows.plots_svg import Bins, balance, bars, graph, grid, histogram
from tilth.flows.report import report
from tilth.flows.report_cli import report as command
from tilth.flows.report_facts import COUNTED, MEASURED, Facts, gather
from tilth.flows.report_page import MEANINGS, page
from tilth.schemas import TABLES, BadInput, NotFound, conform
from tilth.schemas.ids import content_id

HOSTILE: Final = (
    '</p><script src="https://evil.example/x.js">alert(1)</script><img src=x onerror="alert(2)">&amp;\u2028'
)
VOID: Final = {"meta", "br", "hr"}
Rows = dict[str, list[dict[str, Any]]]


def said(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}


def rows() -> Rows:
    """30 pairs whose text, model and origin are hostile, feedback, and a judge who contradicts itself once."""
    pairs = [
        {
            "id": content_id("pair", str(n)),
            "prompt": [said("user", f"{HOSTILE} secret-{n}")],
            "chosen": [said("assistant", "g" * (10 * n + 1))],
            "rejected": [said("assistant", HOSTILE)],
            "origin": HOSTILE if n % 3 == 0 else "reaction",
            "method": "rules",
            "margin": 0.5 + n / 7,
            "models": {"chosen": HOSTILE, "rejected": "small"},
            "split": "test" if n % 5 == 0 else "train",
        }
        for n in range(30)
    ]
    feedback = [
        {
            "id": content_id("feedback", str(n)),
            "polarity": "negative" if n % 2 else "positive",
            "labels": ["style", "ignored"] if n % 2 else ["praise"],
            "strength": 0.5,
            "method": "rules",
            "split": "train",
        }
        for n in range(9)
    ]
    judgments = [
        {
            "id": content_id("judgment", str(n), str(first)),
            "item_id": str(n),
            "kind": "pairwise",
            "judge": "wise",
            "order": [first, 1 - first],
            "sample_index": 0,
            "verdict": "loss" if n == first == 0 else "win",
            "response_ids": ["a", "b"],
            "text": "secret-judgment",
        }
        for n in range(4)
        for first in (0, 1)
    ]
    return {"pairs": pairs, "feedback": feedback, "judgments": judgments, "quarantine": []}


def publish(workspace: str, run_id: str, made: Rows, properties: Mapping[str, str]) -> None:
    with open_catalog(workspace) as catalog:
        files: dict[str, list[str]] = {}
        for table, listed in made.items():
            staging = Path(catalog.staging("observed", table, run_id))
            staging.mkdir(parents=True)
            frame = pl.DataFrame(listed, infer_schema_length=None) if listed else pl.DataFrame()
            pq.write_table(conform(frame, table).to_arrow().cast(TABLES[table]), staging / "0.parquet")
            files[table] = [str(staging / "0.parquet")] if listed else []
        catalog.publish(Release("observed", run_id, files, properties))


def audit_at(folder: Path, name: str, share: float) -> str:
    """A stored audit with one passed and one failed check of pairs."""
    check = {"table": "pairs", "expectation": "e", "wanted": "at most 0.5", "why": f"because {HOSTILE}"}
    checks = [
        {**check, "column": "fine_share", "observed": 0.1, "severity": "critical", "success": True},
        {
            **check,
            "column": "chosen_longer_share",
            "observed": share,
            "severity": "warning",
            "success": False,
        },
    ]
    metrics = {"pairs": {"rows": 30, "chosen_longer_share": share, "same_share": 0.25, "odd_max": share}}
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"checks": checks, "metrics": metrics}))
    return str(path)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two versions of hostile pairs, with all that a run stores."""
    home = tmp_path_factory.mktemp("report")
    summary = {
        "sources": [
            {"source": f"/home/someone/{HOSTILE}.jsonl", "rows_in": 5, "rows_out": 4, "rows_quarantined": 1}
        ],
        "quarantined": {"empty": 1},
        "dropped": {"tie": 2},
        "warnings": [HOSTILE],
    }
    stored = {
        "tilth.summary": json.dumps(summary),
        "tilth.config": json.dumps({"ingest": {"user_salt": "never-told"}}),
        "tilth.config_sha": "abc123",
        "tilth.licences": json.dumps({"MIT": 2, "undeclared": 1}),
        "tilth.lineage": json.dumps({"feedback": ["sources"], "pairs": ["feedback", "sources"], "quarantine": []}),
        "tilth.factors": json.dumps(
            [{"factor": "words", "pairs": 3, "concordant": 2, "discordant": 1, "tied": 0, "tau": 0.333}]
        ),
    }  # fmt: skip
    for run, share in (("run-1", 0.5), ("run-2", 0.75)):
        uri = audit_at(home, run, share)
        publish(str(home), run, rows(), {**stored, "tilth.audit_uri": uri})
    return str(home)


def html_of(workspace: str, name: str, folder: Path, samples: int = 0) -> str:
    told = report(workspace, name, str(folder / "report.html"), samples)
    written = Path(told["output"]).read_text()
    assert told["size_bytes"] == len(written.encode())
    return written


class Outline(HTMLParser):
    """The elements of a page: whether each is closed where it should be, attributes, and texts."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))


def outline(html: str) -> Outline:
    found = Outline()
    found.feed(html)
    found.close()
    assert found.open == []
    return found


def holds_nothing_foreign(html: str) -> None:
    """No script, no reference but to places of the page itself, no handler of events, nothing that CSS would load."""
    found = outline(html)
    assert {tag for tag, _ in found.elements} & {
        "script",
        "img",
        "link",
        "iframe",
        "object",
        "embed",
        "form",
    } == set()
    for _, attributes in found.elements:
        assert not [
            key for key in attributes if key.startswith("on") or key in ("src", "style", "action", "srcset")
        ]
        assert str(attributes.get("href", "#")).startswith("#")
    ids = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = {str(attributes["href"])[1:] for _, attributes in found.elements if "href" in attributes}
    assert links <= set(ids)
    style = "".join(text for tag, text in found.texts if tag == "style")
    assert style
    assert not re.search(r"url\(|@import|https?:|//", style)


@pytest.mark.parametrize("table", ["pairs", "feedback", "quarantine"])
@pytest.mark.parametrize("samples", [0, 3])
def test_the_file_is_alone(workspace: str, tmp_path: Path, table: str, samples: int) -> None:
    """Of every table, with rows or without, with samples or without: well formed, nothing loads, nothing runs."""
    html = html_of(workspace, f"observed.{table}", tmp_path, samples)
    holds_nothing_foreign(html)
    policies = [
        attributes["content"] for _, attributes in outline(html).elements if "http-equiv" in attributes
    ]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'"]


def test_text_of_rows_is_only_in_samples(workspace: str, tmp_path: Path) -> None:
    """Without --samples no word of a prompt is there, nor the configuration or a place on the disk; with it, as many
    rows as were asked for, escaped, and always the same ones."""
    without = html_of(workspace, "observed.pairs", tmp_path)
    for private in ("secret-", "ggggggg", "never-told", "/home/someone", workspace):
        assert private not in without
    shown = html_of(workspace, "observed.pairs", tmp_path, 4)
    assert len(re.findall(r"secret-\d+", shown)) == 4
    assert html_of(workspace, "observed.pairs", tmp_path, 4).count("secret-") == 4
    texts = [text for tag, text in outline(shown).texts if tag == "p"]
    assert texts.count(HOSTILE) == 4  # the rejected replies
    assert re.findall(r"secret-\d+", shown) == re.findall(
        r"secret-\d+", html_of(workspace, "observed.pairs", tmp_path, 4)
    )


def test_counts_are_those_of_a_query(workspace: str) -> None:
    """Rows, splits, origins, models, labels and bins of lengths are what SQL counts."""
    with open_catalog(workspace) as catalog:
        facts = gather(catalog, workspace, "observed.pairs")

        def counted(sql: str) -> dict[Any, int]:
            return {row["k"]: row["n"] for row in query(catalog, sql).to_pylist()}

        for column in ("origin", "method"):
            assert facts.counts[column] == counted(
                f"select {column} k, count(*) n from observed.pairs group by 1"
            )
        assert facts.splits == counted("select split k, count(*) n from observed.pairs group by 1")
        labels = counted("select unnest(labels) k, count(*) n from observed.feedback group by 1")
        assert {label: count for (_, label), count in facts.labels.items()} == labels
        chars = "select length(chosen[1].content) k, count(*) n from observed.pairs group by 1"
        lengths = counted(chars)
    assert facts.version.rows == sum(facts.splits.values()) == 30
    assert facts.tables == {
        "observed.pairs": 30,
        "observed.feedback": 9,
        "observed.judgments": 8,
        "observed.quarantine": 0,
    }
    assert facts.models == {HOSTILE: [30, 0], "small": [0, 30]}
    assert facts.lengths["chosen"][:9] == [
        sum(n for chars, n in lengths.items() if low <= chars < high)
        for low, high in (
            (0, 1),
            (1, 2),
            (2, 5),
            (5, 10),
            (10, 20),
            (20, 50),
            (50, 100),
            (100, 200),
            (200, 500),
        )
    ]
    assert sum(facts.pairwise.values()) == 30
    margin = facts.numbers["margin"]
    assert (sum(margin["counts"]), margin["low"], margin["high"]) == (30, 0.5, 0.5 + 29 / 7)


def test_a_report_tells_of_checks_and_drift(workspace: str, tmp_path: Path) -> None:
    """The failed check comes first, with its reason; a share that moved since the version before is told of, one that
    did not is not; the first version has nothing to be compared with."""
    html = html_of(workspace, "observed.pairs", tmp_path)
    cells = [text for tag, text in outline(html).texts if tag in ("td", "span")]
    assert cells.index("failed") < cells.index("passed")
    with open_catalog(workspace) as catalog:
        newest, first = (gather(catalog, workspace, one) for one in _names(workspace))
    assert [(one["metric"], one["before"], one["now"]) for one in newest.drift] == [
        ("chosen_longer_share", 0.5, 0.75)
    ]
    assert newest.before == first.version.version
    assert (first.before, first.drift) == (None, [])
    assert "Changes since the version before" not in page(first)


def _names(workspace: str) -> list[str]:
    with open_catalog(workspace) as catalog:
        return [f"{one.name}@{one.version}" for one in catalog.versions("observed.pairs")]


def test_every_plot_says_what_it_shows(workspace: str, tmp_path: Path) -> None:
    """Each plot is an image with a title and a description of its own, and each table has a caption and heads."""
    found = outline(html_of(workspace, "observed.pairs", tmp_path))
    plots = [attributes for tag, attributes in found.elements if tag == "svg"]
    ids = {attributes.get("id"): tag for tag, attributes in found.elements}
    assert len(plots) >= 9
    for one in plots:
        assert one["role"] == "img"
        title, described = str(one["aria-labelledby"]).split()
        assert (ids[title], ids[described]) == ("title", "desc")
    names = [tag for tag, _ in found.elements]
    assert names.count("table") == names.count("caption") == names.count("thead") >= 5
    assert all(attributes.get("scope") == "col" for tag, attributes in found.elements if tag == "th")


TEXT: Final = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.just(HOSTILE)
COUNTS: Final = st.lists(st.tuples(TEXT, st.integers(0, 10**7)), min_size=1, max_size=6)


@given(COUNTS, st.lists(st.integers(0, 10**6), min_size=3, max_size=3))
@settings(max_examples=25, deadline=None)
def test_plots_of_any_counts_are_whole(counts: list[tuple[str, int]], bins: list[int]) -> None:
    """Whatever the names and counts: closed elements, coordinates that are numbers, nothing from a name as markup."""
    series = {name: Bins((0.0, 1.0, 10.0, 100.0), bins) for name, _ in counts[:2]}
    names = [name for name, _ in counts]
    drawn = [
        bars("Bars", counts),
        balance("Balance", [(name, (value % 3) - 1.0) for name, value in counts], ("less", "more")),
        histogram("Histogram", series, "characters"),
        grid("Grid", (0, 1, 2, 5), {(0, 1): bins[0], (2, 2): bins[1]}, "x", "y"),
        graph("Graph", {name: names[:at] for at, name in enumerate(names)}, names[-1]),
    ]
    for one in drawn:
        found = outline(one)
        assert {tag for tag, _ in found.elements} <= {
            "svg",
            "title",
            "desc",
            "g",
            "rect",
            "text",
            "line",
            "path",
        }
        assert not re.search(r'="[^"]*\b(nan|inf)\b', re.sub(r"<(title|desc|text).*?</\1>", "", one))
        for tag_, attributes in found.elements:
            if tag_ == "rect":
                assert float(str(attributes["width"])) >= 0
                assert float(str(attributes["height"])) >= 0


def test_graphs_with_a_circle_end() -> None:
    """Tables that are made from each other are drawn, too."""
    outline(graph("Graph", {"a": ["b"], "b": ["a"], "c": ["c"]}, "a"))


def test_text_becomes_no_markup() -> None:
    """Children and attributes are escaped unless they are markup already."""
    assert tag("p", HOSTILE, title=HOSTILE).count("<") == 2
    assert tag("p", tag("b", "&")) == "<p><b>&amp;</b></p>"


def test_judges_are_told_of(workspace: str, tmp_path: Path) -> None:
    """A judge's votes, and the share of items on which it says the same in both orders, as `tilth judge report` has
    them; a hostile name stays a name."""
    with open_catalog(workspace) as catalog:
        facts = gather(catalog, workspace, "observed.pairs")
    (judge,) = facts.judges
    assert (judge["judge"], judge["items"], judge["votes"], judge["failed"]) == ("wise", 4, 8, 0)
    assert judge["verdicts"] == {"win": 3, "loss": 0, "tie": 0, "inconsistent": 1, "failed": 0}
    assert judge["conflict"] == pytest.approx(0.25)
    assert "75.0%" in html_of(workspace, "observed.pairs", tmp_path)
    holds_nothing_foreign(page(replace(facts, judges=[{**judge, "judge": HOSTILE}])))


def test_facts_fit_the_tables() -> None:
    """Columns that are counted or measured are columns of their tables."""
    for columns in (COUNTED, MEASURED):
        assert all(column in TABLES[table].names for table, some in columns.items() for column in some)
    assert Facts.__dataclass_fields__["samples"].default_factory is tuple


def test_labels_mean_what_the_reference_says() -> None:
    """The wording is that of docs/reference/feedback.md; reactions have one of their own."""
    text = (Path(__file__).resolve().parents[2] / "docs" / "reference" / "feedback.md").read_text()
    documented = dict(re.findall(r"^\| `(\w+)` \| (.+?) \|$", text, re.MULTILINE))
    assert {label: MEANINGS[label] for label in documented} == documented
    assert set(MEANINGS) - set(documented) == {"thumbs_up", "thumbs_down"}


@pytest.mark.slow
def test_the_command(workspace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says where the report is, in JSON too; another file than HTML and an unknown dataset are refused."""
    app = typer.Typer()
    app.command()(command)
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["observed.pairs", "-w", workspace])
    (file,) = tmp_path.iterdir()
    assert file.name.startswith("observed.pairs-")
    assert file.name in done.stdout
    told = json.loads(
        CliRunner().invoke(app, ["observed.pairs", "-w", workspace, "-o", "x.html", "--json"]).stdout
    )
    assert (told["output"], told["rows"], told["samples"]) == ("x.html", 30, 0)
    with pytest.raises(BadInput, match=r"\.html"):
        report(workspace, "observed.pairs", "report.pdf")
    with pytest.raises(NotFound):
        report(workspace, "observed.pear", None)
