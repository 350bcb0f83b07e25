"""Fixed views of a patch: a frozen backbone is trained and scored on a finite set of views, so that its features can be kept."""

from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from typing import Any

import numpy as np

from pcam_ssl.data.views import Views, dihedral
from pcam_ssl.files import digest_text

D4 = tuple(f"d4-{element}" for element in range(8))
"""Names of the eight dihedral views; the first is the patch as it is."""
PLAIN = D4[:1]


def random_names(policy: str, strength: float, transform: dict[str, Any] | None, count: int) -> tuple[str, ...]:
    """Names of the first `count` random views of a policy. Another strength or transform has other names."""
    version = digest_text(f"{strength!r} {transform!r}")[:8]
    return tuple(f"{policy}-{version}-{number}" for number in range(count))


@dataclass(frozen=True)
class FixedViews:
    """The views of a policy as a fixed set: `none` holds the patch, `d4` its eight dihedral views, other policies `count` random views.

    A random view depends on the patch's id and its number alone, so all seeds and folds share it. `ids` uint64 `[N]` are the keys
    (`views.id_key`) of the dataset's rows.
    """

    policy: str
    strength: float = 1.0
    transform: dict[str, Any] | None = None
    count: int = 0
    ids: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint64), repr=False, compare=False)

    @cached_property
    def names(self) -> tuple[str, ...]:
        if self.policy in ("none", "d4"):
            return D4 if self.policy == "d4" else PLAIN
        return random_names(self.policy, self.strength, self.transform, self.count)

    @cached_property
    def drawn(self) -> Views:
        """The policy that draws the random views."""
        return Views(self.policy, self.strength, self.transform)

    def number(self, key: tuple[int, ...]) -> int:
        """The place of a view in `names`, drawn by `key`."""
        # A NumPy generator for each patch would take longer than the step of a linear head.
        drawn = blake2b(repr(tuple(map(int, key))).encode(), digest_size=8).digest()
        return int.from_bytes(drawn, "little") % len(self.names)

    def __call__(self, patch: np.ndarray, key: tuple[int, ...], row: int) -> np.ndarray:
        """A view of the patch uint8 `[H, W, 3]` in this row of the dataset, drawn by `key`."""
        return self.render(patch, row, self.number(key))

    def render(self, patch: np.ndarray, row: int, number: int) -> np.ndarray:
        """View `number` of the patch uint8 `[H, W, 3]` in this row of the dataset."""
        if self.policy in ("none", "d4"):
            return dihedral(patch, number)
        return self.drawn(patch, random_key(self.ids[row], number))


def random_key(id_key: int, number: int) -> tuple[int, ...]:
    """The key of a patch's random view; that of a test-time view of seed 0."""
    return (0, 3, int(id_key), number)
