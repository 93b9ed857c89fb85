"""Servers on 127.0.0.1 that speak enough of the model hubs for their real clients to work with."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

TOKEN = "hf_secretOfTheTests"
LICENCES = ("apache-2.0", "mit", "llama3", "other")
"""Some of the identifiers that the Hugging Face hub takes."""


class Server(ThreadingHTTPServer):
    """A server on a free port; `requests` are its log."""

    daemon_threads = True

    def __init__(self, routes: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), routes)
        self.requests: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_port}"

    @contextmanager
    def running(self) -> Iterator["Server"]:
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        yield self
        self.shutdown()
        self.server_close()


class Replies(BaseHTTPRequestHandler):
    """Answers in JSON or bytes."""

    protocol_version = "HTTP/1.1"

    def json(self, value: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        headers = {"Content-Type": "application/json"} | (headers or {})
        self.reply(status, json.dumps(value).encode(), headers)

    def reply(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in (headers | {"Content-Length": str(len(data))}).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        data = b""
        while size := int(self.rfile.readline(), 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

    def log_message(self, *_: object) -> None:
        pass


# --- hubs that take uploads ----------------------------------------------------------------------


@dataclass
class Repository:
    """What one holds: `files` are those that its readers see."""

    private: bool
    licence: str | None = None
    files: dict[str, bytes] = field(default_factory=dict)
    lfs: set[str] = field(default_factory=set)
    commits: int = 0

    @property
    def head(self) -> str:
        return f"{self.commits:040x}"

    def commit(self, files: dict[str, bytes]) -> None:
        self.files |= files
        self.commits += 1


class Hub(Server):
    """Repositories, and the blobs that were uploaded for them by their SHA-256."""

    def __init__(self) -> None:
        super().__init__(UploadRoutes)
        self.repositories: dict[str, Repository] = {}
        self.blobs: dict[str, bytes] = {}
        self.dropped: set[str] = set()  # SHA-256 of blobs at which the connection is cut
        self.fails: dict[str, int] = {}  # status by what the path contains
        self.puts: list[str] = []

    def sent(self) -> list[str]:
        """Return the SHA-256 of what was uploaded since the last call."""
        self.puts, puts = [], self.puts
        return puts


class UploadRoutes(Replies):
    """The routes that huggingface_hub 2 and modelscope_hub 0.5 ask when they upload."""

    server: Hub

    def do_GET(self) -> None:
        self.route()

    do_HEAD = do_POST = do_PUT = do_GET

    def route(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.requests.append(f"{self.command} {path}")
        failing = [status for part, status in self.server.fails.items() if part in path]
        if path.startswith("/blob/"):
            return self.store(path.rpartition("/")[2])
        body = self.body()
        if path == "/api/validate-yaml":
            return self.validate_card(json.loads(body)["content"])
        if failing:
            return self.json({"error": "made to fail", "message": "made to fail"}, failing[0])
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.json({"error": "Invalid credentials", "message": "token expired"}, 401)
        hub = self.modelscope if path.startswith(("/api/v1", "/openapi")) else self.hugging_face
        hub(path, body)

    def validate_card(self, text: str) -> None:
        """Refuse a licence that is no identifier, as the Hugging Face hub does."""
        head = re.search(r"^license: (.*)$", text, re.MULTILINE)
        if head and head[1] not in LICENCES:
            wrong = f'"license" must be one of [{", ".join(LICENCES)}]'
            return self.json({"errors": [{"message": wrong}], "warnings": []}, 400)
        self.json({"errors": [], "warnings": []})

    def store(self, sha256: str) -> None:
        """Take a blob, or hang up in the middle of it."""
        if sha256 in self.server.dropped:
            self.rfile.read(10)
            self.close_connection = True
            return self.connection.shutdown(2)
        data = self.body()
        assert hashlib.sha256(data).hexdigest() == sha256
        self.server.blobs[sha256] = data
        self.server.puts.append(sha256)
        self.json({})

    def missing_blobs(self, body: bytes) -> list[dict[str, object]]:
        """Answer Git LFS's batch request: what is stored already has no upload action."""
        objects = json.loads(body)["objects"]
        for each in objects:
            if each["oid"] not in self.server.blobs:
                href = f"{self.server.url}/blob/{each['oid']}"
                each["actions"] = {"upload": {"href": href}}
        return objects

    # huggingface_hub

    def hugging_face(self, path: str, body: bytes) -> None:
        if path == "/api/whoami-v2":
            return self.json({"name": "me", "type": "user"})
        if path == "/api/repos/create":
            return self.create(json.loads(body))
        name = "/".join(path.removeprefix("/api/models").split("/")[1:3]).removesuffix(".git")
        repository = self.server.repositories.get(name)
        if repository is None:
            return self.json({}, 404, {"X-Error-Code": "RepoNotFound"})
        if path.endswith("/info/lfs/objects/batch"):
            self.json({"transfer": "basic", "objects": self.missing_blobs(body)})
        elif "/preupload/" in path:
            self.json({"files": [_mode(file) for file in json.loads(body)["files"]]})
        elif "/commit/" in path:
            self.commit(name, [json.loads(line) for line in body.splitlines()])
        elif "/resolve/" in path:
            data = repository.files[path.partition(f"/resolve/{repository.head}/")[2]]
            etag = hashlib.sha256(data).hexdigest()
            self.reply(200, data, {"ETag": f'"{etag}"', "X-Repo-Commit": repository.head})
        else:
            self.json(_info(name, repository))

    def create(self, wanted: dict[str, str]) -> None:
        name = f"{wanted['organization']}/{wanted['name']}"
        if name in self.server.repositories:
            return self.json({"url": f"{self.server.url}/{name}"}, 409)
        self.server.repositories[name] = Repository(wanted["visibility"] == "private")
        self.json({"url": f"{self.server.url}/{name}"})

    def commit(self, name: str, lines: list[dict]) -> None:
        """Take a commit in Newline Delimited JSON: a header, small files, pointers to blobs."""
        repository, files = self.server.repositories[name], {}
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.blobs[value["oid"]]
                repository.lfs.add(value["path"])
        repository.commit(files)
        url = f"{self.server.url}/{name}/commit/{repository.head}"
        self.json({"success": True, "commitOid": repository.head, "commitUrl": url})

    # modelscope_hub

    def modelscope(self, path: str, body: bytes) -> None:
        if path == "/openapi/v1/users/me":
            return self.json({"success": True, "data": {"username": "me"}})
        if path == "/api/v1/models" and self.command == "POST":
            return self.create_modelscope(json.loads(body))
        name = "/".join(path.partition("/models/")[2].split("/")[:2])
        repository = self.server.repositories.get(name)
        if repository is None:
            return self.json({"Code": 10010205001, "Message": "no such model"}, 404)
        if path.endswith("/info/lfs/objects/batch"):
            self.json({"Code": 200, "Data": {"objects": self.missing_blobs(body)}})
        elif "/commit/" in path:
            actions = json.loads(body)["actions"]
            repository.commit({each["path"]: self.content(each) for each in actions})
            self.json({"Code": 200, "Success": True, "Data": {}})
        elif path.endswith("/repo/files"):
            files = [_listed(*item) for item in repository.files.items()]
            self.json({"Code": 200, "Success": True, "Data": {"Files": files}})
        else:
            self.json({"success": True, "data": {"id": name, "private": repository.private}})

    def create_modelscope(self, wanted: dict) -> None:
        name = f"{wanted['Path']}/{wanted['Name']}"
        if name in self.server.repositories:
            return self.json({"Code": 10010101001, "Message": "already exists"}, 400)
        made = Repository(wanted["Visibility"] == 1, wanted["License"])
        made.files[".gitattributes"] = b""
        self.server.repositories[name] = made
        self.json({"Code": 200, "Success": True, "Data": {"Name": wanted["Name"]}})

    def content(self, action: dict) -> bytes:
        if action["type"] == "lfs":
            return self.server.blobs[action["sha256"]]
        return base64.b64decode(action["content"])


def _mode(file: dict) -> dict[str, object]:
    mode = "lfs" if file["path"].endswith(".safetensors") else "regular"
    return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False}


def _info(name: str, repository: Repository) -> dict[str, object]:
    siblings = [_sibling(repository, name) for name in repository.files]
    about = {"id": name, "private": repository.private, "sha": repository.head}
    return about | {"siblings": siblings}


def _sibling(repository: Repository, name: str) -> dict[str, object]:
    data = repository.files[name]
    blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()  # as `git hash-object` does
    entry: dict[str, object] = {"rfilename": name, "size": len(data), "blobId": blob}
    if name in repository.lfs:
        sha256 = hashlib.sha256(data).hexdigest()
        entry["lfs"] = {"size": len(data), "sha256": sha256, "pointerSize": 134}
    return entry


def _listed(name: str, data: bytes) -> dict[str, object]:
    sha256 = hashlib.sha256(data).hexdigest()
    return {"Path": name, "Size": len(data), "Type": "blob", "Sha256": sha256}
