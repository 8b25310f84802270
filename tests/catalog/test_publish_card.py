"""The card: what is ours is renewed, what others wrote is kept, and nothing private is told."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.bundles import LABEL, bundle, pair, planned, version
from tilth.catalog.audit import Check
from tilth.catalog.publishing import Bundle, Hub, write
from tilth.schemas import ConfigError
from tilth.schemas.licences import combine

SCALAR = st.one_of(
    st.integers(), st.booleans(), st.text(st.characters(codec="utf-8", categories=["L", "N"]), max_size=9)
)
META = st.dictionaries(st.sampled_from(["pretty_name", "viewer", "homepage", "extra_gated_prompt"]), SCALAR)
PROSE = st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=200).filter(
    lambda text: "tilth:" not in text and not text.startswith("---")
)


def readme(made: Bundle, existing: str | None = None) -> str:
    return Hub("org/garden", False, "0.1.0").card(made).readme(existing)


def front(text: str) -> dict[str, Any]:
    return yaml.safe_load(text.split("---\n")[1])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Three pairs in two splits."""
    return bundle(tmp_path_factory.mktemp("card"))


def with_plan(made: Bundle, **changes: Any) -> Bundle:
    return dataclasses.replace(made, plan=dataclasses.replace(made.plan, **changes))


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(meta=META, before=PROSE, after=PROSE)
def test_what_others_wrote_is_kept(made: Bundle, meta: dict[str, Any], before: str, after: str) -> None:
    """Front matter and prose of others survive a publication, and a second one changes nothing at all."""
    other = {"config_name": "theirs", "data_files": "theirs.csv"}
    existing = f"---\n{yaml.safe_dump({**meta, 'configs': [other], 'dataset_info': {'x': 1}})}---\n{before}"
    once = readme(made, existing)
    body = once.split("---\n", 2)[2]
    assert body.startswith(before.rstrip())
    assert {name: value for name, value in front(once).items() if name in meta} == meta
    assert other in front(once)["configs"]
    assert {"x": 1} in front(once)["dataset_info"]
    again = readme(made, once + after)
    assert again == once + after


def test_a_new_version_renews_only_our_part(made: Bundle, tmp_path: Path) -> None:
    """The section and the entries of our configs say the new version; prose around it stays where it was."""
    first = "".join([readme(made).replace("# garden\n", "# Our garden\n\nBy hand.\n"), "\nThe end.\n"])
    later = readme(bundle(tmp_path, "2026.11.22.1", 1), first)
    assert "By hand." in later
    assert later.endswith("\nThe end.\n")
    assert later.count("<!-- tilth:begin observed ") == 1
    assert LABEL not in later
    assert front(later)["configs"] == [
        {"config_name": "pairs", "data_files": [{"split": "train", "path": "pairs/train-*"}]}
    ]


def test_the_front_matter_is_what_the_hub_reads(made: Bundle) -> None:
    """`datasets` reads features, splits and sizes from it, and they are those of the files."""
    from datasets.info import DatasetInfosDict
    from huggingface_hub import DatasetCardData

    info = DatasetInfosDict.from_dataset_card_data(DatasetCardData(**front(readme(made))))["pairs"]
    splits: dict[str, Any] = dict(info.splits or {})
    assert {name: split.num_examples for name, split in splits.items()} == made.configs[0].rows
    assert info.download_size == made.configs[0].size_bytes
    assert (
        str((info.features or {})["chosen"]) == "List({'role': Value('string'), 'content': Value('string')})"
    )
    assert front(readme(made))["size_categories"] == ["n<1K"]


def test_the_card_says_how_to_load_exactly_this(made: Bundle) -> None:
    """The line with the revision, and a trainer's call on the columns that it reads."""
    text = readme(made)
    assert 'pairs = load_dataset("org/garden", "pairs", revision="observed-2026.11.21.1")' in text
    assert (
        'DPOTrainer(model, train_dataset=pairs["train"].select_columns(["prompt", "chosen", "rejected"]))'
        in text
    )


def test_the_card_tells_nothing_private(tmp_path: Path) -> None:
    """No path of a source, a model or a warehouse, and no text of a row."""
    secret = "/home/jo/secret-client"
    made = version(tmp_path, "pairs", [[pair(1, said="a very private reply")]])
    listing = tmp_path / "sources.json"
    listing.write_text(json.dumps([{"uri": f"{secret}/a.jsonl", "size_bytes": 2_500_000, "licence": None}]))
    properties = {
        "tilth.summary": json.dumps({"rows_in": 9, "rows_quarantined": 1, "sources": [{"source": secret}]}),
        "tilth.config": json.dumps({"models": {"policy": f"{secret}/llama", "judge": "org/judge@main"}}),
        "tilth.sources_uri": str(listing),
    }
    text = readme(write(planned(dataclasses.replace(made, properties=properties)), tmp_path / "out"))
    assert "secret-client" not in text
    assert str(tmp_path) not in text
    assert "private reply" not in text
    assert "1 source files (.jsonl), 2.5 MB" in text
    assert "9 rows read, 1 set aside" in text
    assert "policy: llama" in text
    assert "judge: org/judge@main" in text


def test_failed_checks_stand_in_the_card(made: Bundle) -> None:
    """What failed is told with what was observed, and that it was published nonetheless."""
    check = Check(
        "pairs",
        "chosen_longer_share",
        "expect",
        "at most 0.9",
        0.97,
        "critical",
        False,
        "a model learns length",
    )
    choice = dataclasses.replace(made.plan.choice, allow_failed=("chosen_longer_share",))
    text = readme(with_plan(made, checks={"pairs": (check,)}, choice=choice))
    assert "| pairs | chosen_longer_share | 0.97 | at most 0.9 | critical, published nonetheless |" in text


def test_rows_left_out_stand_in_the_card(tmp_path: Path) -> None:
    """How many rows with personal data are missing."""
    rows = [pair(1), pair(2, said="call jo.miller@greenhouse-seeds.com")]
    text = readme(write(planned(version(tmp_path, "pairs", [rows]), drop_pii=True), tmp_path / "out"))
    assert "1 rows of `pairs` left out because they hold personal data" in text


def test_earlier_versions_stand_in_the_card(made: Bundle) -> None:
    """The rows of the versions before, oldest first."""
    now = made.configs[0].version
    before = tuple(dataclasses.replace(now, version=f"2026.11.{day}.1", rows=day) for day in (20, 19))
    text = readme(with_plan(made, earlier={"pairs": before}))
    assert "2026.11.19.1: 19 rows; 2026.11.20.1: 20 rows; 2026.11.21.1: 3 rows" in text


@pytest.mark.parametrize(
    ("there", "own", "wanted"),
    [
        (None, "cc-by-4.0", "cc-by-4.0"),
        ("unknown", "mit", "mit"),
        ("cc-by-nc-4.0", "mit", "cc-by-nc-4.0"),
        ("mit", "cc-by-nc-4.0", "cc-by-nc-4.0"),
        (["mit", "apache-2.0"], "cc-by-4.0", "cc-by-4.0"),
        ("cc-by-sa-4.0", "odbl", "other"),
        ("llama3", "mit", "other"),
        (None, "undeclared", "unknown"),
    ],
)
def test_a_repository_never_gets_a_freer_licence(made: Bundle, there: Any, own: str, wanted: str) -> None:
    """The stricter of ours and the one that stands there; what cannot be combined is the Hub's `other`."""
    existing = f"---\n{yaml.safe_dump({'license': there} if there else {'x': 1})}---\n"
    text = readme(with_plan(made, terms=combine([own]), licences={own: 1}), existing)
    assert front(text)["license"] == wanted


def test_configs_of_others_are_not_taken(made: Bundle) -> None:
    """A config that another family or a person has made is refused, and the way out is named."""
    others = readme(with_plan(made, name="judged"))
    with pytest.raises(ConfigError, match="--qualified"):
        readme(made, others)
    assert readme(with_plan(made, name="judged"), others) == others


def test_broken_front_matter_is_refused(made: Bundle) -> None:
    """A README that the Hub could not read either is not overwritten."""
    with pytest.raises(ConfigError, match="front matter"):
        readme(made, "---\na: [\n---\n")
