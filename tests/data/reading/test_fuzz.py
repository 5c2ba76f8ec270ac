"""Any bytes give examples or a DataError, in every container, never a traceback. A fixed budget;
`python -m tests.data.reading.fuzzing` continues for as long as wanted."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.data.reading.fuzzing import case, check, files_of_all_kinds, good_files, run_case

FILES = good_files()
NUM_CASES = 1500
NAMES = sorted({name for name, _ in FILES})


def test_undamaged_files_are_read(tmp_path: Path) -> None:
    assert all(check(name, content, tmp_path) > 0 for name, content in FILES)


@pytest.mark.parametrize("seed", [1, 2])
def test_damaged_files_give_examples_or_a_data_error(seed: int, tmp_path: Path) -> None:
    files = files_of_all_kinds()
    num_read = sum(run_case(*case(files, seed, i), tmp_path, i) > 0 for i in range(NUM_CASES))
    # Both sides of the promise were met with: neither all files whole nor all broken.
    assert NUM_CASES * 0.1 < num_read < NUM_CASES * 0.9


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(name=st.sampled_from(NAMES), content=st.binary(max_size=200))
def test_any_bytes_under_any_name_give_examples_or_a_data_error(
    name: str, content: bytes, tmp_path: Path
) -> None:
    check(name, content, tmp_path)
