"""A stand-in for the Hugging Face hub: as much of its HTTP API as huggingface_hub asks for.

/api/datasets/ORG/NAME[/revision/REV]     what it is, with its commit
/api/datasets/ORG/NAME/tree/REV           its files, in pages
/api/datasets/ORG/NAME/refs               branches and tags
/datasets/ORG/NAME/resolve/REV/PATH       a file; large ones redirect to another host
"""

from __future__ import annotations

import hashlib
import re

from tests.data.hubs.served import TOKEN, Handler, Repo

PAGE = 3
LARGE = (".safetensors", ".parquet")

_API = re.compile(
    r"/api/(?P<kind>dataset|model)s/(?P<id>[^/]+(?:/[^/]+)?)"
    r"(?:/(?P<what>revision|tree|refs)(?:/(?P<rest>.*))?)?"
)
_RESOLVE = re.compile(
    r"/(?P<kind>datasets/)?(?P<id>[^/]+(?:/[^/]+)?)/resolve/(?P<revision>[^/]+)/(?P<path>.+)"
)
_CDN = re.compile(r"/cdn/(?P<kind>dataset|model)/(?P<id>[^/]+/[^/]+)/(?P<commit>\w+)/(?P<path>.+)")


class HuggingFaceHandler(Handler):
    """The hub's rules."""

    def answer(self, path: str, query: dict[str, str]) -> None:
        """Send the response to a request."""
        if match := _API.fullmatch(path):
            self._api(match["kind"], match["id"], match["what"], match["rest"] or "", query)
        elif match := _CDN.fullmatch(path):
            repo = self.state.repo(match["kind"], match["id"])
            content = repo.commits[match["commit"]][match["path"]]
            self.send_file(match["path"], content, {"ETag": f'"{_sha256(content)}"'})
        elif match := _RESOLVE.fullmatch(path):
            kind = "dataset" if match["kind"] else "model"
            self._file(kind, match["id"], match["revision"], match["path"])
        else:
            self.send(404)

    def _api(self, kind: str, name: str, what: str, rest: str, query: dict[str, str]) -> None:
        if name in self.state.moved:
            self.send(307, headers={"Location": self.path.replace(name, self.state.moved[name])})
            return
        repo = self._found(kind, name)
        if repo is None:
            return
        if what == "refs":
            self.send_json({"branches": _refs("heads", repo.branches), "converts": [],
                            "tags": _refs("tags", repo.tags)})  # fmt: skip
            return
        commit = self._commit(repo, rest if what else "main")
        if commit is None:
            return
        if what == "tree":
            self._tree(repo, commit, query)
        else:
            files = [{"rfilename": path} for path in repo.commits[commit]]
            gated = "auto" if repo.gated else False
            self.send_json({"id": name, "sha": commit, "private": repo.private, "tags": [],
                            "gated": gated, "siblings": files})  # fmt: skip

    def _tree(self, repo: Repo, commit: str, query: dict[str, str]) -> None:
        entries = [_entry(path, content) for path, content in repo.commits[commit].items()]
        start = int(query.get("cursor", 0))
        headers = {}
        if start + PAGE < len(entries):
            page = f"http://{self.headers['Host']}{self.path.partition('?')[0]}"
            headers["Link"] = f'<{page}?recursive=True&cursor={start + PAGE}>; rel="next"'
        self.send_json(entries[start : start + PAGE], headers)

    def _file(self, kind: str, name: str, revision: str, path: str) -> None:
        if name in self.state.moved:
            self.send(307, headers={"Location": self.path.replace(name, self.state.moved[name])})
            return
        repo = self._found(kind, name)
        commit = self._commit(repo, revision) if repo else None
        if repo is None or commit is None:
            return
        if repo.gated and self.token != TOKEN:
            self._refuse(403 if self.token else 401, "GatedRepo", "Access is restricted.")
            return
        content = repo.commits[commit].get(path)
        headers = {"X-Repo-Commit": commit}
        if content is None:
            self._refuse(404, "EntryNotFound", "Entry not found")
        elif path.endswith(LARGE):
            port = self.headers["Host"].rpartition(":")[2]
            headers |= {
                "Location": f"http://localhost:{port}/cdn/{kind}/{name}/{commit}/{path}",
                "X-Linked-Etag": f'"{_sha256(content)}"',
                "X-Linked-Size": str(len(content)),
            }
            self.send(302, headers=headers)
        else:
            self.send_file(path, content, {"ETag": f'"{_git_hash(content)}"', **headers})

    def _found(self, kind: str, name: str) -> Repo | None:
        repo = self.state.repos.get((kind, name))
        if self.token not in (None, TOKEN) and self.token.startswith("expired"):
            self._refuse(401, None, "Invalid credentials in Authorization header")
            return None
        if repo is None or (repo.private and self.token != TOKEN):
            self._refuse(404 if self.token else 401, "RepoNotFound", "Repository not found")
            return None
        return repo

    def _commit(self, repo: Repo, revision: str) -> str | None:
        commit = repo.resolve(revision)
        if commit is None:
            self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    def _refuse(self, status: int, code: str | None, message: str) -> None:
        code_header = {"X-Error-Code": code} if code else {}
        self.send(status, b"", {**code_header, "X-Error-Message": message})


def _refs(kind: str, revisions: dict[str, str]) -> list[dict[str, str]]:
    return [
        {"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": commit}
        for name, commit in revisions.items()
    ]


def _entry(path: str, content: bytes) -> dict[str, object]:
    entry: dict[str, object] = {
        "type": "file", "path": path, "size": len(content), "oid": _git_hash(content)
    }  # fmt: skip
    if path.endswith(LARGE):
        entry["lfs"] = {"oid": _sha256(content), "size": len(content), "pointerSize": 134}
    return entry


def _git_hash(content: bytes) -> str:
    data = b"blob %d\0" % len(content) + content
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
