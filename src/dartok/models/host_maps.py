"""The feature maps of a host that knows nothing of us, whichever way it gives them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["change_maps", "host_maps", "tensors_in"]


def host_maps(
    host: nn.Module, images: Float[Tensor, "B C H W"], count: int
) -> list[Float[Tensor, "B D h w"]]:
    """Feature maps of a host, as they are, from fine to coarse.

    Of a hierarchical host the last map of each of its `count` coarsest stages; where it has fewer,
    the coarsest one serves what is left. Of a host whose maps are all of one size, such as a ViT,
    those of blocks at equal distances, the last one among them. Maps are those of timm's
    `forward_intermediates`, or, where a host has none, of its call.

    Args:
        host: Any module that gives maps.
        images: What it is called with.
        count: `>= 1`. Which stages are taken depends on it alone, not on sizes.
    Raises:
        ValueError: If the host gives no maps.
    Example:
        >>> import timm, torch
        >>> maps = host_maps(timm.create_model("test_resnet"), torch.randn(1, 3, 64, 96), 2)
        >>> [tuple(one.shape) for one in maps]
        [(1, 192, 4, 6), (1, 96, 2, 3)]
    """
    intermediates: Any = getattr(host, "forward_intermediates", None)
    if callable(intermediates):
        maps = list(intermediates(images, intermediates_only=True))
    else:
        maps = [one for one in tensors_in(host(images)) if one.ndim == 4]
        if getattr(host, "output_fmt", "NCHW") == "NHWC":
            maps = [one.permute(0, 3, 1, 2) for one in maps]
    if not maps:
        raise ValueError(
            f"{type(host).__name__} gives no feature maps; take timm.create_model(..., "
            "features_only=True), or a model that returns maps (B, D, h, w)"
        )
    return [maps[index] for index in _chosen(_reductions(host, maps), count)]


def tensors_in(output: Any) -> list[Tensor]:
    """The floating point tensors of an output, in the order of its dicts, lists and tuples.

    Example:
        >>> import torch
        >>> tensors_in({"maps": [torch.zeros(1), torch.ones(1)], "classes": ["cat"]})
        [tensor([0.]), tensor([1.])]
    """
    found: list[Tensor] = []

    def note(one: Tensor) -> Tensor:
        found.append(one)
        return one

    change_maps(output, note, num_dims=None)
    return found


def change_maps(output: Any, change: Callable[[Tensor], Tensor], num_dims: int | None = 4) -> Any:
    """An output with each floating point tensor of `num_dims` dimensions in it changed.

    Example:
        >>> import torch
        >>> change_maps({"out": torch.ones(1, 1, 1, 2)}, lambda one: one.sum())
        {'out': tensor(2.)}
    """
    if isinstance(output, Tensor):
        fits = output.is_floating_point() and num_dims in (None, output.ndim)
        return change(output) if fits else output
    if isinstance(output, Mapping):
        return {name: change_maps(value, change, num_dims) for name, value in output.items()}
    if isinstance(output, Sequence) and not isinstance(output, str):
        return [change_maps(value, change, num_dims) for value in output]
    return output


def _reductions(host: nn.Module, maps: Sequence[Tensor]) -> list[float]:
    """By how much each map is smaller than the picture: as timm says, or by its number of cells."""
    info: Any = getattr(host, "feature_info", None)
    known = [one["reduction"] for one in info] if isinstance(info, list) else []
    if len(known) != len(maps) and callable(getattr(info, "reduction", None)):
        known = list(info.reduction())
    if len(known) == len(maps):
        return known
    return [-float(one.shape[-2] * one.shape[-1]) for one in maps]


def _chosen(reductions: Sequence[float], count: int) -> list[int]:
    """Which maps to take: see `host_maps`."""
    last = {reduction: index for index, reduction in enumerate(reductions)}
    stages = [last[reduction] for reduction in sorted(last)]
    if len(stages) == 1:
        blocks = len(reductions)
        return [-(-(number + 1) * blocks // count) - 1 for number in range(count)]
    return [*stages[-count:], *[stages[-1]] * (count - len(stages))]
