"""The tokenizer in the place of the `embeddings` of a model of transformers."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dartok.core.regions import Regions
from dartok.models.patch_embed import RegionPatchEmbed

__all__ = ["RegionEmbeddings", "UnmaskedRegionEmbeddings", "refuse_mask"]


class RegionEmbeddings(nn.Module):
    """Prefix tokens and one token per region, called as the `embeddings` of a transformers model.

    Nothing of a picture is kept. A size other than the host's needs no interpolation of positions,
    so `interpolate_pos_encoding` changes nothing: any size works without it.

    Args:
        name: What the host calls its patch embedding; the tokenizer goes by the same name.
        embed: The tokenizer, which adds the positions of the regions.
        prefix: Class token, registers and the like, their positions added; None for a host that has
            none.
        dropout: Applied to all tokens; None for a host without it.
    Raises:
        ValueError: In `forward`, if patches are masked: regions are no patches of a fixed grid.
    Example:
        >>> from dartok.scorers import Uniform
        >>> proj = nn.Conv2d(3, 8, 16, 16)
        >>> embed = RegionPatchEmbed(
        ...     img_size=(32, 32), scorer=Uniform(), proj=proj, num_tokens=4
        ... )
        >>> prefix = nn.Parameter(torch.zeros(1, 1, 8))
        >>> embeddings = RegionEmbeddings("patch_embeddings", embed, prefix)
        >>> embeddings(torch.rand(2, 3, 40, 70)).shape
        torch.Size([2, 5, 8])
    """

    def __init__(
        self,
        name: str,
        embed: RegionPatchEmbed,
        prefix: Float[nn.Parameter, "1 prefix D"] | None = None,
        dropout: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self._name = name
        self.add_module(name, embed)
        self.prefix_tokens = prefix
        self.dropout = nn.Identity() if dropout is None else dropout

    @property
    def tokenizer(self) -> RegionPatchEmbed:
        """The tokenizer, whatever the host calls it."""
        embed = getattr(self, self._name)
        assert isinstance(embed, RegionPatchEmbed)
        return embed

    def as_images(self, pixel_values: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Pictures in the dtype of the model, as its hosts convert them."""
        if getattr(self.tokenizer, "budget", None) is not None:
            raise ValueError(
                "num_tokens='auto' is not known to models of transformers, whose images all have "
                "as many tokens; give a number of tokens"
            )
        return pixel_values.to(self.tokenizer.proj.weight.dtype)

    def embed(
        self, images: Float[Tensor, "B C H W"], regions: Regions
    ) -> Float[Tensor, "B prefix+N D"]:
        """The tokens of given regions, behind the prefix."""
        return self._behind_prefix(self.tokenizer.embed(images, regions))

    def forward(
        self,
        pixel_values: Float[Tensor, "B C H W"],
        bool_masked_pos: Tensor | None = None,
        interpolate_pos_encoding: bool | None = None,
    ) -> Float[Tensor, "B prefix+N D"]:
        refuse_mask("bool_masked_pos", bool_masked_pos)
        return self._behind_prefix(self.tokenizer(self.as_images(pixel_values)))

    def _behind_prefix(self, tokens: Tensor) -> Tensor:
        if self.prefix_tokens is not None:
            prefix = self.prefix_tokens.expand(tokens.shape[0], -1, -1)
            tokens = torch.cat([prefix, tokens], dim=1)
        return self.dropout(tokens)


class UnmaskedRegionEmbeddings(RegionEmbeddings):
    """The `embeddings` of a masked autoencoder that encodes every region: nothing is masked.

    Returns tokens, a mask of zeros and the order of the tokens, as the host's encoder expects.

    Raises:
        ValueError: In `forward`, if `noise` is given, which chooses what to mask.
    Example:
        >>> from dartok.scorers import Uniform
        >>> proj = nn.Conv2d(3, 8, 16, 16)
        >>> embed = RegionPatchEmbed(
        ...     img_size=(32, 32), scorer=Uniform(), proj=proj, num_tokens=4
        ... )
        >>> tokens, mask, order = UnmaskedRegionEmbeddings("patch_embeddings", embed)(
        ...     torch.rand(1, 3, 32, 32)
        ... )
        >>> mask, order
        (tensor([[0., 0., 0., 0.]]), tensor([[0, 1, 2, 3]]))
    """

    def forward(  # type: ignore[override]
        self,
        pixel_values: Float[Tensor, "B C H W"],
        noise: Tensor | None = None,
        interpolate_pos_encoding: bool | None = None,
    ) -> tuple[Float[Tensor, "B prefix+N D"], Float[Tensor, "B N"], Int[Tensor, "B N"]]:
        refuse_mask("noise", noise)
        tokens = super().forward(pixel_values)
        shape = (tokens.shape[0], self.tokenizer.num_tokens)
        order = torch.arange(shape[1], device=tokens.device).expand(shape)
        return tokens, torch.zeros(shape, device=tokens.device), order


def refuse_mask(name: str, mask: Tensor | None) -> None:
    """Refuse what masks patches of a fixed grid: regions lie elsewhere in each picture.

    Raises:
        ValueError: If a mask is given.
    Example:
        >>> refuse_mask("bool_masked_pos", None)
    """
    if mask is not None:
        raise ValueError(f"{name} must be None on regions, which no fixed mask can choose among")
