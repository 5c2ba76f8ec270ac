"""Rows grouped in arrays are the rows grouped in a dictionary."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from loracle.data.audit.groups import Groups

keys = st.lists(st.sampled_from([0, 1, 7, 2**63, 2**64 - 1]), max_size=30)


@given(keys)
def test_groups_are_those_of_a_dictionary_in_its_order(members: list[int]) -> None:
    expected: dict[int, list[int]] = defaultdict(list)
    for row, key in enumerate(members):
        expected[key].append(3 * row)
    found = Groups.of(np.array(members, np.uint64), 3 * np.arange(len(members)))
    assert dict(zip(found.keys.tolist(), found, strict=True)) == expected
    assert found.keys.tolist() == list(expected)
    assert found.firsts.tolist() == [members.index(key) for key in expected]
    assert list(found.several()) == [rows for rows in expected.values() if len(rows) > 1]
    asked = np.array([5, *expected], np.uint64)
    assert found.find(asked).tolist() == [-1, *range(len(expected))]
