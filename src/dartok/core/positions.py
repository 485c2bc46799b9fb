"""Position embeddings of a clip as one map: where in the frame, and when."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

__all__ = ["position_map", "resample_time"]


def position_map(
    spatial: Float[Tensor, "1 D h w"] | None,
    temporal: Float[Tensor, "1 D S"] | None,
    num_steps: int,
    first_step: int | None = None,
) -> Tensor | None:
    """`spatial[h, w] + temporal[step]` for each step, as `Regions.to_tokens` pools it.

    Args:
        spatial: Positions in a frame; None for none.
        temporal: Positions of S steps, resampled linearly to `num_steps`; None for none.
        num_steps: Steps of the strip, 1 for images.
        first_step: For a part of a longer clip, its number there, from 0: temporal positions are
            then taken as they are, and the last one is held. None for a whole clip.
    Returns:
        `(1, D, steps, h, w)`; of images without temporal positions the spatial ones as they are.
        None if there are neither.
    Example:
        >>> position_map(torch.rand(1, 8, 14, 14), torch.rand(1, 8, 16), 4).shape
        torch.Size([1, 8, 4, 14, 14])
    """
    if temporal is None:
        if spatial is None or num_steps == 1:
            return spatial
        return spatial.unsqueeze(2).expand(-1, -1, num_steps, -1, -1)
    if first_step is None:
        times = resample_time(temporal, num_steps)[..., None, None]
    else:
        last = temporal.shape[-1] - 1
        steps = torch.arange(first_step, first_step + num_steps, device=temporal.device)
        times = temporal[..., steps.clamp(max=last), None, None]
    return times if spatial is None else spatial.unsqueeze(2) + times


def resample_time(temporal: Float[Tensor, "1 D S"], num_steps: int) -> Float[Tensor, "1 D steps"]:
    """Positions of another number of steps over the same span, linear between the old ones.

    Example:
        >>> resample_time(torch.tensor([[[0.0, 2.0]]]), 4)
        tensor([[[0.0000, 0.5000, 1.5000, 2.0000]]])
    """
    if temporal.shape[-1] == num_steps:
        return temporal
    return F.interpolate(temporal, num_steps, mode="linear", align_corners=False)
