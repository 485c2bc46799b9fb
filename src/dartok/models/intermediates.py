"""Feature maps of adapted models: painted from the tokens, returned as timm returns its own."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from dartok.core.regions import Regions, tokens_of

__all__ = ["as_dict", "as_tuple", "check_output_fmt", "laid_out", "painted"]


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
    return [regions.to_map(values, size).contiguous() for values in tokens]


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
