"""The patch projection of a host, applied to patches that were sampled already."""

from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["Projection", "check_projection", "patch_sides", "project", "steps_of", "tubelet_of"]

Projection = nn.Conv2d | nn.Conv3d
"""Of images, or of tubelets: `kernel = stride = (frames, height, width)`."""


def check_projection(proj: Projection) -> None:
    """Refuse what does more than project patches side by side: its weight is read, not called.

    Raises:
        ValueError: If it is not a plain `Conv2d` or `Conv3d` with kernel equal to stride.
    """
    plain = all(side == 1 for side in proj.dilation)
    plain = plain and (proj.padding == "valid" or all(side == 0 for side in proj.padding))
    plain = plain and type(proj) in (nn.Conv2d, nn.Conv3d)  # a wrapper would be ignored
    if tuple(proj.kernel_size) != tuple(proj.stride) or proj.groups != 1 or not plain:
        raise ValueError(
            "proj must be a patch projection (a plain Conv2d or Conv3d, kernel equal to stride, "
            f"one group, no padding or dilation), got {proj}"
        )


def patch_sides(proj: Projection) -> tuple[int, int]:
    """Height and width of a patch.

    Example:
        >>> patch_sides(nn.Conv3d(3, 8, (2, 16, 14), (2, 16, 14)))
        (16, 14)
    """
    return (proj.kernel_size[-2], proj.kernel_size[-1])


def steps_of(
    clips: Float[Tensor, "B *T C H W"], proj: Projection
) -> Float[Tensor, "B *S channels H W"]:
    """Clips with the k frames of a tubelet as channels, frame after frame: S = T / k steps.

    Images, and tubelets of one frame, as those of a `Conv2d`, stay as they are.

    Example:
        >>> import torch
        >>> steps_of(torch.rand(1, 8, 3, 32, 32), nn.Conv3d(3, 8, (2, 16, 16), (2, 16, 16))).shape
        torch.Size([1, 4, 6, 32, 32])
    """
    frames = tubelet_of(proj)
    return clips if frames == 1 else clips.unflatten(1, (-1, frames)).flatten(2, 3)


def tubelet_of(proj: Projection) -> int:
    """Frames that one token is made of."""
    return proj.kernel_size[0] if isinstance(proj, nn.Conv3d) else 1


def project(
    patches: Float[Tensor, "B N C patch_height patch_width"], proj: Projection
) -> Float[Tensor, "B N D"]:
    """`proj` of patches, of steps if it is a `Conv3d`.

    A pointwise convolution over tokens, not `proj` itself: the gradient of a strided one with
    respect to its input, which the scorer learns from, is 4 to 14 times as slow on the CPU; nor a
    matrix product, whose library is up to 1.6 times as slow there. Channels last as they lie, (B,
    pixels, 1, N), to copy nothing; columns first, as they were sampled.

    Example:
        >>> import torch
        >>> project(torch.ones(1, 2, 1, 1, 1), nn.Conv2d(1, 8, 1, 1)).shape
        torch.Size([1, 2, 8])
    """
    pixels = patches.transpose(-1, -2).flatten(2).to(proj.weight.dtype)
    pixels = pixels.unsqueeze(1).permute(0, 3, 1, 2)
    weight = proj.weight if proj.weight.ndim == 4 else proj.weight.transpose(1, 2).flatten(1, 2)
    weight = weight.transpose(-1, -2).flatten(1)[:, :, None, None]
    return nn.functional.conv2d(pixels, weight, proj.bias).flatten(2).transpose(1, 2)
