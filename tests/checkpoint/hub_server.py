"""A small Hub on the loopback interface: as much of its protocol as the client of `huggingface_hub` uses, with faults.

Repositories live in memory. Files ending in .safetensors or .bin are announced as the Hub announces files in Git LFS,
with size and sha256; the others with git's hash.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

TOKEN = "hf_letmein"  # opens what is gated or private
API = re.compile(r"/api/models/(?P<repository>[^/]+/[^/]+)(?:/(?P<call>revision|tree)/(?P<revision>[^/]+))?$")
FILE = re.compile(r"/(?P<repository>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<name>.+)$")

UPLOAD = re.compile(r"/api/models/(?P<repository>[^/]+/[^/]+)/(?P<call>preupload|commit)/main$")


class HubServer(ThreadingHTTPServer):
    """Serves from a thread while the `with` block runs.

    gated, private: names of repositories that need the token.
    requests: what was asked for about repositories and their files, "METHOD path range".
    down: answer everything with 503. refuses_tokens: answer whoever shows a wrong token with 401.
    cuts: after how many bytes the connection breaks, for each GET of a file of that name in turn; then no more.
    altered: what is sent instead of a file's content.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.commits: dict[str, dict[str, dict[str, bytes]]] = {}  # repository → commit id → file name → content
        self.branches: dict[tuple[str, str], str] = {}
        self.gated: set[str] = set()
        self.private: set[str] = set()
        self.requests: list[str] = []
        self.down = self.refuses_tokens = False
        self.cuts: dict[str, Iterator[int]] = {}
        self.altered: dict[str, bytes] = {}

    def __enter__(self) -> HubServer:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self.stop()

    def stop(self) -> None:
        """Answer nothing any more; new connections are refused."""
        self.shutdown()
        self.server_close()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def push(self, repository: str, files: dict[str, bytes], branch: str = "main") -> str:
        """A commit with these files and no others; returns its id."""
        commits = self.commits.setdefault(repository, {})
        commit = hashlib.sha1(repr((len(commits), sorted(files.items()))).encode()).hexdigest()
        commits[commit] = files
        self.branches[repository, branch] = commit
        return commit

    def fetched(self) -> list[str]:
        """Names of the files that were sent, in order."""
        return [FILE.match(r.split()[1])["name"] for r in self.requests if r.startswith("GET") and "/resolve/" in r]


def in_lfs(name: str) -> bool:
    return name.endswith((".safetensors", ".bin"))


def git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubServer

    def log_message(self, *_) -> None:
        """Nothing on stderr, where the tests look for the client's progress bars."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        asked = API.match(path) or FILE.match(path)
        if asked is None:
            return self._refuse(404, "", "no such address")
        self.server.requests.append(f"{self.command} {path} {self.headers.get('Range', '')}".strip())
        if self.server.down:
            return self._refuse(503, "", "down for maintenance")
        fields = {key: unquote(value) for key, value in asked.groupdict().items() if value}
        repository, revision = fields["repository"], fields.get("revision", "main")
        commits = self.server.commits.get(repository)
        welcome = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if self.server.refuses_tokens and "Authorization" in self.headers and not welcome:
            return self._refuse(401, "", "Invalid credentials in Authorization header")
        if commits is None or (repository in self.server.private and not welcome):
            return self._refuse(404 if welcome else 401, "RepoNotFound", "Repository not found")
        commit = self.server.branches.get((repository, revision), revision)
        if commit not in commits:
            return self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        if "name" not in fields:
            call = self._tree if fields.get("call") == "tree" else self._info
            return self._send(json.dumps(call(repository, commit, commits[commit])).encode())
        if repository in self.server.gated and not welcome:
            return self._refuse(401, "GatedRepo", f"Access to model {repository} is restricted")
        if fields["name"] not in commits[commit]:
            return self._refuse(404, "EntryNotFound", "Entry not found")
        return self._file(fields["name"], commits[commit][fields["name"]], commit)

    def do_POST(self) -> None:
        """What an upload asks for: the repository, how each file is to be sent, and the commit with all of them."""
        path = urlsplit(self.path).path
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append(f"POST {path}")
        if self.server.down:
            return self._refuse(503, "", "down for maintenance")
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._refuse(401, "", "Invalid username or password.")
        if path == "/api/repos/create":
            values = json.loads(body)
            name = f"{values['organization']}/{values['name']}"
            answer = json.dumps({"url": f"{self.server.endpoint}/{name}", "name": name}).encode()
            if name in self.server.commits:
                return self._send(answer, status=409)
            self.server.push(name, {})
            if values.get("private") or values.get("visibility") == "private":  # older and newer clients
                self.server.private.add(name)
            return self._send(answer)
        call = UPLOAD.match(path)
        name = call["repository"]
        if name not in self.server.commits:
            return self._refuse(404, "RepoNotFound", "Repository not found")
        if call["call"] == "preupload":
            names = [file["path"] for file in json.loads(body)["files"]]
            files = [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]
            return self._send(json.dumps({"files": files}).encode())
        files = {}
        for line in body.decode().splitlines():
            entry = json.loads(line)
            if entry["key"] == "file":
                files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
        commit = self.server.push(name, files)
        url = f"{self.server.endpoint}/{name}/commit/{commit}"
        return self._send(json.dumps({"commitUrl": url, "commitOid": commit}).encode())

    def _info(self, repository: str, commit: str, files: dict[str, bytes]) -> dict:
        """The answer about a revision: its commit and its files."""
        siblings = []
        for name, content in files.items():
            sibling = {"rfilename": name, "size": len(content), "blobId": git_hash(content)}
            if in_lfs(name):
                sha256 = hashlib.sha256(content).hexdigest()
                sibling["lfs"] = {"sha256": sha256, "size": len(content), "pointerSize": 134}
            siblings.append(sibling)
        return {"id": repository, "modelId": repository, "sha": commit, "siblings": siblings}

    def _tree(self, repository: str, commit: str, files: dict[str, bytes]) -> list:
        """The same as a listing, which `snapshot_download` asks for."""
        entries = []
        for file in self._info(repository, commit, files)["siblings"]:
            entry = {"type": "file", "path": file["rfilename"], "size": file["size"], "oid": file["blobId"]}
            if lfs := file.get("lfs"):
                entry["lfs"] = {"oid": lfs["sha256"], "size": lfs["size"], "pointerSize": lfs["pointerSize"]}
            entries.append(entry)
        return entries

    def _file(self, name: str, content: bytes, commit: str) -> None:
        """A file's content, the part of it that was asked for, or what a fault makes of it."""
        headers = {
            "X-Repo-Commit": commit,
            "ETag": f'"{git_hash(content)}"',
            "Accept-Ranges": "bytes",
            "Content-Disposition": f'inline; filename="{name}";',
        }
        if in_lfs(name):
            headers["X-Linked-Etag"] = f'"{hashlib.sha256(content).hexdigest()}"'
            headers["X-Linked-Size"] = str(len(content))
        if self.command == "HEAD":
            return self._send(content, headers)
        content = self.server.altered.get(name, content)
        status = 200
        if asked := re.match(r"bytes=(\d+)-", self.headers.get("Range", "")):
            start, status = int(asked[1]), 206
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            content = content[start:]
        return self._send(content, headers, status, next(self.server.cuts.get(name, iter(())), None))

    def _refuse(self, status: int, code: str, message: str) -> None:
        self._send(b"", {"X-Error-Code": code, "X-Error-Message": message}, status)

    def _send(
        self, body: bytes, headers: dict[str, str] | None = None, status: int = 200, cut: int | None = None
    ) -> None:
        """cut: break the connection after so many bytes of the body."""
        self.send_response(status)
        # One request per connection: a server that was stopped answers nobody, and a cut is the end of a connection.
        for key, value in {"Content-Length": str(len(body)), "Connection": "close", **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:cut])
