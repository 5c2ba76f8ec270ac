"""No pickle on the way: loading one may run any program. And YAML is read without objects."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from loracle.errors import ModelError
from loracle.model.base import load_base
from tests import tiny

ROOT = Path(__file__).parents[2]
SOURCES = sorted([*ROOT.glob("loracle/**/*.py"), *ROOT.glob("training/**/*.py")])
PICKLES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
# By attribute: what loads or writes a pickle, or builds objects out of YAML.
CALLS = {"torch.load", "torch.save", "yaml.unsafe_load", "yaml.full_load", "yaml.load_all"}


def findings(path: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            keywords = {keyword.arg for keyword in node.keywords}
            bad = name in CALLS or "allow_pickle" in keywords or name in ("eval", "exec")
            names = ["pickle"] if bad else []
        else:
            continue
        if PICKLES.intersection(name.partition(".")[0] for name in names):
            found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    return found


def test_no_module_reads_or_writes_a_pickle() -> None:
    assert len(SOURCES) > 100
    assert [place for path in SOURCES for place in findings(path)] == []


def test_the_search_finds_what_it_looks_for(tmp_path: Path) -> None:
    for code in ("import pickle", "from joblib import load", "torch.load(f)", "eval('1')"):
        path = tmp_path / "x.py"
        path.write_text(code)
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(globals(), "ROOT", tmp_path)
            assert findings(path) == ["x.py:1"]


def test_a_folder_with_pickle_weights_alone_is_refused_with_the_conversion(tmp_path: Path) -> None:
    folder = tiny.save_model(tmp_path / "model")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError) as refused:
        load_base("m", str(folder), tiny.tokenizer())
    assert "its weights are only in pytorch_model.bin" in str(refused.value)
    assert f"from_pretrained('{folder}').save_pretrained('{folder}')" in str(refused.value)
