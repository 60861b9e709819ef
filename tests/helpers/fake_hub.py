"""A server on this machine that speaks as much of the Hugging Face Hub's API as pushing and loading an agent needs."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml


class FakeHub:
    """Repositories by name: their files, and the requests that came."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.requests: list[str] = []
        self.tokens: set[str | None] = set()
        self.address = ""

    def commit(self, repo: str) -> str:
        """A commit's name: that of its content."""
        digest = hashlib.sha1(repo.encode())
        for name, data in sorted(self.repos[repo].items()):
            digest.update(name.encode() + b"\0" + data)
        return digest.hexdigest()


def _handler(hub: FakeHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            """Print nothing."""

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self._note()
            if self.path == "/api/repos/create":
                asked = json.loads(body)
                repo = asked["name"] if not asked.get("organization") else f"{asked['organization']}/{asked['name']}"
                is_new = repo not in hub.repos
                hub.repos.setdefault(repo, {})
                if is_new:
                    hub.private[repo] = bool(asked.get("private")) or asked.get("visibility") == "private"
                return self._json({"url": f"{hub.address}/{repo}"}, 200 if is_new else 409)
            if self.path == "/api/validate-yaml":
                header = json.loads(body)["content"].split("---")[1]
                return self._json({"errors": [] if yaml.safe_load(header)["tags"] else ["no tags"], "warnings": []})
            if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/\w+", self.path):
                files = json.loads(body)["files"]
                answer = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]
                return self._json({"files": answer})
            if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/\w+", self.path):
                repo = match[1]
                for line in body.splitlines():
                    item = json.loads(line)
                    if item["key"] == "file":
                        hub.repos[repo][item["value"]["path"]] = base64.b64decode(item["value"]["content"])
                oid = hub.commit(repo)
                return self._json(
                    {"success": True, "commitOid": oid, "commitUrl": f"{hub.address}/{repo}/commit/{oid}"}
                )
            return self._json({"error": f"unknown {self.path}"}, 404)

        def do_HEAD(self) -> None:
            self._get()

        def do_GET(self) -> None:
            self._get()

        def _get(self) -> None:
            self._note()
            path = self.path.partition("?")[0]
            if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?", path):
                return self._describe(match[1], match[2], match[3])
            if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
                return self._file(match[1], match[2])
            if path == "/api/whoami-v2":
                return self._json({"name": "player", "type": "user"})
            return self._json({"error": f"unknown {path}"}, 404)

        def _describe(self, repo: str, what: str | None, revision: str | None) -> None:
            if repo not in hub.repos:
                return self._json({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
            commit = hub.commit(repo)
            if revision not in (None, "main", commit):
                return self._json({"error": "Revision not found"}, 404, {"X-Error-Code": "RevisionNotFound"})
            if what == "tree":
                files = hub.repos[repo].items()
                return self._json([{"type": "file", "path": n, "size": len(d), "oid": _oid(d)} for n, d in files])
            names = [{"rfilename": name} for name in hub.repos[repo]]
            return self._json({"id": repo, "modelId": repo, "sha": commit, "siblings": names, "private": False})

        def _file(self, repo: str, name: str) -> None:
            data = hub.repos.get(repo, {}).get(name)
            if data is None:
                return self._json({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"})
            head = {
                "X-Repo-Commit": hub.commit(repo),
                "ETag": f'"{_oid(data)}"',
                "Content-Type": "application/octet-stream",
            }
            return self._send(data, 200, head)

        def _note(self) -> None:
            hub.requests.append(f"{self.command} {self.path}")
            hub.tokens.add(self.headers.get("Authorization"))

        def _json(self, data: Any, status: int = 200, head: dict[str, str] | None = None) -> None:
            self._send(json.dumps(data).encode(), status, {"Content-Type": "application/json", **(head or {})})

        def _send(self, data: bytes, status: int, head: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {**head, "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

    return Handler


def _oid(data: bytes) -> str:
    """The name that git gives a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@contextmanager
def fake_hub() -> Iterator[FakeHub]:
    """Run the server meanwhile."""
    hub = FakeHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
