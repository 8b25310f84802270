"""Publishing to a Hub that answers: what is refused, what is kept, what an error tells."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hub.bundles import bundle
from hub.server import TOKEN, Fault, LoopbackHub
from tilth.catalog.publishing import Bundle, Hub, hub
from tilth.schemas import BadInput, ConfigError, TilthError

REPO = "org/garden"
# The client's own way of sending a file.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    """A Hub without xet."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    with LoopbackHub() as running:
        yield running


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Three pairs in two splits."""
    return bundle(tmp_path_factory.mktemp("made"))


def publish(server: LoopbackHub, made: Bundle, token: str = TOKEN, **options: Any) -> Any:
    from huggingface_hub import HfApi

    given: dict[str, Any] = {"private": False, "code_version": "0.1.0", "pauses_s": (), **options}
    return Hub(REPO, api=HfApi(endpoint=server.url, token=token), **given).publish(made)


def test_a_publication_is_one_commit_and_one_tag(server: LoopbackHub, made: Bundle) -> None:
    """Files, card and tag of the version; the same again contacts the Hub and sends nothing."""
    told = publish(server, made)
    repo = server.repos[REPO]
    assert (told.status, told.reference, told.commit) == ("published", "observed-2026.11.21.1", repo.main)
    assert repo.published == [f"Publish observed@2026.11.21.1 ({made.digest})"]
    assert repo.tags == {"observed-2026.11.21.1": repo.main}
    assert {shard.path: shard.local.read_bytes() for shard in made.shards} == {
        path: server.content(REPO, path) for path in repo.commits[repo.main].tree if path.endswith(".parquet")
    }
    before = len(server.requests)
    assert publish(server, made).status == "already published"
    assert [request for request in server.requests[before:] if "repos/create" not in request] == [
        f"GET /api/datasets/{REPO}/refs",
        f"GET /api/datasets/{REPO}/commits/{repo.main}",
    ]


def test_a_tag_is_never_moved(server: LoopbackHub, made: Bundle, tmp_path: Path) -> None:
    """Other rows under a version that is published are refused, and the way out is named."""
    publish(server, made)
    before = dict(server.repos[REPO].tags)
    with pytest.raises(ConfigError, match="publish a new version"):
        publish(server, bundle(tmp_path, said="six centimetres"))
    assert server.repos[REPO].tags == before
    assert len(server.repos[REPO].published) == 1


def test_a_new_version_removes_what_it_does_not_have(
    server: LoopbackHub, made: Bundle, tmp_path: Path
) -> None:
    """Shards of the old version go, in the same commit; files of others stay; the old tag still has them."""
    publish(server, made)
    kept = {"pairs/notes.txt": b"by hand", "data/own-00000-of-00001.parquet": b"PAR1"}
    server.commit(REPO, "by hand", kept)
    publish(server, bundle(tmp_path, "2026.11.22.1", 2))
    repo = server.repos[REPO]
    there = set(repo.commits[repo.main].tree)
    assert there == {".gitattributes", "README.md", "pairs/train-00000-of-00001.parquet", *kept}
    old = repo.commits[repo.tags["observed-2026.11.21.1"]].tree
    assert "pairs/test-00000-of-00001.parquet" in old
    assert len(repo.published) == 3


def test_private_is_not_published_in_public(server: LoopbackHub, made: Bundle) -> None:
    """What is for one's own people does not go to a repository that is public already; a new one is private."""
    publish(server, made, private=True)
    assert server.repos[REPO].private
    server.repos[REPO].private = False
    later = dataclasses.replace(made, plan=dataclasses.replace(made.plan, label="2026.11.22.1"))
    with pytest.raises(ConfigError, match="a public one"):
        publish(server, later, private=True)
    assert len(server.repos[REPO].published) == 1


def test_families_share_a_repository_by_qualified_names(
    server: LoopbackHub, made: Bundle, tmp_path: Path
) -> None:
    """Another family's config of the same name is refused; with qualified names both stand side by side."""
    publish(server, made)
    plan = made.plan
    with pytest.raises(ConfigError, match="--qualified"):
        publish(server, dataclasses.replace(made, plan=dataclasses.replace(plan, name="judged")))
    qualified = bundle(tmp_path, "2026.11.22.1", qualified=True)
    publish(server, dataclasses.replace(qualified, plan=dataclasses.replace(qualified.plan, name="judged")))
    repo = server.repos[REPO]
    assert {path.partition("/")[0] for path in repo.commits[repo.main].tree} >= {"pairs", "observed.pairs"}
    assert set(repo.tags) == {"observed-2026.11.21.1", "judged-2026.11.22.1"}


def test_ignored_files_are_not_taken_for_published(server: LoopbackHub, made: Bundle) -> None:
    """A .gitignore makes the Hub leave files out of a commit; such a commit gets no tag."""
    publish(server, made)
    server.commit(REPO, "ignore", {".gitignore": b"pairs/test-00000-of-00001.parquet"})
    repo = server.repos[REPO]
    later = dataclasses.replace(made, plan=dataclasses.replace(made.plan, label="2026.11.22.1"))
    del repo.commits[repo.main].tree["pairs/test-00000-of-00001.parquet"]
    with pytest.raises(TilthError, match="1 files missing"):
        publish(server, later)
    assert set(repo.tags) == {"observed-2026.11.21.1"}


def test_front_matter_that_the_hub_refuses_is_named(
    server: LoopbackHub, made: Bundle, tmp_path: Path
) -> None:
    """What a person has written there and the Hub does not take is said; nothing is committed."""
    publish(server, made)
    readme = server.content(REPO, "README.md").replace(b"---\n", b"---\ntask_ids: wrong\n", 1)
    server.commit(REPO, "by hand", {"README.md": readme})
    with pytest.raises(ConfigError, match="the Hub does not like it"):
        publish(server, bundle(tmp_path, "2026.11.22.1"))
    assert len(server.repos[REPO].published) == 2


def test_no_rights_says_to_log_in(server: LoopbackHub, made: Bundle) -> None:
    """A wrong token is not tried again, and never stands in the error."""
    with pytest.raises(TilthError, match="hf auth login") as refused:
        publish(server, made, token="hf_very_secret", pauses_s=(60.0,))
    assert "hf_very_secret" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_a_hub_in_trouble_is_named(server: LoopbackHub, made: Bundle) -> None:
    """When every attempt fails, the error says at what, and that running again sends nothing twice."""
    server.faults += [Fault(1, "500", matches="POST .*/commit/") for _ in range(3)]
    with pytest.raises(TilthError, match=r"500 to POST /api/datasets/org/garden/commit/main") as told:
        publish(server, made, pauses_s=(0.0, 0.0))
    assert "run again" in str(told.value)
    assert sum("/commit/" in request for request in server.requests) == 3
    assert publish(server, made).status == "published"


def test_the_bar_is_told_of_bytes(server: LoopbackHub, made: Bundle) -> None:
    """Progress counts the bytes of all files, and ends with all of them."""
    from huggingface_hub import HfApi

    seen: list[tuple[int, int]] = []
    target = Hub(REPO, False, "0.1.0", HfApi(endpoint=server.url, token=TOKEN))
    target.publish(made, lambda done, total: seen.append((done, total)))
    total = sum(shard.size_bytes for shard in made.shards)
    assert seen == [(0, total), (made.shards[0].size_bytes, total), (total, total)]


def test_more_files_than_a_commit_holds_are_refused(
    server: LoopbackHub, made: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is sent, with advice."""
    monkeypatch.setattr(hub, "MAX_FILES", 2)
    with pytest.raises(BadInput, match="fewer --tables"):
        publish(server, made)
    assert server.requests == []


@pytest.mark.parametrize("repo", ["garden", "org/garden/pairs", "org/", "https://huggingface.co/org/garden"])
def test_a_repository_has_an_owner_and_a_name(repo: str) -> None:
    """Anything but ORGANISATION/NAME is refused at once."""
    with pytest.raises(BadInput, match="ORGANISATION/NAME"):
        Hub(repo, False, "0.1.0")
