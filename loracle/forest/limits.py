"""Sizes that the forest's rows are kept to. They decide what a pass costs, never a result."""

from __future__ import annotations

MAX_ROW_TOKENS = 1024
"""A row of the forest grows no longer, in training, answering and measuring alike: beyond this
attention costs more than sharing saves."""

MAX_EXPLICIT_TOKENS = 1024
"""Up to this row length explicit matrix products, which keep their probabilities, beat the fused
kernel on a CPU (docs/log.md); beyond it their quadratic memory does not."""

SPAN_PAIRS = 16384
"""One more span costs as much as the products of this many (query, key) pairs; measured with 9
heads of 64 (docs/log.md)."""

STORED_SPAN_PAIRS = 16384
"""As SPAN_PAIRS, of keys that are stored while answers are decoded: spans share no work, so short
ones would store a trunk many times."""

PREFILL_TOKENS = {"cpu": 2048, "mps": 2048, "cuda": 32768}
"""Prompts' tokens that are computed at once before answers are decoded, by the kind of device."""
