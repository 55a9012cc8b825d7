"""A small Hub on a port of this machine: it answers the calls of huggingface_hub for upload and download."""

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

TOKEN = "hf_" + "x" * 34
LARGE_FILES = (".safetensors", ".onnx", ".bin", ".pte")  # kept beside git, as the Hub's .gitattributes says
REPOSITORY = r"(?P<name>[\w.-]+/[\w.-]+)"


@dataclass
class Repository:
    private: bool
    commits: list[tuple[str, dict[str, bytes]]] = field(default_factory=lambda: [("0" * 40, {})])

    def at(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """A commit's id and files, by its id or a branch's name."""
        if revision == "main":
            return self.commits[-1]
        return next((commit for commit in self.commits if commit[0] == revision), None)

    def commit(self, files: dict[str, bytes]) -> str:
        identifier = hashlib.sha1(repr((len(self.commits), sorted(files))).encode()).hexdigest()
        self.commits.append((identifier, files))
        return identifier


def object_id(name: str, content: bytes) -> str:
    """What the Hub calls a file's content: SHA-256 of a large one, git's of others."""
    if name.endswith(LARGE_FILES):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class HubServer:
    """
    Serves until it is left. `repositories` holds what was uploaded, `requests` the method and path of each call;
    `refused_metadata` is a word that no card's metadata may hold.
    """

    def __enter__(self) -> "HubServer":
        self.repositories: dict[tuple[str, str], Repository] = {}  # ("models" or "spaces", name)
        self.large: dict[str, bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self.refused_metadata = "refused-by-the-hub"
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), {"hub": self}))
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.storage = f"http://localhost:{self.server.server_port}"  # another host, as where the Hub keeps large files
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error) -> None:
        self.server.shutdown()
        self.server.server_close()


class Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments) -> None:
        pass

    def handle_call(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((self.command, path))
        self.content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            self.content = self.read_chunks()
        for method, pattern, answer in CALLS:
            found = re.fullmatch(pattern, path)
            if found and self.command in method:
                return answer(self, **found.groupdict())
        self.fail(404, "EntryNotFound")

    do_GET = do_HEAD = do_POST = do_PUT = handle_call

    def read_chunks(self) -> bytes:
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def send(self, content: bytes | dict | list, status: int = 200, **headers: str) -> None:
        if not isinstance(content, bytes):
            content, headers = json.dumps(content).encode(), {"Content_Type": "application/json", **headers}
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def fail(self, status: int, code: str, **headers: str) -> None:
        self.send({"error": code}, status, X_Error_Code=code, X_Error_Message=code, **headers)

    def may_write(self) -> bool:
        if self.headers.get("Authorization") == f"Bearer {TOKEN}":
            return True
        self.fail(401, "Unauthorized")
        return False

    def repository(self, kind: str, name: str) -> Repository | None:
        found = self.hub.repositories.get((kind, name))
        if found is None or (found.private and self.headers.get("Authorization") != f"Bearer {TOKEN}"):
            self.fail(404, "RepoNotFound")
            return None
        return found

    def revision(self, kind: str, name: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        repository = self.repository(kind, name)
        if repository is None:
            return None
        found = repository.at(revision)
        if found is None:
            self.fail(404, "RevisionNotFound")
        return found

    def create(self) -> None:
        asked = json.loads(self.content)
        if not self.may_write():
            return
        kind, name = f"{asked.get('type', 'model')}s", f"{asked['organization']}/{asked['name']}"
        address = f"{self.hub.url}/{'spaces/' if kind == 'spaces' else ''}{name}"
        if (kind, name) in self.hub.repositories:
            return self.send({"url": address, "error": "You already created this repo"}, 409)
        private = asked.get("visibility") == "private" or bool(asked.get("private"))
        self.hub.repositories[kind, name] = Repository(private)
        self.send({"url": address})

    def validate(self) -> None:
        card = json.loads(self.content)
        metadata = card["content"].split("---")[1] if card["content"].startswith("---") else ""
        if self.hub.refused_metadata in metadata:
            return self.send({"errors": [{"message": f"{self.hub.refused_metadata} is not allowed"}]}, 400)
        self.send({"errors": [], "warnings": []})

    def information(self, kind: str, name: str, revision: str | None = None) -> None:
        found = self.revision(kind, name, revision or "main")
        if found is not None:
            identifier, files = found
            siblings = [{"rfilename": path} for path in files]
            self.send({"id": name, "modelId": name, "sha": identifier, "siblings": siblings, "tags": []})

    def preupload(self, kind: str, name: str, revision: str) -> None:
        found = self.revision(kind, name, revision) if self.may_write() else None
        if found is None:
            return
        files = []
        for asked in json.loads(self.content)["files"]:
            path = asked["path"]
            mode = "lfs" if path.endswith(LARGE_FILES) else "regular"
            oid = object_id(path, found[1][path]) if path in found[1] else None
            files.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self.send({"files": files})

    def large_files(self, name: str) -> None:
        objects = []
        for asked in json.loads(self.content)["objects"]:
            upload = {"upload": {"href": f"{self.hub.storage}/large/{asked['oid']}"}}
            objects.append({**asked, **({} if asked["oid"] in self.hub.large else {"actions": upload})})
        if self.may_write():
            self.send({"transfer": "basic", "objects": objects})

    def put_large_file(self, oid: str) -> None:
        assert hashlib.sha256(self.content).hexdigest() == oid
        self.hub.large[oid] = self.content
        self.send(b"")

    def get_large_file(self, oid: str) -> None:
        self.send(self.hub.large[oid], ETag=f'"{oid}"')

    def commit(self, kind: str, name: str, revision: str) -> None:
        found = self.revision(kind, name, revision) if self.may_write() else None
        if found is None:
            return
        files = dict(found[1])
        for line in self.content.splitlines():
            operation = json.loads(line)
            value = operation["value"]
            if operation["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "lfsFile":
                files[value["path"]] = self.hub.large[value["oid"]]
            elif operation["key"] == "deletedFile":
                del files[value["path"]]
            else:
                assert operation["key"] == "header", operation["key"]
        identifier = self.hub.repositories[kind, name].commit(files)
        self.send({"commitUrl": f"{self.hub.url}/{name}/commit/{identifier}", "commitOid": identifier})

    def tree(self, kind: str, name: str, revision: str, folder: str | None = None) -> None:
        found = self.revision(kind, name, revision)
        if found is None:
            return
        below = {path: content for path, content in found[1].items() if path.startswith(folder or "")}
        if folder and not below:
            return self.fail(404, "EntryNotFound")
        entries = []
        for path, content in below.items():
            oid = object_id(path, content)
            entry = {"type": "file", "path": path, "size": len(content), "oid": oid}
            if path.endswith(LARGE_FILES):
                entry["lfs"] = {"oid": oid, "size": len(content), "pointerSize": 134}
            entries.append(entry)
        self.send(entries)

    def resolve(self, name: str, revision: str, path: str, spaces: str | None = None) -> None:
        found = self.revision("spaces" if spaces else "models", name, revision)
        if found is None:
            return
        identifier, files = found
        if path not in files:
            return self.fail(404, "EntryNotFound", X_Repo_Commit=identifier)
        oid = object_id(path, files[path])
        if not path.endswith(LARGE_FILES):
            return self.send(files[path], ETag=f'"{oid}"', X_Repo_Commit=identifier)
        linked = {"X_Linked_Etag": f'"{oid}"', "X_Linked_Size": str(len(files[path]))}
        self.send(b"", 302, Location=f"{self.hub.storage}/large/{oid}", X_Repo_Commit=identifier, **linked)


API = rf"/api/(?P<kind>models|spaces)/{REPOSITORY}"
CALLS = [
    ("POST", r"/api/repos/create", Handler.create),
    ("POST", r"/api/validate-yaml", Handler.validate),
    ("GET", API, Handler.information),
    ("GET", rf"{API}/revision/(?P<revision>[\w.-]+)", Handler.information),
    ("GET", rf"{API}/tree/(?P<revision>[\w.-]+)(/(?P<folder>.+))?", Handler.tree),
    ("POST", rf"{API}/preupload/(?P<revision>[\w.-]+)", Handler.preupload),
    ("POST", rf"{API}/commit/(?P<revision>[\w.-]+)", Handler.commit),
    ("POST", rf"/(spaces/)?{REPOSITORY}\.git/info/lfs/objects/batch", Handler.large_files),
    ("PUT", r"/large/(?P<oid>\w+)", Handler.put_large_file),
    ("GET HEAD", r"/large/(?P<oid>\w+)", Handler.get_large_file),
    (
        "GET HEAD",
        rf"/(?P<spaces>spaces/)?{REPOSITORY}/resolve/(?P<revision>[\w.-]+)/(?P<path>.+)",
        Handler.resolve,
    ),
]
