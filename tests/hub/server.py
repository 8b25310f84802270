"""`LoopbackHub`: dataset repositories behind the HTTP calls that the Hub's client makes, and a plan of what fails.

Standard library only. It keeps what the real one keeps: commits with parents, branches and tags that do not move, large
files by their SHA-256; stale parents are refused with 412, a second tag with 409. With `cas`, large files go to a
folder through xet (its real client, offline), and cannot be read back: their content is known by hashes of xet's own.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "hf_loopback"


class Entry(NamedTuple):
    """A file of a commit."""

    oid: str  # SHA-256 of a large file, else git's SHA-1
    size: int
    large: bool


@dataclass
class Commit:
    title: str
    parent: str | None
    tree: dict[str, Entry]


@dataclass
class Repo:
    private: bool
    commits: dict[str, Commit] = field(default_factory=dict)
    main: str = ""
    tags: dict[str, str] = field(default_factory=dict)

    def add(self, title: str, tree: dict[str, Entry]) -> str:
        """A commit on main."""
        known = json.dumps([title, self.main, sorted(tree.items()), len(self.commits)])
        oid = hashlib.sha1(known.encode()).hexdigest()
        self.commits[oid] = Commit(title, self.main or None, tree)
        self.main = oid
        return oid

    def find(self, revision: str) -> str | None:
        """The commit that a branch, a tag or a hash names."""
        known = {"main": self.main, **self.tags}
        return known.get(revision) or (revision if revision in self.commits else None)

    def history(self, oid: str | None) -> Iterator[tuple[str, Commit]]:
        while oid:
            yield oid, self.commits[oid]
            oid = self.commits[oid].parent

    @property
    def published(self) -> list[str]:
        """The titles of all commits but the first, oldest first."""
        return [commit.title for _, commit in self.history(self.main)][-2::-1]


class Answer(NamedTuple):
    status: int
    body: bytes
    headers: Mapping[str, str]


@dataclass
class Fault:
    """Fails one request.

    Args:
        number: which one of those that `matches`, from 1. kind: `500`, `429`, `reset`, or `hold`, which answers when
            `released`. after: the request is acted upon first, so that only the answer is lost.
    """

    number: int
    kind: str
    after: bool = False
    matches: str = ""  # a regular expression over "METHOD /path"; all, if empty
    seen: int = 0
    struck: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)

    def strikes(self, request: str) -> bool:
        if not re.search(self.matches, request):
            return False
        self.seen += 1
        return self.seen == self.number


class LoopbackHub(ThreadingHTTPServer):
    """The server; a context manager. `url` is its endpoint."""

    daemon_threads = True

    def __init__(self, cas: str | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repos: dict[str, Repo] = {}
        self.objects: dict[str, bytes] = {}  # by their oid
        self.requests: list[str] = []
        self.faults: list[Fault] = []
        self.cas = cas
        self.lock = threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_port}"
        self._thread = threading.Thread(
            target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        )

    def __enter__(self) -> LoopbackHub:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        for fault in self.faults:
            fault.released.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no error here."""

    def commit(self, repo: str, title: str, files: Mapping[str, bytes]) -> str:
        """Somebody else's commit."""
        with self.lock:
            made = self.repos[repo]
            tree = {**made.commits[made.main].tree, **{path: self.keep(data) for path, data in files.items()}}
            return made.add(title, tree)

    def keep(self, data: bytes) -> Entry:
        """Stores a small file."""
        oid = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        self.objects[oid] = data
        return Entry(oid, len(data), large=False)

    def content(self, repo: str, path: str, revision: str = "main") -> bytes:
        """A file of a repository."""
        made = self.repos[repo]
        return self.objects[made.commits[made.find(revision) or ""].tree[path].oid]


class _Refused(Exception):
    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.answer = _json({"error": message}, status, {"X-Error-Code": code, "X-Error-Message": message})


def _json(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    return Answer(status, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})


@dataclass(frozen=True)
class _Call:
    """A request, taken apart."""

    hub: LoopbackHub
    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Message  # forgiving about upper and lower case
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.body)

    def answer(self) -> Answer:
        for pattern, route in _ROUTES:
            if found := re.fullmatch(pattern, f"{self.method} {self.path}"):
                signed = self.method == "PUT"  # the address of an upload is its permission
                if not signed and self.headers.get("Authorization") != f"Bearer {TOKEN}":
                    raise _Refused(401, "", "Invalid username or password.")
                return route(self, *(unquote(part or "") for part in found.groups()))
        raise _Refused(404, "EntryNotFound", f"no route {self.method} {self.path}")

    def repo(self, name: str) -> Repo:
        if name not in self.hub.repos:
            raise _Refused(404, "RepoNotFound", "Repository not found")
        return self.hub.repos[name]

    def revision(self, name: str, revision: str) -> tuple[Repo, str, Commit]:
        repo = self.repo(name)
        oid = repo.find(revision or "main")
        if oid is None:
            raise _Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return repo, oid, repo.commits[oid]


def _create(call: _Call) -> Answer:
    said = call.json
    name = f"{said['organization']}/{said['name']}"
    url = {"url": f"{call.hub.url}/datasets/{name}", "name": name}
    with call.hub.lock:
        if name in call.hub.repos:
            return _json({"error": "You already created this dataset repo", **url}, 409)
        made = call.hub.repos[name] = Repo(said.get("visibility") == "private")
        made.add("initial commit", {".gitattributes": call.hub.keep(b"*.parquet filter=lfs\n")})
    return _json(url)


def _info(call: _Call, name: str, revision: str) -> Answer:
    repo, oid, commit = call.revision(name, revision)
    files = [{"rfilename": path} for path in sorted(commit.tree)]
    about = {
        "_id": "0" * 24,
        "id": name,
        "author": name.partition("/")[0],
        "tags": [],
        "downloads": 0,
        "likes": 0,
    }
    return _json(
        {**about, "sha": oid, "private": repo.private, "gated": False, "disabled": False, "siblings": files}
    )


def _refs(call: _Call, name: str) -> Answer:
    repo = call.repo(name)
    branches = [{"name": "main", "ref": "refs/heads/main", "targetCommit": repo.main}]
    tags = [{"name": tag, "ref": f"refs/tags/{tag}", "targetCommit": oid} for tag, oid in repo.tags.items()]
    return _json({"branches": branches, "tags": tags, "converts": []})


def _commits(call: _Call, name: str, revision: str) -> Answer:
    repo, oid, _ = call.revision(name, revision)
    date = "2026-11-21T00:00:00.000Z"
    return _json(
        [
            {"id": known, "title": commit.title, "message": "", "authors": [], "date": date}
            for known, commit in repo.history(oid)
        ]
    )


def _shown(path: str, entry: Entry) -> dict[str, Any]:
    large = {"lfs": {"oid": entry.oid, "size": entry.size, "pointerSize": 134}} if entry.large else {}
    return {"type": "file", "path": path, "size": entry.size, "oid": entry.oid[:40], **large}


def _tree(call: _Call, name: str, revision: str, folder: str) -> Answer:
    _, _, commit = call.revision(name, revision)
    below = {
        path: one
        for path, one in sorted(commit.tree.items())
        if path.startswith(f"{folder}/" if folder else "")
    }
    if folder and not below:
        raise _Refused(404, "EntryNotFound", f"{folder} does not exist")
    deep = call.query.get("recursive", ["false"])[0].lower() in ("true", "1")
    start = len(folder) + 1 if folder else 0
    folders = {path[: end.start() + start] for path in below for end in re.finditer("/", path[start:])}
    shown = [{"type": "directory", "path": path, "size": 0, "oid": "0" * 40} for path in sorted(folders)]
    shown += [_shown(path, one) for path, one in below.items()]
    return _json([one for one in shown if deep or "/" not in str(one["path"])[start:]])


def _paths(call: _Call, name: str, revision: str) -> Answer:
    _, _, commit = call.revision(name, revision)
    typed = call.headers.get("Content-Type", "").startswith("application/json")
    paths = call.json["paths"] if typed else parse_qs(call.body.decode()).get("paths", [])
    return _json([_shown(path, commit.tree[path]) for path in paths if path in commit.tree])


def _preupload(call: _Call, name: str, revision: str) -> Answer:
    _, _, commit = call.revision(name, revision)
    ignored = _ignored(call.hub, commit)
    found: list[dict[str, Any]] = []
    for file in call.json["files"]:
        path = file["path"]
        mode = "lfs" if path.endswith(".parquet") else "regular"
        stored = {"oid": commit.tree[path].oid} if path in commit.tree else {}
        found.append({"path": path, "uploadMode": mode, "shouldIgnore": path in ignored, **stored})
    return _json({"files": found})


def _ignored(hub: LoopbackHub, commit: Commit) -> list[str]:
    entry = commit.tree.get(".gitignore")
    return hub.objects[entry.oid].decode().split() if entry else []


def _validate(call: _Call) -> Answer:
    content = call.json["content"]
    fine = content.startswith("---\n") and "\ntask_ids: wrong\n" not in content
    return _json(
        {"errors": [] if fine else [{"message": "the Hub does not like it"}], "warnings": []},
        200 if fine else 400,
    )


def _batch(call: _Call, name: str) -> Answer:
    call.repo(name)
    transfer = "xet" if call.hub.cas and "xet" in call.json.get("transfers", []) else "basic"
    objects: list[dict[str, Any]] = []
    for one in call.json["objects"]:
        href = f"{call.hub.url}/lfs/{one['oid']}"
        actions = {"upload": {"href": href}, "verify": {"href": f"{href}/verify"}}
        missing = one["oid"] not in call.hub.objects and transfer == "basic"
        objects.append({"oid": one["oid"], "size": one["size"], **({"actions": actions} if missing else {})})
    return _json({"transfer": transfer, "objects": objects})


def _put(call: _Call, oid: str) -> Answer:
    if hashlib.sha256(call.body).hexdigest() != oid:
        raise _Refused(400, "", "the content does not have this hash")
    call.hub.objects[oid] = call.body
    return Answer(200, b"", {"ETag": f'"{oid}"'})


def _verify(call: _Call, oid: str) -> Answer:
    return _json({}, 200 if oid in call.hub.objects else 404)


def _xet(call: _Call, name: str, revision: str) -> Answer:
    call.revision(name, revision)
    until = int(time.time()) + 3600
    said = {
        "X-Xet-Cas-Url": call.hub.cas or "",
        "X-Xet-Access-Token": "t",
        "X-Xet-Token-Expiration": str(until),
    }
    return _json({"casUrl": call.hub.cas, "accessToken": "t", "exp": until}, headers=said)


def _commit(call: _Call, name: str, revision: str) -> Answer:
    lines = [json.loads(line) for line in call.body.splitlines() if line]
    header = next(line["value"] for line in lines if line["key"] == "header")
    with call.hub.lock:
        repo, head, commit = call.revision(name, revision)
        if not head.startswith(header.get("parentCommit") or ""):
            raise _Refused(412, "", "A commit has happened since. Please refresh and try again.")
        tree = dict(commit.tree)
        for line in lines:
            _apply(call.hub, tree, line["key"], line["value"])
        made = repo.add(header["summary"], tree)
    return _json(
        {"success": True, "commitOid": made, "commitUrl": f"{call.hub.url}/datasets/{name}/commit/{made}"}
    )


def _apply(hub: LoopbackHub, tree: dict[str, Entry], kind: str, value: dict[str, Any]) -> None:
    if kind == "file":
        tree[value["path"]] = hub.keep(base64.b64decode(value["content"]))
    elif kind == "lfsFile":
        if value["oid"] not in hub.objects and not hub.cas:
            raise _Refused(400, "", f"LFS pointer pointed to a file that does not exist: {value['path']}")
        tree[value["path"]] = Entry(value["oid"], value["size"], large=True)
    elif kind == "deletedFile" and tree.pop(value["path"], None) is None:
        raise _Refused(404, "EntryNotFound", f"A file with this name doesn't exist: {value['path']}")


def _tag(call: _Call, name: str, revision: str) -> Answer:
    with call.hub.lock:
        repo, oid, _ = call.revision(name, revision)
        if call.json["tag"] in repo.tags:
            raise _Refused(409, "", "Tag reference exists already")
        repo.tags[call.json["tag"]] = oid
    return _json({})


def _resolve(call: _Call, name: str, revision: str, path: str) -> Answer:
    _, oid, commit = call.revision(name, revision)
    entry = commit.tree.get(path)
    if entry is None:
        raise _Refused(404, "EntryNotFound", "Entry not found")
    linked = {"X-Linked-Etag": f'"{entry.oid}"', "X-Linked-Size": str(entry.size)} if entry.large else {}
    headers = {"ETag": f'"{entry.oid}"', "X-Repo-Commit": oid, "Accept-Ranges": "bytes", **linked}
    data = call.hub.objects[entry.oid]
    asked = re.fullmatch(r"bytes=(\d+)-(\d*)", call.headers.get("Range", ""))
    if not asked:
        return Answer(200, data, headers)
    first, last = int(asked[1]), min(int(asked[2] or len(data) - 1), len(data) - 1)
    return Answer(
        206, data[first : last + 1], {**headers, "Content-Range": f"bytes {first}-{last}/{len(data)}"}
    )


_API = r"/api/datasets/([^/]+/[^/]+)"
_ROUTES: list[tuple[str, Callable[..., Answer]]] = [
    (r"POST /api/repos/create", _create),
    (r"POST /api/validate-yaml", _validate),
    (rf"GET {_API}/refs", _refs),
    (rf"GET {_API}/commits/([^/]+)", _commits),
    (rf"GET {_API}/tree/([^/]+)(?:/(.+))?", _tree),
    (rf"POST {_API}/paths-info/([^/]+)", _paths),
    (rf"POST {_API}/preupload/([^/]+)", _preupload),
    (rf"GET {_API}/xet-write-token/([^/]+)", _xet),
    (rf"POST {_API}/commit/([^/]+)", _commit),
    (rf"POST {_API}/tag/([^/]+)", _tag),
    (rf"GET {_API}(?:/revision/([^/]+))?", _info),
    (r"POST /datasets/([^/]+/[^/]+)\.git/info/lfs/objects/batch", _batch),
    (r"PUT /lfs/([0-9a-f]{64})", _put),
    (r"POST /lfs/([0-9a-f]{64})/verify", _verify),
    (r"(?:GET|HEAD) /datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", _resolve),
]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: LoopbackHub  # pyright: ignore[reportIncompatibleVariableOverride]

    def _serve(self) -> None:
        split = urlsplit(self.path)
        call = _Call(self.server, self.command, split.path, parse_qs(split.query), self.headers, self._body())
        request = f"{call.method} {call.path}"
        with self.server.lock:
            self.server.requests.append(request)
            fault = next((fault for fault in self.server.faults if fault.strikes(request)), None)
        if fault is None:
            self._send(self._answer(call))
            return
        answer = self._answer(call) if fault.after else None
        fault.struck.set()
        if fault.kind == "hold":
            fault.released.wait(30)
            self._send(answer or self._answer(call))
        elif fault.kind == "reset":
            self._reset()
        else:
            self._send(_json({"error": "a planned fault"}, int(fault.kind)))

    do_GET = do_POST = do_PUT = do_HEAD = _serve

    def _answer(self, call: _Call) -> Answer:
        try:
            return call.answer()
        except _Refused as refused:
            return refused.answer

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        pieces: list[bytes] = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(pieces)

    def _send(self, answer: Answer) -> None:
        # A client that was killed while it was held does not hear the answer.
        with contextlib.suppress(OSError):
            self.send_response(answer.status)
            for name, value in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body)

    def _reset(self) -> None:
        """Closes the connection so that the other side is told that it broke."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def log_message(self, format: str, *args: Any) -> None:
        """Nobody reads it."""
