"""What `adapt` must know of a kind of host: how to take it apart and put it together again."""

from typing import NamedTuple, Protocol

from jaxtyping import Float
from torch import Tensor, nn

from dartok.core.projection import Projection, patch_sides, tubelet_of
from dartok.models.patch_embed import RegionPatchEmbed

__all__ = ["Family", "Parts", "check_whole_patches"]


class Parts(NamedTuple):
    """The parts of a host that the tokenizer takes over; they are shared, not copied."""

    proj: Projection
    """Patch projection: kernel equal to stride; of tubelets for a host of clips."""
    norm: nn.Module | None
    """What follows the projection, before the positions."""
    positions: Float[Tensor, "1 D rows columns"] | None
    """The patch positions as a map, a contiguous copy; None where the host adds none."""
    image_px: tuple[int, int]
    """Height and width of the pictures that the host is made for."""
    time_positions: Float[Tensor, "1 D steps"] | None = None
    """The positions of a clip's steps, a contiguous copy; None where the host adds none."""
    num_frames: int | None = None
    """Frames of the clips that the host is made for; None for pictures."""

    @property
    def num_patches(self) -> int:
        """Tokens of the host's fixed grid, of all its steps for a host of clips."""
        height, width = patch_sides(self.proj)
        steps = 1 if self.num_frames is None else self.num_frames // tubelet_of(self.proj)
        return steps * (self.image_px[0] // height) * (self.image_px[1] // width)

    @property
    def shape(self) -> tuple[int, ...]:
        """`(C, H, W)` of the host's pictures, `(T, C, H, W)` of its clips."""
        picture = (self.proj.in_channels, *self.image_px)
        return picture if self.num_frames is None else (self.num_frames, *picture)


class Family(Protocol):
    """One kind of host."""

    def take_apart(self, host: nn.Module) -> Parts:
        """Read the host's parts; the host is not changed.

        Raises:
            ValueError: Naming the part that cannot be carried over.
        """

    def put_together(self, host: nn.Module, embed: RegionPatchEmbed) -> nn.Module:
        """A new model that shares the host's other parts, with `embed` in front of them."""

    def features(self, model: nn.Module, images: Tensor) -> Tensor:
        """What is compared at the start, of a host or of the adapted model: all its tokens."""


def check_whole_patches(name: str, image_px: tuple[int, int], patch_px: tuple[int, int]) -> None:
    """Refuse a host that ignores a border of its pictures: regions cover all of them.

    Raises:
        ValueError: Naming the size that the host can be set to.
    """
    if any(side % patch for side, patch in zip(image_px, patch_px, strict=True)):
        whole = tuple(s // p * p for s, p in zip(image_px, patch_px, strict=True))
        raise ValueError(
            f"adapt cannot carry over {name} at {image_px} px: it ignores the border beyond "
            f"its last {patch_px} px patch; call host.set_input_size({whole}) first"
        )
