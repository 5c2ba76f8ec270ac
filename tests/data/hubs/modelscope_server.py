"""A stand-in for ModelScope: as much of its HTTP API as modelscope_hub asks for.

    /api/v1/models/ORG/NAME/repo/files      the files of a model
    /api/v1/datasets/ORG/NAME/repo/tree     the files of a dataset, in pages
    /api/v1/KINDs/ORG/NAME/repo?FilePath=   a file
    /api/v1/KINDs/ORG/NAME/revisions        branches and tags

As the hub does, it tells the last commit of every file and not of the branch, and answers an
unknown revision with status 200 and no files.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from tests.data.hubs.served import TOKEN, Handler, Repo

_API = re.compile(
    r"/api/v1/(?P<kind>dataset|model)s/(?P<id>[^/]+/[^/]+)/(?P<what>repo/files|repo/tree|repo|revisions)"
)


class ModelScopeHandler(Handler):
    """The hub's rules."""

    def answer(self, path: str, query: dict[str, str]) -> None:
        """Send the response to a request."""
        match = _API.fullmatch(path)
        repo = self.state.repos.get((match["kind"], match["id"])) if match else None
        if match is None or repo is None or (repo.private and self.token != TOKEN):
            self._refuse(404, 10010205001, "record not found")
        elif repo.gated and self.token != TOKEN:
            self._refuse(403, 10010205002, "access denied, apply for access first")
        elif match["what"] == "revisions":
            self._data({"RevisionMap": {"Branches": _revisions(repo.branches),
                                        "Tags": _revisions(repo.tags)}})  # fmt: skip
        elif match["what"] == "repo":
            self._file(repo, query["Revision"], query["FilePath"])
        else:
            self._listing(repo, query)

    def _listing(self, repo: Repo, query: dict[str, str]) -> None:
        commit = repo.resolve(query["Revision"])
        if commit is None:
            self._data({"Files": None, "IsVisual": 0, "LatestCommitter": None})
            return
        entries = [
            {
                "Path": path,
                "Name": path.rpartition("/")[2],
                "Type": "blob",
                "Size": len(content),
                "Sha256": hashlib.sha256(content).hexdigest(),
                "Revision": repo.changed[commit][path],
                "CommittedDate": 1_700_000_000
                + list(repo.commits).index(repo.changed[commit][path]),
            }
            for path, content in repo.commits[commit].items()
        ]
        folders = sorted({path.rpartition("/")[0] for path in repo.commits[commit]} - {""})
        entries += [{"Path": folder, "Name": folder, "Type": "tree"} for folder in folders]
        if size := int(query.get("PageSize", 0)):
            start = (int(query["PageNumber"]) - 1) * size
            entries = entries[start : start + size]
        self._data({"Files": entries, "IsVisual": 0, "LatestCommitter": {"ShortId": commit[:8]}})

    def _file(self, repo: Repo, revision: str, path: str) -> None:
        content = repo.commits.get(repo.resolve(revision) or "", {}).get(path)
        if content is None:
            self._refuse(404, 10990101007, "file not found")
        else:
            self.send_file(path, content, {"Content-Type": "application/octet-stream"})

    def _data(self, data: Any) -> None:
        self.send_json({"Code": 200, "Data": data, "Message": "success", "Success": True})

    def _refuse(self, status: int, code: int, message: str) -> None:
        body = {"Code": code, "Data": None, "Message": message, "Success": False}
        self.send(status, json.dumps(body).encode(), {"Content-Type": "application/json"})


def _revisions(revisions: dict[str, str]) -> list[dict[str, object]]:
    return [{"Revision": name, "CreatedAt": 1_700_000_000} for name in revisions]
