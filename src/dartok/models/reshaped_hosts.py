"""Hosts behind a reshaper: what they are called with is warped, what they give can be unwarped."""

import re
from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from dartok.core.reshaper import GridReshaper
from dartok.models.host_maps import change_maps, host_maps

__all__ = ["ReshapedModel", "ReshapedTimm"]

_OF_HOST = (
    "default_cfg",
    "feature_info",
    "forward_head",
    "get_classifier",
    "global_pool",
    "grad_checkpointing",
    "head_hidden_size",
    "num_classes",
    "num_features",
    "output_fmt",
    "pretrained_cfg",
    "reset_classifier",
    "set_grad_checkpointing",
)
"""Attributes and methods that the reshaped model has if its host has them."""


class ReshapedModel(nn.Module):
    """A model of pictures behind a `GridReshaper`: `host(reshaper(images).images)`.

    Made by `dartok.reshape`. Its outputs lie in the warped picture, which does not matter to a
    class, but to everything with a place:

    - features: `dense_features(images, sizes)`;
    - logits and other maps that the host returns: `dense_outputs(images)`;
    - anything else, such as boxes: `warped, lattice = model.reshaper(images)`, then
      `lattice.boxes_to_image`, `lattice.boxes_to_warped` for targets, `lattice.unwarp`.

    `dartok.set_strength`, `dartok.regions` and `dartok.steer` work as on an adapted model.

    Args:
        host: The model; held, not copied.
        reshaper: In front of it.
    Example:
        >>> import dartok, timm, torch
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 2, 1))
        >>> model = dartok.reshape(net, size_px=64, strength=1.0)
        >>> images = torch.rand(1, 3, 120, 200)
        >>> model(images).shape, model.dense_outputs(images).shape
        (torch.Size([1, 2, 64, 64]), torch.Size([1, 2, 120, 200]))
    """

    def __init__(self, host: nn.Module, reshaper: GridReshaper) -> None:
        super().__init__()
        self.host = host
        self.reshaper = reshaper.train(host.training)
        self.training = host.training  # `train` would also reach what the host has frozen

    def forward(self, images: Float[Tensor, "B C H W"]) -> Any:
        return self.host(self.reshaper(images).images)

    def dense_features(
        self, images: Float[Tensor, "B C H W"], sizes: Sequence[tuple[int, int]]
    ) -> list[Float[Tensor, "B D h w"]]:
        """Feature maps of the host's stages, each unwarped onto the picture.

        Four sizes get the four stages of a ConvNeXt, two its last two, of strides 16 and 32; where
        there are more sizes than stages, the last one serves all that is left. A ViT, whose maps
        are all of one size, gives blocks at equal distances.

        Args:
            images: Of any size.
            sizes: Height and width of each map, from fine to coarse; any is right for any stage.
        Returns:
            One map for each size, of as many channels as the host's stage has.
        Raises:
            ValueError: If the host gives no maps or a size is below 1.
        """
        if not sizes or min(min(size) for size in sizes) < 1:
            raise ValueError(f"sizes must be (height, width) of at least 1, got {list(sizes)}")
        warped, lattice = self.reshaper(images)
        maps = host_maps(self.host, warped, len(sizes))
        return [lattice.unwarp(one, size) for one, size in zip(maps, sizes, strict=True)]

    def dense_outputs(
        self, images: Float[Tensor, "B C H W"], size: tuple[int, int] | None = None
    ) -> Any:
        """What the host returns, each map `(B, D, h, w)` in it unwarped onto the picture.

        For a loss the labels stay as they are: it is computed in the picture.

        Args:
            images: Of any size.
            size: Height and width of the maps; None for those of the images.
        Returns:
            A map, or dicts and lists of maps, as the host returns them.
        Raises:
            ValueError: If there is no map among the outputs, or a side of `size` is below 1.
        """
        if getattr(self.host, "output_fmt", "NCHW") != "NCHW":
            raise ValueError(
                f"{type(self.host).__name__} returns maps with channels last, not (B, D, h, w); "
                "use dense_features"
            )
        warped, lattice = self.reshaper(images)
        output = self.host(warped)
        onto = size or (images.shape[-2], images.shape[-1])
        found: list[Tensor] = []

        def unwarp(one: Tensor) -> Tensor:
            found.append(lattice.unwarp(one, onto))
            return found[-1]

        unwarped = change_maps(output, unwarp)
        if not found:
            raise ValueError(
                f"{type(self.host).__name__} returns no maps (B, D, h, w) to unwarp; call the "
                "model for its outputs, or dense_features for its features"
            )
        return unwarped

    def __getattr__(self, name: str) -> Any:
        return getattr(self.host, name) if name in _OF_HOST else super().__getattr__(name)


class ReshapedTimm(ReshapedModel):
    """A model of timm behind a reshaper, with the methods of timm's models.

    Features and intermediates are those of the warped picture, as `forward_head` and decoders that
    are trained on them expect; `dense_features` gives them on the picture.
    """

    host: Any

    def forward_features(self, x: Float[Tensor, "B C H W"]) -> Tensor:
        """The host's features of the warped pictures."""
        return self.host.forward_features(self.reshaper(x).images)

    def forward_intermediates(
        self, x: Float[Tensor, "B C H W"], *positional: Any, **options: Any
    ) -> Any:
        """The host's method, with its options, on the warped pictures; maps are not unwarped."""
        return self.host.forward_intermediates(self.reshaper(x).images, *positional, **options)

    def no_weight_decay(self) -> set[str]:
        """timm's set, by the names that the parameters have here."""
        names: set[str] = getattr(self.host, "no_weight_decay", set)()
        return {f"host.{name}" for name in names}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """timm's layers, by the names that the parameters have here; the scorer is of the stem."""
        groups = dict(self.host.group_matcher(coarse=coarse))
        for name, pattern in groups.items():
            if isinstance(pattern, str):
                groups[name] = _in_host(pattern)
            elif pattern is not None:
                groups[name] = [(_in_host(one), layer) for one, layer in pattern]
        if isinstance(groups.get("stem"), str):
            groups["stem"] = rf"{groups['stem']}|reshaper\."
        return groups


def _in_host(pattern: str) -> str:
    """A pattern that `re.match` finds in names behind "host."."""
    anchorless = re.sub(r"(?<!\[)\^", "", pattern)
    return rf"host\.(?:{anchorless})"
