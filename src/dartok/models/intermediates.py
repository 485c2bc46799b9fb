"""Feature maps of adapted models: painted from the tokens, returned as timm returns its own."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from dartok.core.regions import Regions, tokens_of

__all__ = ["as_dict", "as_tuple", "check_output_fmt", "painted", "split_prefix"]


def check_output_fmt(output_fmt: str) -> None:
    """Refuse a format that timm's `forward_intermediates` does not know either.

    Raises:
        ValueError: If `output_fmt` is neither "NCHW" nor "NLC".
    """
    if output_fmt not in ("NCHW", "NLC"):
        raise ValueError(f"output_fmt must be one of NCHW, NLC, got {output_fmt!r}")


def split_prefix(found: Sequence[Tensor], num_prefix: int) -> tuple[list[Tensor], list[Tensor]]:
    """Tokens `(B, prefix + N, D)` of several blocks as those of the regions and the prefix."""
    patches = [tokens[:, num_prefix:] for tokens in found]
    return patches, [tokens[:, :num_prefix] for tokens in found]


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
