from __future__ import annotations

import ctypes
import os
import resource
from pathlib import Path

import pytest

from loracle.model.native_memory import bound_kernel_cache, return_freed_memory

CAPACITY = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"


def test_the_kernel_cache_is_smaller_than_its_library_makes_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(CAPACITY, raising=False)
    bound_kernel_cache()
    assert 60 <= int(os.environ[CAPACITY]) < 1024


def test_a_capacity_that_the_user_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CAPACITY, "2048")
    bound_kernel_cache()
    assert os.environ[CAPACITY] == "2048"


needs_glibc = pytest.mark.skipif(
    getattr(ctypes.CDLL(None), "malloc_trim", None) is None, reason="needs glibc's malloc_trim"
)


@needs_glibc
def test_memory_that_was_freed_in_pieces_goes_back_to_the_system() -> None:
    num_blocks, block_bytes = 2_000, 64 * 1024
    library = ctypes.CDLL(None)
    library.malloc.restype = ctypes.c_void_p
    library.free.argtypes = [ctypes.c_void_p]
    blocks = [library.malloc(block_bytes) for _ in range(num_blocks)]
    for block in blocks:
        ctypes.memset(block, 1, block_bytes)
    # The last ones stay: what lies below a block in use is not given back by itself.
    for block in blocks[:-10]:
        library.free(block)
    before = resident_bytes()
    return_freed_memory()
    assert before - resident_bytes() > num_blocks * block_bytes // 2
    for block in blocks[-10:]:
        library.free(block)


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()
