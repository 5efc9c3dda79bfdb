# SPDX-License-Identifier: Apache-2.0
"""A server on this machine that speaks as much of the Hugging Face Hub's protocol as huggingface_hub needs to fetch models."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

PIECE = 65_536  # bytes written at a time
LARGE = 1000  # bytes; larger files are stored elsewhere, and the server redirects to them


class Hub:
    """repositories: "org/name" -> revision (branch, tag) -> file name -> bytes. The commit of a revision is a hash of its files.

    gated, private: repositories that need the token. cut: how many bytes of a large file to send before the connection breaks,
    per request to come. ranged: whether parts of files are sent on request. sent: how many bytes of bodies were written.
    requests: what was asked, as "GET /path"; ranges: the byte ranges among that.
    """

    TOKEN = "hf_test"

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, dict[str, bytes]]] = {}
        self.gated: set[str] = set()
        self.private: set[str] = set()
        self.failing: set[str] = set()
        self.cut: list[int] = []
        self.requests: list[str] = []
        self.ranges: list[str] = []
        self.ranged = True
        self.sent = 0
        self.url = self.storage_url = ""

    def commit(self, repository: str, revision: str = "main") -> str:
        digest = hashlib.sha1()
        for name, body in sorted(self.repositories[repository][revision].items()):
            digest.update(b"%s %d\n" % (name.encode(), len(body)) + body)
        return digest.hexdigest()

    def fetched(self) -> list[str]:
        """Names of the files whose bytes were sent, in order of their names."""
        gets = [
            path for path in self.requests if path.startswith("GET /stored/") or (path.startswith("GET") and "/resolve/" in path)
        ]
        return sorted(
            {path.split("/", 5)[5] for path in gets}
        )  # "GET /org/name/resolve/COMMIT/FILE", "GET /stored/org/name/REVISION/FILE"


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None: ...

        def do_HEAD(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            self.answer()

        def answer(self) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.requests.append(f"{self.command} {path}")
            parts = path.strip("/").split("/")
            if parts[0] == "stored":
                self.send_file("/".join(parts[1:3]), hub.repositories["/".join(parts[1:3])][parts[3]]["/".join(parts[4:])], {})
                return
            api = parts[:2] == ["api", "models"]
            if api:
                parts = parts[2:]
            repository, rest = "/".join(parts[:2]), parts[2:]
            if self.headers.get("Authorization") != f"Bearer {Hub.TOKEN}":
                if repository in hub.private or repository not in hub.repositories:
                    self.refuse(401 if repository not in hub.repositories else 404, "RepoNotFound", "Repository not found")
                    return
                if repository in hub.gated and not api:
                    self.refuse(403, "GatedRepo", "Access is restricted")
                    return
            if repository in hub.failing:
                self.refuse(500, "", "Internal error")
                return
            revisions = hub.repositories[repository]
            name = next(
                (r for r in revisions if r == (rest[1] if len(rest) > 1 else "main") or hub.commit(repository, r) == rest[1]),
                None,
            )
            if name is None:
                self.refuse(404, "RevisionNotFound", "Invalid rev id")
                return
            files, commit = revisions[name], hub.commit(repository, name)
            if not api:
                self.resolve(repository, name, "/".join(rest[2:]), files, commit)
            elif rest and rest[0] == "tree":
                entries = [{"type": "file", "path": p, "size": len(b), "oid": etag(b)} for p, b in files.items()]
                self.send_json(entries)
            else:
                self.send_json({"id": repository, "sha": commit, "siblings": [{"rfilename": p} for p in files]})

        def resolve(self, repository: str, revision: str, path: str, files: dict[str, bytes], commit: str) -> None:
            if path not in files:
                self.refuse(404, "EntryNotFound", "Entry not found")
                return
            body = files[path]
            headers = {"X-Repo-Commit": commit, "ETag": f'"{etag(body)}"'}
            if len(body) <= LARGE:
                self.send_file(repository, body, headers)
                return
            headers |= {"X-Linked-Etag": f'"{hashlib.sha256(body).hexdigest()}"', "X-Linked-Size": str(len(body))}
            self.send(302, b"", headers | {"Location": f"{hub.storage_url}/stored/{repository}/{revision}/{path}"})

        def send_file(self, repository: str, body: bytes, headers: dict[str, str]) -> None:
            status = 200
            if (wanted := self.headers.get("Range")) and hub.ranged:
                hub.ranges.append(wanted)
                first, _, last = wanted.removeprefix("bytes=").partition("-")
                begin, end = int(first), min(int(last or len(body) - 1), len(body) - 1)
                headers = headers | {"Content-Range": f"bytes {begin}-{end}/{len(body)}"}
                body, status = body[begin : end + 1], 206
            cut = hub.cut.pop(0) if hub.cut and self.command == "GET" and len(body) > LARGE else None
            self.send(status, body, headers | {"Accept-Ranges": "bytes"}, cut)

        def write(self, body: bytes) -> None:
            try:
                for begin in range(0, len(body), PIECE):
                    hub.sent += self.wfile.write(body[begin : begin + PIECE])
            except ConnectionError:  # the client has what it wanted
                self.close_connection = True

        def send_json(self, value: object) -> None:
            self.send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

        def refuse(self, status: int, code: str, message: str) -> None:
            self.send(status, b"", {"X-Error-Code": code, "X-Error-Message": message})

        def send(self, status: int, body: bytes, headers: dict[str, str], cut: int | None = None) -> None:
            self.send_response(status)
            for name, value in (headers | {"Content-Length": str(len(body))}).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.write(body[:cut])
            if cut is not None:
                self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    hub.storage_url = f"http://localhost:{server.server_port}"  # to the client another host
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def etag(body: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()
