"""`tilth review` as a user meets it: a file out, a person's verdicts in, a next version of the pairs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner

from tilth.catalog import Release, open_catalog
from tilth.flows.review import Export, Import, export, take_in
from tilth.flows.review_cli import review_app
from tilth.schemas import BadInput, ConfigError, NotFound, TilthError
from tilth.schemas.ids import content_id
from tilth.transforms.judging.items import items
from tilth.transforms.judging.review import swapped
from tilth.transforms.parts import write_part

pytestmark = pytest.mark.slow

Row = dict[str, Any]
COUNT = 4
FORMULA = '=HYPERLINK("x")'


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def ids_of(n: int) -> Row:
    return {
        "prompt_id": content_id("prompt", str(n)),
        "conversation_id": content_id("conversation", str(n)),
        "method": "model",
        "split": "train",
    }


def replies_of(n: int) -> list[str]:
    """The reply that a model gave with the user's wishes, and the logged one."""
    return [f"{FORMULA} better {n}", f"worse {n}"]


def rows_of(n: int) -> dict[str, list[Row]]:
    """All that a release holds of one conversation: two judges' orders agree on what is chosen."""
    asked, better, worse = turn("user", f"ask {n}"), *(turn("assistant", text) for text in replies_of(n))
    own = ids_of(n)
    sides = [content_id("response", str(n), place) for place in "ab"]
    item = (
        items(
            pl.DataFrame(
                [
                    {
                        **own,
                        "prompt": [asked],
                        "replies": [[better], [worse]],
                        "response_ids": sides,
                        "checklist": ["be right"],
                    }
                ]
            )
        )
        .get_column("item_id")
        .item()
    )
    signal, pair_id = content_id("feedback", str(n)), content_id("pair", str(n))
    judged = [
        {**own, "id": content_id("judgment", str(n), str(first)), "item_id": item, "kind": "pairwise",
         "judge": "judge", "model": "m", "prompt_version": "p@1", "protocol": "0" * 32, "order": [first, 1 - first],
         "sample_index": 0, "verdict": "win", "scores": [9.0, 2.0 + n], "text": "because", "response_ids": sides}
        for first in (0, 1)
    ]  # fmt: skip
    return {
        "conversations": [
            {**own, "id": own["conversation_id"], "source": "log", "record_id": str(n), "record_rows": 1,
             "messages": [asked, worse, turn("user", "no, that is wrong")], "owned_from": 0, "reactions": []},
        ],
        "feedback": [
            {**own, "id": signal, "message_index": 2, "target_index": 1, "polarity": "negative",
             "labels": ["factual_error"], "strength": 0.9, "dialogue_state": "feedback", "on_refusal": False,
             "method_version": "1",
             "evidence": [{"label": "factual_error", "text": "that is wrong", "start": 4, "end": 17}]},
        ],
        "pairs": [
            {**own, "id": pair_id, "prompt": [asked], "chosen": [better], "rejected": [worse], "origin": "expert",
             "chosen_score": 9.0, "rejected_score": 2.0 + n, "margin": 7.0 - n, "verdict": "win",
             "user_preferences": ["be right"], "feedback_ids": [signal], "judgment_ids": [one["id"] for one in judged],
             "models": {"chosen": "m", "rejected": None}},
        ],
        "rationales": [
            {**own, "id": content_id("rationale", str(n)), "pair_id": pair_id, "kind": "user_complaint",
             "text": "no, that is wrong", "evidence": [{"side": "rejected", "quote": "that is wrong"}],
             "feedback_ids": [signal]},
        ],
        "preferences": [
            {**own, "id": content_id("preference", str(n)), "target_index": 1, "preferences": ["be right"],
             "feedback_ids": [signal], "model": "m", "prompt_version": "p@1"},
        ],
        "responses": [
            {**own, "id": side, "prompt": [asked], "completion": [said], "role": role, "sample_index": 0, "model": "m",
             "guided": role == "expert"}
            for side, said, role in zip(sides, (better, worse), ("expert", "logged"), strict=True)
        ],
        "judgments": judged,
    }  # fmt: skip


@pytest.fixture
def workspace(tmp_path: Path) -> str:
    """A workspace with one release of a family that judges had a part in."""
    place = str(tmp_path / "work")
    with open_catalog(place) as catalog:
        files: dict[str, list[str]] = {"quarantine": []}
        for n in range(COUNT):
            for table, rows in rows_of(n).items():
                if table == "conversations":
                    rows = [
                        {k: v for k, v in row.items() if k not in ("prompt_id", "conversation_id", "method")}
                        for row in rows
                    ]
                if table == "feedback":
                    rows = [
                        {**{k: v for k, v in row.items() if k != "prompt_id"}, "method": "rules"}
                        for row in rows
                    ]
                if table == "rationales":
                    rows = [{k: v for k, v in row.items() if k != "prompt_id"} for row in rows]
                uri = f"{catalog.staging('wildfeedback', table, 'run')}/{n:06d}.parquet"
                files.setdefault(table, []).append(write_part(pl.DataFrame(rows), uri, table).uri)
        catalog.publish(Release("wildfeedback", "run", files, {"tilth.summary": "{}"}))
    return place


def item_numbers() -> dict[str, int]:
    return {rows_of(n)["judgments"][0]["item_id"]: n for n in range(COUNT)}


def fill(path: Path, prefers: Callable[[int], str]) -> Path:
    """A person fills in what a JSONL export holds: `better`, `worse`, tie or skip for each item."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        said = prefers(item_numbers()[row["item_id"]])
        sides = {row["reply_a"]: "a", row["reply_b"]: "b"}
        words = {text.split()[-2]: sides[text] for text in sides}
        row["verdict"] = words.get(said, said)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def exported(workspace: str, tmp_path: Path, prefers: Callable[[int], str]) -> Path:
    path = tmp_path / "review.jsonl"
    export(workspace, Export("wildfeedback.pairs", str(path), count=COUNT))
    return fill(path, prefers)


def test_an_export_holds_the_share_that_was_asked_for(workspace: str, tmp_path: Path) -> None:
    """A share is rounded up; the narrower margin comes first where judges are equally sure."""
    path = tmp_path / "review.jsonl"
    told = export(workspace, Export("wildfeedback.pairs", str(path), share=0.3))
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert (told["items"], told["exported"], len(rows)) == (4, 2, 2)
    assert [item_numbers()[row["item_id"]] for row in rows] == [3, 2]
    assert rows[0]["checklist"] == "be right"


def test_only_what_became_pairs_is_exported_on_request(workspace: str, tmp_path: Path) -> None:
    """With `decided`, items in which the orders disagree are left out; they are first without it."""
    with open_catalog(workspace) as catalog:
        files = {one.table: list(one.files) for one in catalog.release(catalog.resolve("wildfeedback.pairs"))}
        rows = catalog.frame("wildfeedback.judgments").collect()
        unsure = rows.get_column("item_id").sort()[0]
        turned = (pl.col("item_id") == unsure) & (pl.col("order").list.first() == 1)
        verdict = pl.when(turned).then(pl.lit("loss")).otherwise("verdict").alias("verdict")
        scores = pl.when(turned).then(pl.col("scores").list.reverse()).otherwise("scores").alias("scores")
        uri = f"{catalog.staging('wildfeedback', 'judgments', 'later')}/0.parquet"
        files["judgments"] = [write_part(rows.with_columns(verdict, scores), uri, "judgments").uri]
        catalog.publish(Release("wildfeedback", "later", files, {"tilth.summary": "{}"}))
    paths = [tmp_path / "all.jsonl", tmp_path / "decided.jsonl"]
    told = [
        export(workspace, Export("wildfeedback.pairs", str(path), count=COUNT, decided=decided))
        for path, decided in zip(paths, (False, True), strict=True)
    ]
    ids = [[json.loads(line)["item_id"] for line in path.read_text().splitlines()] for path in paths]
    assert [one["items"] for one in told] == [COUNT, COUNT - 1]
    assert ids[0][0] == unsure
    assert ids[1] == ids[0][1:]


@pytest.mark.parametrize("name", ["review.jsonl", "review.csv"])
def test_what_was_exported_can_be_imported(workspace: str, tmp_path: Path, name: str) -> None:
    """An untouched export comes back whole: every item there, nothing answered."""
    path = str(tmp_path / name)
    export(workspace, Export("wildfeedback.pairs", path, count=COUNT))
    told = take_in(workspace, Import([path], "wildfeedback.pairs", str(tmp_path / "gold.parquet")))
    assert (told["rows"], told["unanswered"], told["items"]) == (4, 4, 0)


def test_a_spreadsheet_computes_nothing(workspace: str, tmp_path: Path) -> None:
    """Texts that begin like a formula begin with an apostrophe in CSV, and are as they were in JSONL."""
    for name in ("review.csv", "review.jsonl"):
        export(workspace, Export("wildfeedback.pairs", str(tmp_path / name), count=COUNT))
    cells = pl.read_csv(tmp_path / "review.csv", infer_schema=False)
    texts = pl.concat([cells.get_column("reply_a"), cells.get_column("reply_b")]).to_list()
    assert sum(text.startswith("'=") for text in texts) == COUNT
    assert not any(text.startswith("=") for text in texts)
    lines = (tmp_path / "review.jsonl").read_text()
    assert "'=" not in lines


def test_an_export_never_replaces_a_file(workspace: str, tmp_path: Path) -> None:
    """People write into such files: a second export to one of them is refused."""
    path = exported(workspace, tmp_path, lambda _: "better")
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="already"):
        export(workspace, Export("wildfeedback.pairs", str(path)))
    assert path.read_bytes() == before


def test_formats_and_names_agree(workspace: str, tmp_path: Path) -> None:
    """A file whose name says another format than was asked for is refused, as is an unknown one."""
    for name, form in (("x.csv", "jsonl"), ("x.parquet", ""), ("x.jsonl", "xml")):
        with pytest.raises(ConfigError):
            export(workspace, Export("wildfeedback.pairs", str(tmp_path / name), form=form))


def test_argilla_records_go_out_and_come_back(workspace: str, tmp_path: Path) -> None:
    """Records have Argilla's fields; responses of several users become verdicts, each by its user."""
    path = tmp_path / "records.json"
    export(workspace, Export("wildfeedback.pairs", str(path), count=COUNT, show_judges=True))
    records = json.loads(path.read_text())
    assert set(records[0]) == {"id", "fields", "metadata", "suggestions", "responses", "vectors"}
    assert set(records[0]["fields"]) == {"conversation", "checklist", "reply_a", "reply_b"}
    assert records[0]["suggestions"]["note"]["value"].count("0") >= 2
    for record in records[:2]:
        record["responses"] = {
            "verdict": [{"value": v, "user_id": u} for u, v in (("x", "a"), ("y", "a"), ("z", "b"))]
        }
    records[2]["responses"] = {"verdict": [{"value": None, "user_id": "x"}]}
    path.write_text(json.dumps(records))
    gold = tmp_path / "gold.parquet"
    told = take_in(workspace, Import([str(path)], "wildfeedback.pairs", str(gold)))
    assert (told["annotators"], told["items"], told["settled"], told["unanswered"]) == (3, 2, 2, 1)
    wanted = {r["id"]: "loss" if swapped(r["id"]) else "win" for r in records[:2]}
    assert dict(pl.read_parquet(gold).select("item_id", "gold").iter_rows()) == wanted


def test_a_broken_file_quotes_nothing(workspace: str, tmp_path: Path) -> None:
    """A file that is no export is an error that names the file and none of its text."""
    path = tmp_path / "records.json"
    path.write_text('[{"do-not-show": 1}]')
    with pytest.raises(BadInput, match=r"records\.json") as raised:
        take_in(workspace, Import([str(path)], "wildfeedback.pairs"))
    assert "do-not-show" not in str(raised.value)
    with pytest.raises(NotFound):
        take_in(workspace, Import([str(tmp_path / "none.csv")], "wildfeedback.pairs"))


def test_looking_publishes_nothing(workspace: str, tmp_path: Path) -> None:
    """Without `commit`, what verdicts would do is counted, and the catalog stays as it was."""
    path = exported(workspace, tmp_path, lambda n: ("better", "worse", "tie", "skip")[n])
    told = take_in(workspace, Import([str(path)], "wildfeedback.pairs", apply=True))
    down = {"judges_prefer_rejected": 1, "judges_tied": 1}
    assert told["pairs"] == {"status": "forecast", "rows_in": 4, "rows_out": 2, "turned_down": down}
    with open_catalog(workspace) as catalog:
        assert len(catalog.versions("wildfeedback.pairs")) == 1


def test_verdicts_that_agree_make_no_version(workspace: str, tmp_path: Path) -> None:
    """When people turn nothing down, there is nothing to publish."""
    path = exported(workspace, tmp_path, lambda _: "better")
    told = take_in(workspace, Import([str(path)], "wildfeedback.pairs", commit=True))
    assert (told["pairs"]["status"], told["pairs"]["turned_down"]) == ("unchanged", {})
    with open_catalog(workspace) as catalog:
        assert len(catalog.versions("wildfeedback.pairs")) == 1


@pytest.mark.slow
def test_the_next_version_is_without_pairs_that_people_turned_down(workspace: str, tmp_path: Path) -> None:
    """Pairs and their rationales go to quarantine, all else is as it was; the same file again changes nothing."""
    path = exported(workspace, tmp_path, lambda n: ("better", "worse", "tie", "skip")[n])
    with open_catalog(workspace) as catalog:
        before = {name: catalog.resolve(name) for name in catalog.datasets()}
        pairs = catalog.frame("wildfeedback.pairs").collect()
    asked = Import([str(path)], f"wildfeedback.pairs@{before['wildfeedback.pairs'].version}", commit=True)
    told = take_in(workspace, asked)["pairs"]
    again = take_in(workspace, asked)["pairs"]
    assert (told["status"], again) == ("committed", {"status": "unchanged", "version": told["version"]})
    with open_catalog(workspace) as catalog:
        kept = catalog.frame("wildfeedback.pairs").collect()
        assert kept.equals(
            pairs.filter(pl.col("conversation_id").is_in([ids_of(n)["conversation_id"] for n in (0, 3)]))
        )
        assert catalog.resolve("wildfeedback.rationales").rows == 2
        quarantine = catalog.frame("wildfeedback.quarantine").collect()
        reasons = sorted(quarantine.get_column("reason"))
        assert reasons == ["judges_prefer_rejected", "judges_prefer_rejected", "judges_tied", "judges_tied"]
        assert quarantine.filter(pl.col("key").is_in(kept.get_column("id").implode())).is_empty()
        for name in ("wildfeedback.judgments", "wildfeedback.responses", "wildfeedback.conversations"):
            assert catalog.resolve(name).files == before[name].files
        parents = json.loads(catalog.resolve("wildfeedback.pairs").properties["tilth.parents"])
        assert parents == [f"wildfeedback.pairs@{before['wildfeedback.pairs'].version}"]


@pytest.mark.slow
def test_a_version_that_is_not_the_newest_is_not_built_upon(workspace: str, tmp_path: Path) -> None:
    """Verdicts for an older version publish nothing: what came after it would be lost."""
    path = exported(workspace, tmp_path, lambda n: ("better", "worse", "tie", "skip")[n])
    with open_catalog(workspace) as catalog:
        old = catalog.resolve("wildfeedback.pairs")
        files = {one.table: list(one.files) for one in catalog.release(old)}
        catalog.publish(Release("wildfeedback", "later", files, {"tilth.summary": "{}"}))
    with pytest.raises(TilthError, match="newest"):
        take_in(workspace, Import([str(path)], f"wildfeedback.pairs@{old.version}", commit=True))


def test_a_family_without_judges_is_told_so(tmp_path: Path) -> None:
    """A dataset that no judge had a part in has nothing to review, and the error says what has."""
    with open_catalog(str(tmp_path / "work")) as catalog:
        uri = f"{catalog.staging('observed', 'pairs', 'run')}/0.parquet"
        shard = write_part(pl.DataFrame(rows_of(0)["pairs"]), uri, "pairs")
        catalog.publish(Release("observed", "run", {"pairs": [shard.uri]}))
    with pytest.raises(NotFound, match="without judges"):
        export(str(tmp_path / "work"), Export("observed.pairs", str(tmp_path / "x.csv")))


def test_commands_print_json(workspace: str, tmp_path: Path) -> None:
    """Both commands take what the help shows, and `--json` prints one value."""
    run, path = CliRunner(), tmp_path / "review.csv"
    out = run.invoke(
        review_app, ["export", "wildfeedback.pairs", "-o", str(path), "-n", "2", "-w", workspace, "--json"]
    )
    assert json.loads(out.stdout)["exported"] == 2, out.output
    back = run.invoke(
        review_app, ["import", str(path), "-d", "wildfeedback.pairs", "--apply", "-w", workspace, "--json"]
    )
    assert json.loads(back.stdout)["pairs"]["turned_down"] == {}, back.output
    shown = run.invoke(review_app, ["import", str(path), "-d", "wildfeedback.pairs", "-w", workspace])
    assert "unanswered" in shown.output
