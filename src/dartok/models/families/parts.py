"""What `adapt` must know of a kind of host: how to take it apart and put it together again."""

from typing import NamedTuple, Protocol

from jaxtyping import Float
from torch import Tensor, nn

from dartok.models.patch_embed import RegionPatchEmbed

__all__ = ["Family", "Parts", "check_whole_patches"]


class Parts(NamedTuple):
    """The parts of a host that the tokenizer takes over; they are shared, not copied."""

    proj: nn.Conv2d
    """Patch projection: kernel equal to stride."""
    norm: nn.Module | None
    """What follows the projection, before the positions."""
    positions: Float[Tensor, "1 D rows columns"] | None
    """The patch positions as a map, a contiguous copy; None where the host adds none."""
    image_px: tuple[int, int]
    """Height and width of the pictures that the host is made for."""

    @property
    def num_patches(self) -> int:
        """Tokens of the host's fixed grid."""
        rows, columns = (
            side // patch for side, patch in zip(self.image_px, self.proj.kernel_size, strict=True)
        )
        return rows * columns


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
