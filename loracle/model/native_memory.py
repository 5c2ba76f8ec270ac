"""Memory that native libraries would keep for the whole experiment.

Two things made memory use grow from trial to trial on a CPU (docs/log.md): oneDNN keeps a compiled
kernel of about half a megabyte for each of the last 1,024 shapes of matrix products, and every
micro-batch has its own shapes; and the C library keeps freed memory in fragments.
"""

from __future__ import annotations

import ctypes
import os

# A micro-batch needs some 60 kernels; all layers share them.
_KERNEL_CACHE_CAPACITY = "256"


def bound_kernel_cache() -> None:
    """Keep fewer compiled kernels. Only has an effect before the first matrix product."""
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", _KERNEL_CACHE_CAPACITY)


def return_freed_memory() -> None:
    """Return free but fragmented memory to the system. Does nothing without glibc.

    Using it again costs about a tenth of a second per gigabyte: call once per phase, not per step.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
