"""Random regions of images and clips, and pictures for them."""

import torch

from dartok.core.partition import partition
from dartok.core.regions import Regions


def regions_of(kind: str, num_frames: int, num_tokens: int, num_rows: int) -> Regions:
    scores = torch.rand(2, num_frames, 6, 5, dtype=torch.float64) ** 2 + 0.05
    return partition(scores, num_tokens=num_tokens, num_rows=num_rows, kind=kind)


def pictures(num_frames: int, height: int, width: int) -> torch.Tensor:
    """Images, or clips where there is more than one frame."""
    shape = (2, 3) if num_frames == 1 else (2, num_frames, 3)
    return torch.randn(*shape, height, width, dtype=torch.float64)
