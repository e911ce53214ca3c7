"""The plain types that pass between a data source, a task and the token cache. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Row: TypeAlias = Mapping[str, object]
"""One example as it was stored: column name → value."""

Example: TypeAlias = dict[str, int | float | list[int] | list[float]]
"""One example as the model will see it, before padding: `input_ids`, `row` and what the task adds."""

Stored: TypeAlias = Mapping[str, NDArray[np.generic]]
"""An `Example` read back from the token cache: every field is a one-dimensional array, a scalar has length 1."""


class Examples(Protocol):
    """All examples of a split."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Stored: ...


Key: TypeAlias = tuple[int, int, int]
"""(seed, epoch, number of the example): what anything random in an example is drawn from, by `numpy.random.default_rng(key)`."""

Prediction: TypeAlias = dict[str, object]
"""What a task says of one row: column name → value."""
