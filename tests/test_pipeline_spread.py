import tracemalloc

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gaussianverse.pipeline.dataset.spread import Spread, Values


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32) | st.integers(-3, 3), max_size=30))
def test_it_is_that_of_numpy(numbers: list[float]) -> None:
    values, cut = Values(), len(numbers) // 3
    values.add(np.array(numbers[:cut], np.float64))
    values.add(np.array(numbers[cut:], np.float64))
    assert len(values) == len(numbers)
    expected = Spread(float(np.median(numbers)), min(numbers), max(numbers)) if numbers else None
    assert values.spread() == expected


def test_memory_does_not_grow_with_the_numbers() -> None:
    values, piece = Values(), np.random.default_rng(0).normal(size=1 << 17)
    tracemalloc.start()
    try:
        for _ in range(16):  # 16 MB
            values.add(piece)
        values.spread()
        assert tracemalloc.get_traced_memory()[1] < 9 << 20
    finally:
        tracemalloc.stop()
