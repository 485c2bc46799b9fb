"""How many regions each step uses: one number, or one drawn for each step."""

import re
from dataclasses import dataclass

import numpy as np

__all__ = ["Budget"]


@dataclass(frozen=True)
class Budget:
    """A number of tokens, or a range that each step draws one from.

    Example:
        >>> str(Budget.parse("49..392")), Budget.parse("196").most
        ('49..392', 196)
    """

    least: int
    """Smallest number of regions per picture."""
    most: int
    """Largest number of regions per picture."""

    def __post_init__(self) -> None:
        if not 1 <= self.least <= self.most:
            raise ValueError(f"num-tokens must be a number >= 1, or two as in 49..392, got {self}")

    @classmethod
    def parse(cls, text: str) -> "Budget":
        """Read "196" or "49..392".

        Raises:
            ValueError: If the text is neither.
        """
        found = re.fullmatch(r"(\d+)(?:\.\.(\d+))?", text.strip())
        if found is None:
            raise ValueError(f"num-tokens must be a number such as 196, or 49..392, got {text!r}")
        return cls(int(found[1]), int(found[2] or found[1]))

    def draw(self, seed: int, step: int) -> int:
        """The number of a step: uniform over the range, the same in every process.

        Example:
            >>> [Budget(49, 392).draw(0, step) for step in range(3)] == [196] * 3
            False
        """
        return int(np.random.default_rng((seed, step)).integers(self.least, self.most + 1))

    def __str__(self) -> str:
        return str(self.most) if self.least == self.most else f"{self.least}..{self.most}"
