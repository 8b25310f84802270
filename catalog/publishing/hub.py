"""A publication on the Hugging Face Hub: one commit and one tag, whatever is interrupted, repeated or lost."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from tilth.catalog.publishing.card import Card
from tilth.catalog.publishing.record import Published
from tilth.catalog.publishing.shards import Bundle, Config
from tilth.schemas import BadInput, ConfigError, TilthError

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

MAX_FILES: Final = 25_000  # of one commit, by the Hub's own limit
PAUSES_S: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)  # between attempts
# Lost races (409 the tag is there or another is at it, 412 the branch has moved) are worth another look, as is a server
# in trouble. Every attempt begins by looking at what is there.
_AGAIN: Final = frozenset({408, 409, 412, 425, 429, 500, 502, 503, 504})
_REPO: Final = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_NO_RIGHTS: Final = (401, 403, 404)

Report = Callable[[int, int], None]
"""Told the bytes that are sent so far, and those of all files."""


def silent(done: int, total: int) -> None:
    """Tells nobody."""


@dataclass(frozen=True, slots=True)
class Hub:
    """A dataset repository on a Hub.

    Args:
        repo: as `organisation/name`. private: whether a new repository is; one that is there must be as asked.
        code_version: of Tilth. api: the client; by default the Hub's own, with the token of its store.
        pauses_s: how long to wait before each new attempt.
    """

    repo: str
    private: bool
    code_version: str
    api: HfApi | None = None
    pauses_s: Sequence[float] = PAUSES_S

    def __post_init__(self) -> None:
        if not _REPO.fullmatch(self.repo):
            raise BadInput("a repository of the Hub", found=self.repo, wanted="ORGANISATION/NAME")

    def card(self, bundle: Bundle) -> Card:
        """The card of this bundle here."""
        return Card(
            bundle, self.code_version, self.repo.partition("/")[2], lambda config: self._load(bundle, config)
        )

    def _load(self, bundle: Bundle, config: Config) -> str:
        return f'load_dataset("{self.repo}", "{config.name}", revision="{bundle.plan.tag}")'

    def publish(self, bundle: Bundle, report: Report = silent) -> Published:
        """Makes `bundle` the newest commit of the repository, tagged by its version, all or nothing.

        The same bundle again is found and not sent again; content that is stored already is not sent again either.
        A tag is never moved. What others have put in the repository is kept.

        Raises `ConfigError` when the version is published with other rows, when its configs are somebody else's or the
        repository is public and should not be, `TilthError` when the Hub does not let us or cannot be reached.
        """
        if len(bundle.shards) >= MAX_FILES:
            do = "publish fewer --tables at once"
            raise BadInput(
                "the files of one commit", found=len(bundle.shards), wanted=f"< {MAX_FILES}", do=do
            )
        # The base of all that the client raises, whatever HTTP library it is built on.
        from huggingface_hub.errors import HTTPError  # pyright: ignore[reportPrivateImportUsage]

        for pause in [*self.pauses_s, None]:
            try:
                return _Attempt(self, self.api or _client(self.code_version), bundle, report).run()
            except (HTTPError, _UploadFailed) as error:
                problem = _problem(self.repo, error)
                if problem.final or pause is None:
                    # Not chained: what the client says can hold signed addresses.
                    raise problem.error from None
                time.sleep(max(pause, problem.wait_s))
        raise AssertionError("the last attempt returns or raises")


class _UploadFailed(Exception):
    """What the client makes of a failed PUT, and xet of everything. A new attempt gets a new address to send to."""


@dataclass(frozen=True, slots=True)
class _Attempt:
    """One way through the protocol, from a look at what is there; it leaves nothing that the next one trips over."""

    hub: Hub
    api: HfApi
    bundle: Bundle
    report: Report

    @property
    def title(self) -> str:
        """By this a commit is known again whose response was lost."""
        return f"Publish {self.bundle.plan.title} ({self.bundle.digest})"

    def run(self) -> Published:
        """Looks, commits where nobody has, tags."""
        repo = self.hub.repo
        self.api.create_repo(repo, repo_type="dataset", private=self.hub.private, exist_ok=True)
        if self.hub.private and not self.api.dataset_info(repo).private:
            do = "make the repository private, or name another"
            raise ConfigError(f"repository {repo}", found="a public one", wanted="a private one", do=do)
        refs = self.api.list_repo_refs(repo, repo_type="dataset")
        tagged = next((ref.target_commit for ref in refs.tags if ref.name == self.bundle.plan.tag), None)
        if tagged:
            self._compare(tagged)
            return self._published("already published", tagged)
        heads = [ref.target_commit for ref in refs.branches if ref.name == "main"]
        made = self._made_before() if heads else None
        commit = made or self._commit(heads[0] if heads else None)
        self.api.create_tag(
            repo, tag=self.bundle.plan.tag, revision=commit, repo_type="dataset", exist_ok=False
        )
        return self._published("published", commit)

    def _compare(self, tagged: str) -> None:
        found = self.api.list_repo_commits(self.hub.repo, repo_type="dataset", revision=tagged)[0].title
        if found != self.title:
            tag = self.bundle.plan.tag
            do = f"publish a new version; or delete the tag {tag} by hand, if nobody uses it"
            raise ConfigError(f"{tag} of {self.hub.repo}", found=found, wanted=self.title, do=do)

    def _made_before(self) -> str | None:
        """The commit of this very publication, made by an attempt that never heard of it, or died before the tag."""
        commits = self.api.list_repo_commits(self.hub.repo, repo_type="dataset", revision="main")
        return next((commit.commit_id for commit in commits if commit.title == self.title), None)

    def _commit(self, head: str | None) -> str:
        repo = self.hub.repo
        there = self.api.list_repo_files(repo, repo_type="dataset", revision=head) if head else []
        readme = self.hub.card(self.bundle).readme(self._readme(head) if "README.md" in there else None)
        files = list(self._sent())
        operations = [*files, *self._stale(there), self._add("README.md", readme.encode())]
        made = self._create_commit(operations, head)
        self._verify(made)
        return made

    def _create_commit(
        self, operations: Sequence[CommitOperationAdd | CommitOperationDelete], head: str | None
    ) -> str:
        repo = self.hub.repo
        try:
            return self.api.create_commit(
                repo,
                operations,
                commit_message=self.title,
                repo_type="dataset",
                revision="main",
                parent_commit=head,
            ).oid
        except ValueError as error:  # what the client makes of the Hub's opinion of the front matter
            do = "mend the README of the repository"
            raise ConfigError(f"the front matter of {repo}'s README.md", found=error, do=do) from None

    def _sent(self) -> Iterator[CommitOperationAdd]:
        """Sends what the Hub does not have, file by file, so that an attempt goes on where the last one stopped."""
        total = sum(shard.size_bytes for shard in self.bundle.shards)
        done = 0
        for shard in self.bundle.shards:
            self.report(done, total)
            one = self._add(shard.path, shard.local)
            try:
                self.api.preupload_lfs_files(self.hub.repo, [one], repo_type="dataset", revision="main")
            except RuntimeError as error:
                cause = type(error.__cause__ or error).__name__
                raise _UploadFailed(f"{shard.path} ({cause})") from error
            done += shard.size_bytes
            yield one
        self.report(done, total)

    def _add(self, path: str, content: Path | bytes) -> CommitOperationAdd:
        from huggingface_hub import CommitOperationAdd

        return CommitOperationAdd(path, content)

    def _stale(self, there: Sequence[str]) -> Iterator[CommitOperationDelete]:
        """The shards of our configs that this publication does not have."""
        from huggingface_hub import CommitOperationDelete

        own = {shard.path for shard in self.bundle.shards}
        for path in there:
            if path not in own and is_shard(path, self.bundle):
                yield CommitOperationDelete(path)

    def _readme(self, head: str | None) -> str:
        with tempfile.TemporaryDirectory() as folder:
            path = self.api.hf_hub_download(
                self.hub.repo, "README.md", repo_type="dataset", revision=head, local_dir=folder
            )
            return Path(path).read_text(encoding="utf-8")

    def _verify(self, commit: str) -> None:
        """A `.gitignore` of the repository makes the Hub leave files out without a word."""
        there = set(self.api.list_repo_files(self.hub.repo, repo_type="dataset", revision=commit))
        if missing := [shard.path for shard in self.bundle.shards if shard.path not in there]:
            do = "look at the repository's .gitignore; the commit is not tagged"
            found = f"{len(missing)} files missing, as {missing[0]}"
            raise TilthError(f"the commit {commit[:8]} of {self.hub.repo}", found=found, do=do)

    def _published(self, status: str, commit: str) -> Published:
        return Published.of(self.bundle, status, self.hub.repo, reference=self.bundle.plan.tag, commit=commit)


_SHARD: Final = re.compile(r"[\w.]+-\d{5}-of-\d{5}\.parquet")


def is_shard(path: str, bundle: Bundle) -> bool:
    """Whether a path is that of a shard of one of the bundle's configs, of whatever version."""
    config, _, name = path.rpartition("/")
    return any(config == one.name for one in bundle.configs) and bool(_SHARD.fullmatch(name))


def _client(code_version: str) -> HfApi:
    from huggingface_hub import HfApi

    return HfApi(library_name="tilth", library_version=code_version)


@dataclass(frozen=True, slots=True)
class _Problem:
    """What the Hub's answer, or its silence, means."""

    error: TilthError
    final: bool
    wait_s: float = 0.0


def _problem(repo: str, error: Exception) -> _Problem:
    from huggingface_hub.errors import HfHubHTTPError

    what = f"the Hub, for {repo}"
    if isinstance(error, _UploadFailed):
        do = "run again; what has arrived is not sent twice"
        return _Problem(TilthError(what, found=f"an upload that broke: {error}", do=do), final=False)
    if not isinstance(error, HfHubHTTPError):
        do = "look at the network and run again; nothing is sent twice"
        return _Problem(TilthError(what, found=f"no answer ({type(error).__name__})", do=do), final=False)
    status, path = error.response.status_code, urlsplit(str(error.response.url)).path
    found = f"{status} to {error.response.request.method} {path}"
    if status in _NO_RIGHTS:
        do = "log in with `hf auth login`, with a token that may write there"
        return _Problem(TilthError(what, found=found, do=do), final=True)
    wait = error.response.headers.get("Retry-After", "")
    told = TilthError(what, found=found, do="run again; nothing is sent twice")
    if status not in _AGAIN:
        return _Problem(TilthError(what, found=f"{found}: {error.server_message}"), final=True)
    return _Problem(told, final=False, wait_s=min(float(wait), 60.0) if wait.isdigit() else 0.0)
