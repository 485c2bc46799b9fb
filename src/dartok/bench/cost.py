"""What a model costs: parameters, multiply-adds and images per second."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dartok.bench.timing import time_interleaved

__all__ = ["Cost", "images_per_second", "measure_cost"]


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a model costs, whatever the machine.

    Example:
        >>> Cost(parameters=9, trainable_parameters=5, multiply_adds=100)
        Cost(parameters=9, trainable_parameters=5, multiply_adds=100)
    """

    parameters: int
    """Numbers that the model has learnt, frozen ones included."""
    trainable_parameters: int
    """Those that a training would change."""
    multiply_adds: int
    """Of one image's forward pass: matrix products, convolutions and attention."""


def measure_cost(
    model: nn.Module,
    image_size: tuple[int, int],
    *,
    num_channels: int = 3,
    num_frames: int | None = None,
) -> Cost:
    """Parameters, and multiply-adds for one image of `image_size` = (height, width) pixels.

    Multiply-adds are half the floating-point operations that PyTorch counts. Interpolation,
    `grid_sample` and elementwise operations count 0 there.

    Args:
        model: Maps images to anything.
        image_size: Height and width in pixels, each `>= 1`.
        num_channels: Channels of the images.
        num_frames: Frames of a clip, for a model of clips; None for an image.
    Raises:
        ValueError: If a side, `num_channels` or `num_frames` is below 1.
    Example:
        >>> cost = measure_cost(nn.Conv2d(3, 8, kernel_size=4, stride=4), (16, 16))
        >>> cost.parameters, cost.multiply_adds
        (392, 6144)
    """
    if min(*image_size, num_channels) < 1:
        raise ValueError(
            f"image_size and num_channels must be >= 1, got {image_size} and {num_channels}"
        )
    if num_frames is not None and num_frames < 1:
        raise ValueError(f"num_frames must be >= 1, got {num_frames}")
    parameters = list(model.parameters())
    image = _blank_image(parameters, num_channels, image_size)
    if num_frames is not None:
        image = image.unsqueeze(1).expand(-1, num_frames, -1, -1, -1)
    return Cost(
        parameters=sum(p.numel() for p in parameters),
        trainable_parameters=sum(p.numel() for p in parameters if p.requires_grad),
        multiply_adds=_multiply_adds(model, image),
    )


def images_per_second(
    models: Mapping[str, nn.Module], images: Float[Tensor, "B C H W"], *, rounds: int = 9
) -> dict[str, float]:
    """Images per second of each model in eval mode: medians of interleaved rounds.

    Rates of one call can be compared; a machine that throttles or is shared favours no model.

    Args:
        models: Name to a model on the images' device; at least one. Their modes are kept.
        images: One batch, `B >= 1`.
        rounds: Timed forward passes of each model, `>= 1`.
    Raises:
        ValueError: If there is no model, no image or `rounds < 1`.
    Example:
        >>> list(images_per_second({"none": nn.Identity()}, torch.rand(2, 3, 8, 8), rounds=1))
        ['none']
    """
    if len(images) == 0:
        raise ValueError(f"images must hold at least one image, got shape {tuple(images.shape)}")
    was_training = {name: model.training for name, model in models.items()}
    for model in models.values():
        model.eval()
    on_gpu = images.device.type == "cuda"
    with torch.inference_mode():
        timings = time_interleaved(
            {name: _forward(model, images) for name, model in models.items()},
            rounds=rounds,
            synchronise=torch.cuda.synchronize if on_gpu else lambda: None,
        )
    for name, model in models.items():
        model.train(was_training[name])
    return {name: len(images) / timing.median_s for name, timing in timings.items()}


def _forward(model: nn.Module, images: Tensor) -> Callable[[], object]:
    return lambda: model(images)


def _blank_image(
    parameters: list[nn.Parameter], num_channels: int, image_size: tuple[int, int]
) -> Float[Tensor, "1 C H W"]:
    like = next((p for p in parameters if p.is_floating_point()), torch.empty(0))
    return torch.zeros(1, num_channels, *image_size, dtype=like.dtype, device=like.device)


@torch.no_grad()
def _multiply_adds(model: nn.Module, image: Float[Tensor, "1 C H W"]) -> int:
    was_training = model.training
    model.eval()
    with FlopCounterMode(display=False) as counter:
        model(image)
    model.train(was_training)
    return counter.get_total_flops() // 2
