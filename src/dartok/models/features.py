"""Dense features: the tokens of some blocks, painted on maps of any size."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dartok.core.modes import in_eval_mode
from dartok.core.names import whole_number
from dartok.core.partition import partition
from dartok.core.regions import Regions, tokens_of
from dartok.core.steering import Priority, Steering
from dartok.models.hf_blocks import TransformersBlocks, is_encoder
from dartok.models.intermediates import RegionBlocks

__all__ = ["DenseEncoder", "RegionTokens", "features", "map_sizes", "region_tokens"]

Size = tuple[int, int]


class RegionTokens(NamedTuple):
    """Tokens behind some blocks of an adapted model, and what they stand for."""

    regions: Regions
    """Padded where images have counts of their own: see `Regions.is_region`."""
    tokens: list[Float[Tensor, "B N D"]]
    """One for each layer asked for, without class token and registers."""


def features(
    model: nn.Module,
    images: Float[Tensor, "B C H W"],
    *,
    strides: Sequence[int] = (4, 8, 16, 32),
    sizes: Sequence[Size] | None = None,
    layers: Sequence[int] | None = None,
    norm: bool = True,
    priority: Priority | None = None,
    priority_weight: float = 2.0,
) -> list[Float[Tensor, "B D h w"]]:
    """Maps of a model's features at any sizes, whatever its number of tokens: finest first.

    The tokens behind block `layers[i]` are painted on map i: a cell is the mean of the regions over
    it, by area (`Regions.to_map`). No cell sees padding; gradients reach the scorer. The image is
    scored once. Nothing is kept in the model, so threads may share it.

    A model that is not adapted serves for comparison: the maps of a timm model on a fixed grid, or
    of one with stages, are painted in the same way on the sizes asked for. A model with a method
    `dense_features(images, sizes)` of its own, which returns one map for each size, answers itself.

    Args:
        model: What `dartok.adapt` returned, or what holds it; else as above.
        images: Of any size, normalised as for the model.
        strides: Pixels of the image per cell; the maps are `ceil(H / stride)` high.
        sizes: Height and width of each map in cells, instead of strides.
        layers: For each map the number of a block, from 0 or, backwards, from -1; None for blocks
            spread evenly, the last one on the last map.
        norm: Whether the model's last norm follows each block, which brings all to one scale.
        priority: What is important in each image: see `dartok.steer`.
        priority_weight: Of the priority.
    Returns:
        One map for each stride or size, in the model's dtype; channels last in memory.
    Raises:
        ValueError: If a stride, size or block is out of range, tokens were dropped by patch_drop,
            or the model can give no maps.
    Example:
        >>> import timm, torch, dartok
        >>> model = dartok.adapt(timm.create_model("test_vit"), num_tokens=30)
        >>> maps = features(model, torch.randn(2, 3, 100, 128))
        >>> [tuple(one.shape) for one in maps]
        [(2, 64, 25, 32), (2, 64, 13, 16), (2, 64, 7, 8), (2, 64, 4, 4)]
    """
    count = _num_maps(strides, sizes, layers)
    steered = priority is not None
    if callable(getattr(model, "dense_features", None)):
        _check_plain(model, layers=layers, steered=steered)
        answer: Any = model
        return answer.dense_features(images, _sizes_of(images, strides, sizes))
    blocks = _blocks_in(model)
    if blocks is None:
        _check_plain(model, layers=None, steered=steered)
        maps = _grid_maps(model, images, layers, count, norm)
        return [_on_cells(one, size) for one, size in _paired(maps, images, strides, sizes)]
    regions, tokens = region_tokens(
        model,
        images,
        _spread(count, blocks.num_blocks) if layers is None else layers,
        norm=norm,
        priority=priority,
        priority_weight=priority_weight,
    )
    return [regions.to_map(one, size) for one, size in _paired(tokens, images, strides, sizes)]


def region_tokens(
    model: nn.Module,
    images: Float[Tensor, "B C H W"],
    layers: Sequence[int] = (-1,),
    *,
    norm: bool = True,
    priority: Priority | None = None,
    priority_weight: float = 2.0,
) -> RegionTokens:
    """The tokens of some blocks of an adapted model, and the regions that they stand for.

    One pass of the scorer and of the blocks up to the last one asked for. Nothing is kept in the
    model. A decoder works on the N tokens and paints at the end: `regions.to_map(tokens, size)`.

    Args:
        model: What `dartok.adapt` returned, or what holds it.
        images: Normalised as for the model.
        layers: Numbers of blocks, from 0 or, backwards, from -1; in any order, also repeated.
        norm: Whether the model's last norm follows, which brings all blocks to one scale.
        priority: What is important in each image: see `dartok.steer`.
        priority_weight: Of the priority.
    Raises:
        ValueError: If the model is not adapted, a block is not there, or tokens were dropped.
    Example:
        >>> import timm, torch, dartok
        >>> model = dartok.adapt(timm.create_model("test_vit"), num_tokens=30)
        >>> regions, tokens = region_tokens(model, torch.randn(2, 3, 80, 96), (2, 5))
        >>> regions.num_tokens, [tuple(one.shape) for one in tokens]
        (30, [(2, 30, 64), (2, 30, 64)])
    """
    blocks = _blocks_in(model)
    if blocks is None:
        raise ValueError(
            f"model must be one that dartok.adapt returned, or hold one, got {_name(model)}"
        )
    numbers = _block_numbers(layers, blocks.num_blocks)
    images = blocks.as_images(images)
    steering = None if priority is None else Steering(priority, priority_weight)
    regions = blocks.tokenizer.regions(images, steering)
    found = blocks.block_tokens(images, regions, sorted(set(numbers)), norm=norm)
    own = {number: tokens[:, blocks.num_prefix :] for number, tokens in found.items()}
    _check_whole(regions, own[numbers[0]])
    return RegionTokens(regions, [own[number] for number in numbers])


class DenseEncoder(nn.Module):
    """A model as an encoder of maps: `features` as a module, to train, compile and distribute.

    What the maps do not need, such as a classifier's head, gets no gradient. Distributed training
    refuses that: give it a host without one (`num_classes=0`).

    Args:
        model: As of `features`; held as `model`, not copied.
        strides: Pixels of the image per cell of each map.
        layers: The block of each map; None for blocks spread evenly.
        norm: Whether the model's last norm follows each block.
    Raises:
        ValueError: If an option is out of range, or the model can give no maps.
    Example:
        >>> import timm, torch, dartok
        >>> model = dartok.adapt(timm.create_model("test_vit", num_classes=0), num_tokens=30)
        >>> encoder = DenseEncoder(model, strides=(8, 16))
        >>> encoder.channels
        (64, 64)
        >>> [tuple(one.shape) for one in encoder(torch.randn(1, 3, 64, 64))]
        [(1, 64, 8, 8), (1, 64, 4, 4)]
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        strides: Sequence[int] = (4, 8, 16, 32),
        layers: Sequence[int] | None = None,
        norm: bool = True,
    ) -> None:
        super().__init__()
        count = _num_maps(strides, None, layers)
        self.model = model
        self.strides = tuple(strides)
        self.channels = _channels_of(model, layers, count)
        self.layers = None if layers is None else tuple(layers)
        self.norm = norm

    @property
    def takes_budgets(self) -> bool:
        """Whether `dartok.set_num_tokens(encoder, "auto")` is possible."""
        return getattr(self.model, "takes_budgets", False)

    def forward(self, images: Float[Tensor, "B C H W"]) -> list[Float[Tensor, "B D h w"]]:
        return features(
            self.model, images, strides=self.strides, layers=self.layers, norm=self.norm
        )

    def extra_repr(self) -> str:
        """The settings, as `repr` shows them."""
        return f"strides={self.strides}, layers={self.layers}, norm={self.norm}"


def map_sizes(size_px: Size, strides: Sequence[int]) -> list[Size]:
    """Height and width in cells of the maps of an image: its size over the stride, rounded up.

    Example:
        >>> map_sizes((100, 128), (8, 32))
        [(13, 16), (4, 4)]
    """
    height, width = size_px
    return [(-(-height // stride), -(-width // stride)) for stride in strides]


def _num_maps(
    strides: Sequence[int], sizes: Sequence[Size] | None, layers: Sequence[int] | None
) -> int:
    if isinstance(strides, int):
        raise ValueError(f"strides must be one for each map, as (8, 16), got {strides}")
    for stride in strides:
        whole_number("strides", stride)
    for size in sizes or ():
        if not _is_size(size):
            raise ValueError(
                f"sizes must be (height, width) of at least 1 cell for each map, got {size}"
            )
    count = len(strides if sizes is None else sizes)
    if count == 0:
        raise ValueError("strides or sizes must name at least one map, got none")
    if layers is not None and len(layers) != count:
        raise ValueError(
            f"layers must name one block for each of the {count} maps, got {tuple(layers)}"
        )
    return count


def _is_size(size: object) -> bool:
    return isinstance(size, Sequence) and len(size) == 2 and min(size) >= 1


def _sizes_of(
    images: Tensor, strides: Sequence[int], sizes: Sequence[Size] | None
) -> Sequence[Size]:
    return map_sizes((images.shape[-2], images.shape[-1]), strides) if sizes is None else sizes


def _paired(
    values: Sequence[Tensor], images: Tensor, strides: Sequence[int], sizes: Sequence[Size] | None
) -> list[tuple[Tensor, Size]]:
    return list(zip(values, _sizes_of(images, strides, sizes), strict=True))


def _spread(num_maps: int, num_blocks: int) -> list[int]:
    """Blocks spread evenly, the last one among them; fewer blocks than maps serve several."""
    return [-(-(number + 1) * num_blocks // num_maps) - 1 for number in range(num_maps)]


def _block_numbers(layers: Sequence[int], num_blocks: int) -> list[int]:
    if isinstance(layers, int) or len(layers) == 0:
        raise ValueError(f"layers must be numbers of blocks, as (2, 5, 8, 11), got {layers!r}")
    for number in layers:
        if not -num_blocks <= number < num_blocks:
            raise ValueError(
                f"layers must be from {-num_blocks} to {num_blocks - 1} in a model of {num_blocks} "
                f"blocks, got {number}"
            )
    return [int(number) % num_blocks for number in layers]


def _blocks_in(model: nn.Module) -> RegionBlocks | None:
    for module in model.modules():
        if isinstance(module, RegionBlocks):
            return module
        if is_encoder(module):
            return TransformersBlocks(module)
    return None


def _check_whole(regions: Regions, tokens: Tensor) -> None:
    if tokens.shape[1] != tokens_of(regions):
        raise ValueError(
            f"features need a token of each of the {tokens_of(regions)} regions, got "
            f"{tokens.shape[1]} behind patch_drop; create the host with patch_drop_rate=0"
        )


def _check_plain(model: nn.Module, *, layers: Sequence[int] | None, steered: bool) -> None:
    if layers is not None:
        raise ValueError(f"layers must be None for {_name(model)}, which chooses them itself")
    if steered:
        raise ValueError(f"priority needs regions to direct, and {_name(model)} has none to steer")


def _stages_of(model: nn.Module) -> list[dict[str, Any]]:
    """Where a timm model on a fixed grid can be read, and how wide it is there."""
    info = getattr(model, "feature_info", None)
    if info is None or not callable(getattr(model, "forward_intermediates", None)):
        raise ValueError(
            f"features need a model that dartok.adapt returned, a timm model with "
            f"forward_intermediates, or one with dense_features, got {_name(model)}"
        )
    return list(info)


def _grid_maps(
    model: nn.Module, images: Tensor, layers: Sequence[int] | None, count: int, norm: bool
) -> list[Tensor]:
    stages = len(_stages_of(model))
    numbers = _spread(count, stages) if layers is None else _block_numbers(layers, stages)
    wanted = sorted(set(numbers))
    host: Any = model
    found = host.forward_intermediates(images, wanted, norm=norm, intermediates_only=True)
    return [found[wanted.index(number)] for number in numbers]


def _on_cells(values: Float[Tensor, "B D rows columns"], size: Size) -> Float[Tensor, "B D h w"]:
    """A map on other cells, each the mean of what lies over it, by area."""
    batch, _, rows, columns = values.shape
    if (rows, columns) == tuple(size):
        return values
    even = partition(
        values.new_ones((1, 1, 1), dtype=torch.float32), num_tokens=rows * columns, num_rows=rows
    )
    regions = Regions(even.row_edges.expand(batch, -1, -1), even.strip_edges.expand(batch, -1))
    return regions.to_map(values.flatten(2).transpose(1, 2), size)


def _channels_of(model: nn.Module, layers: Sequence[int] | None, count: int) -> tuple[int, ...]:
    if callable(getattr(model, "dense_features", None)):
        _check_plain(model, layers=layers, steered=False)
        return _probed_channels(model, count)
    blocks = _blocks_in(model)
    if blocks is not None:
        _block_numbers(layers or (-1,), blocks.num_blocks)
        return (blocks.tokenizer.proj.out_channels,) * count
    stages = _stages_of(model)
    numbers = _spread(count, len(stages)) if layers is None else _block_numbers(layers, len(stages))
    return tuple(stages[number]["num_chs"] for number in numbers)


@torch.no_grad()
def _probed_channels(model: Any, count: int) -> tuple[int, ...]:
    """Those of a model's own maps, of a grey picture: it need not announce them."""
    like = next(model.parameters())
    with in_eval_mode(model):
        maps = model.dense_features(like.new_zeros((1, 3, 64, 64)), [(1, 1)] * count)
    return tuple(one.shape[1] for one in maps)


def _name(model: object) -> str:
    return f"a {type(model).__name__}"
