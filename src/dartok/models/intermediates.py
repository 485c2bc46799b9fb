"""Feature maps of adapted models: painted from the tokens, returned as timm returns its own."""

from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

from jaxtyping import Float
from timm.models._features import feature_take_indices
from torch import Tensor

from dartok.core.regions import Regions, tokens_of
from dartok.core.tokenizer import Tokenizer

__all__ = [
    "Entered",
    "Intermediates",
    "RegionBlocks",
    "as_dict",
    "as_tuple",
    "check_output_fmt",
    "laid_out",
    "painted",
]


class Entered(NamedTuple):
    """What the first block receives, and the blocks."""

    tokens: Float[Tensor, "B prefix+N D"]
    blocks: Sequence[Callable[[Tensor], Tensor]]
    """Each takes and returns tokens: masks, angles and biases of the regions are filled in."""


class Intermediates(NamedTuple):
    """What `forward_intermediates` returns, before timm's layouts."""

    final: Tensor | None
    maps: list[Tensor]
    prefixes: list[Tensor]


class RegionBlocks:
    """A transformer whose blocks run on the tokens of regions, one after the other.

    A host says how its blocks are entered; the forward pass, `forward_intermediates` and
    `dartok.features` all walk through them here.
    """

    @property
    def tokenizer(self) -> Tokenizer:
        """What cuts the images and embeds their regions."""
        host: Any = self
        return host.patch_embed

    @property
    def num_prefix(self) -> int:
        """Tokens before those of the regions."""
        host: Any = self
        return host.num_prefix_tokens

    @property
    def num_blocks(self) -> int:
        """How many blocks there are."""
        host: Any = self
        return len(host.blocks)

    def entered(
        self,
        images: Float[Tensor, "B C H W"],
        regions: Regions,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Entered:
        """The tokens of regions that are known, at the first block; the padding is masked."""
        raise NotImplementedError

    def normed(self, tokens: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        """Tokens behind the last norm."""
        host: Any = self
        return host.norm(tokens)

    def features_of(
        self,
        x: Float[Tensor, "B C H W"],
        regions: Regions,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Float[Tensor, "B prefix+N D"]:
        """`forward_features` of regions that are known; the padding is masked."""
        return self.normed(_through(self.entered(x, regions, attn_mask, is_causal))[0])

    def as_images(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Pictures as the host converts them before it cuts them."""
        return images

    def block_tokens(
        self,
        images: Float[Tensor, "B C H W"],
        regions: Regions,
        blocks: Collection[int],
        *,
        norm: bool,
    ) -> dict[int, Float[Tensor, "B prefix+N D"]]:
        """Tokens behind some blocks, by their numbers from 0; those after the last do not run."""
        _, found = _through(self.entered(images, regions), taken=blocks, last=max(blocks))
        return {index: self.normed(one) if norm else one for index, one in found.items()}

    def intermediates_of(
        self,
        x: Float[Tensor, "B C H W"],
        indices: int | list[int] | None,
        *,
        norm: bool,
        stop_early: bool,
        output_fmt: str,
        with_prefix: bool,
        intermediates_only: bool,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Intermediates:
        """timm's `forward_intermediates`, whose arguments these are.

        Raises:
            ValueError: If `output_fmt` is neither "NCHW" nor "NLC", or tokens were dropped.
        """
        check_output_fmt(output_fmt)
        regions = self.tokenizer.regions(x)
        taken, last = feature_take_indices(self.num_blocks, indices)
        entered = self.entered(x, regions, attn_mask, is_causal)
        tokens, found = _through(entered, taken=taken, last=last if stop_early else None)
        height, width = self.tokenizer.patch_size
        maps, prefixes = laid_out(
            [self.normed(one) if norm else one for one in found.values()],
            regions,
            (x.shape[-2] // height, x.shape[-1] // width),
            num_prefix=self.num_prefix,
            output_fmt=output_fmt,
            with_prefix=with_prefix,
        )
        return Intermediates(None if intermediates_only else self.normed(tokens), maps, prefixes)


def _through(
    entered: Entered, *, taken: Collection[int] = (), last: int | None = None
) -> tuple[Tensor, dict[int, Tensor]]:
    """Tokens behind the last block that is run, and behind those that are taken, in order."""
    tokens, found = entered.tokens, {}
    for index, block in enumerate(entered.blocks[: None if last is None else last + 1]):
        tokens = block(tokens)
        if index in taken:
            found[index] = tokens
    return tokens, found


def check_output_fmt(output_fmt: str) -> None:
    """Refuse a format that timm's `forward_intermediates` does not know either.

    Raises:
        ValueError: If `output_fmt` is neither "NCHW" nor "NLC".
    """
    if output_fmt not in ("NCHW", "NLC"):
        raise ValueError(f"output_fmt must be one of NCHW, NLC, got {output_fmt!r}")


def laid_out(
    found: Sequence[Tensor],
    regions: Regions,
    size: tuple[int, int],
    *,
    num_prefix: int,
    output_fmt: str,
    with_prefix: bool,
) -> tuple[list[Tensor], list[Tensor]]:
    """Tokens `(B, prefix + N, D)` of several blocks, as timm returns them.

    Args:
        found: One for each block that was asked for.
        regions: What the N tokens stand for.
        size: Height and width of the maps, in cells.
        num_prefix: Tokens before those of the regions.
        output_fmt: "NCHW" paints maps `(B, D, *size)`; "NLC" leaves tokens `(B, N, D)`.
        with_prefix: Whether the prefix is wanted.
    Returns:
        The maps or tokens, and the prefixes: none if there are none or they are not wanted.
    Raises:
        ValueError: If maps are asked for and tokens were dropped.
    """
    values = [tokens[:, num_prefix:] for tokens in found]
    prefixes = [tokens[:, :num_prefix] for tokens in found] if with_prefix and num_prefix else []
    return (painted(values, regions, size) if output_fmt == "NCHW" else values), prefixes


def painted(tokens: Sequence[Tensor], regions: Regions, size: tuple[int, int]) -> list[Tensor]:
    """Tokens `(B, N, D)` of several blocks as maps `(B, D, *size)`.

    Raises:
        ValueError: If tokens were dropped: the picture would have holes.
    """
    for values in tokens:
        if values.shape[1] != tokens_of(regions):
            raise ValueError(
                f"output_fmt='NCHW' needs a token of each of the {tokens_of(regions)} regions, got "
                f"{values.shape[1]} behind patch_drop; call model.eval() or use output_fmt='NLC'"
            )
    return [regions.to_map(values, size) for values in tokens]


def as_dict(final: Tensor | None, maps: list[Tensor], prefixes: list[Tensor]) -> dict[str, Any]:
    """timm's `output_dict=True`."""
    result: dict[str, Any] = {"image_intermediates": maps}
    if prefixes:
        result["image_intermediates_prefix"] = prefixes
    if final is not None:
        result["image_features"] = final
    return result


def as_tuple(final: Tensor | None, maps: list[Tensor], prefixes: list[Tensor]) -> Any:
    """timm's result otherwise: maps, each with its prefix if wanted, behind the final tokens."""
    pairs = list(zip(maps, prefixes, strict=True)) if prefixes else maps
    return pairs if final is None else (final, pairs)
