"""Trace a model by `torch.export`, and the inputs that its graph is tried on."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from dartok.models.dials import tokenizer_of

__all__ = ["Inputs", "Shapes", "first_output", "trace"]

_MOST_TOKENS = 65536
_BATCHES = (1, 2, 3)
_GRAIN_PX = 4


class Inputs(NamedTuple):
    """What a graph is run on."""

    batch_size: int
    image_px: tuple[int, int]
    num_tokens: int | None
    """None where it is fixed."""
    num_frames: int | None = None
    """Of clips; None for images."""

    def __str__(self) -> str:
        frames = "" if self.num_frames is None else f"{self.num_frames} x "
        text = f"{self.batch_size} x {frames}{self.image_px[0]} x {self.image_px[1]} px"
        return text if self.num_tokens is None else f"{text}, {self.num_tokens} tokens"

    def pictures(self, num_channels: int) -> Iterator[Float[Tensor, "B *T C H W"]]:
        """Noise, in which every region is another, and waves with a bright square, as a scene.

        The frames of a clip are pictures of their own.
        """
        frames = () if self.num_frames is None else (self.num_frames,)
        shape = (self.batch_size * (self.num_frames or 1), num_channels, *self.image_px)
        for picture in (_noise(shape), _scene(shape)):
            yield picture.unflatten(0, (self.batch_size, *frames))

    def arguments(self, images: Tensor) -> tuple[Tensor, ...]:
        """The graph's inputs."""
        return (images,) if self.num_tokens is None else (images, torch.tensor(self.num_tokens))


class Shapes(NamedTuple):
    """What is left open in a graph; the batch always is."""

    any_size: bool
    any_num_tokens: bool
    image_px: tuple[int, int]
    """Height and width that the model is meant for."""
    patch_px: tuple[int, int]
    """Height and width of a patch: no picture may be smaller."""
    num_frames: int | None = None
    """Of the clips that the model sees; None for images."""

    def trials(self, num_tokens: int, small: float) -> Iterator[Inputs]:
        """Batches and sizes to try a graph on: as meant, and where it is open wider and larger."""
        height, width = self.image_px
        sizes = [self.image_px]
        if self.any_size:
            low = max(height // 2 + 3, self.patch_px[0])
            sizes += [(low, width + 16), (2 * height, 2 * width)]
        for size in sizes:
            for batch_size in _BATCHES:
                count = num_tokens if self.any_num_tokens else None
                yield Inputs(batch_size, size, count, self.num_frames)
        if self.any_num_tokens:
            yield Inputs(2, self.image_px, max(2, round(num_tokens * small)), None)
            yield Inputs(1, sizes[-1], 2 * num_tokens, None)


def trace(model: nn.Module, shapes: Shapes) -> ExportedProgram:
    """The model's graph, with what `shapes` leaves open.

    The example has two images: of one, a tracer makes a graph for one only.
    """
    tokenizer = tokenizer_of(model)
    height, width = shapes.image_px
    frames = () if shapes.num_frames is None else (shapes.num_frames,)
    channels = tokenizer.proj.in_channels
    images = torch.zeros(2, *frames, channels, height, width + 16 * shapes.any_size)
    open_sides: dict[int, Any] = {0: Dim("batch")}
    if shapes.any_size:
        low = tokenizer.patch_size
        open_sides |= {2: Dim("height", min=low[0]), 3: Dim("width", min=low[1])}
    graph: nn.Module = _Images(model)
    arguments: tuple[Tensor, ...] = (images,)
    dynamic: tuple[dict[int, Any], ...] = (open_sides,)
    if shapes.any_num_tokens:
        graph = _ImagesAndCount(model)
        arguments, dynamic = (images, torch.tensor(tokenizer.num_tokens)), (open_sides, {})
    with torch.no_grad():
        return torch.export.export(graph.eval(), arguments, dynamic_shapes=dynamic, strict=False)


class _Images(nn.Module):
    """The model with pictures as its only input."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Float[Tensor, "B *T C H W"]) -> Tensor:
        return first_output(self.model(images))


class _ImagesAndCount(nn.Module):
    """The model with pictures and the number of their tokens as inputs."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer_of(model)

    def forward(self, images: Float[Tensor, "B C H W"], num_tokens: Int[Tensor, ""]) -> Tensor:
        count: Any = num_tokens.item()  # a symbol of the graph
        torch._check(count >= 2)  # tracers tell 1 apart: older ones cannot leave it open
        torch._check(count <= _MOST_TOKENS)
        regions = self.tokenizer.cut_to(
            num_tokens.reshape(1),
            self.tokenizer.scores(images),
            images,
            num_tokens=count,
            most=self.tokenizer.num_tokens,
        )
        with self.tokenizer.knowing(regions._replace(counts=None)):
            return first_output(self.model(images))


def first_output(outputs: Any) -> Tensor:
    """The logits, or what a model of transformers gives first."""
    return outputs if isinstance(outputs, Tensor) else outputs[0]


def _noise(shape: tuple[int, int, int, int]) -> Tensor:
    """Of a grain of 4 px, the finest in photographs: white noise shows where float32 rounds."""
    generator = torch.Generator().manual_seed(shape[2] + shape[3])
    grains = (-(-shape[2] // _GRAIN_PX), -(-shape[3] // _GRAIN_PX))
    noise = torch.randn((*shape[:2], *grains), generator=generator)
    return nn.functional.interpolate(noise, shape[2:], mode="bilinear")


def _scene(shape: tuple[int, int, int, int]) -> Tensor:
    batch, channels, height, width = shape
    down, across = torch.linspace(0, 1, height)[:, None], torch.linspace(0, 1, width)
    phases = torch.arange(batch * channels).view(batch, channels, 1, 1)
    images = torch.sin(9 * across * (1 + phases % 3) + phases) * torch.cos(7 * down + phases)
    images[..., height // 4 : height // 2, width // 2 : 3 * width // 4] += 1.5
    return images
