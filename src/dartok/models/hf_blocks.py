"""The layers of adapted encoders of transformers, run one by one on the tokens of regions."""

import inspect
from functools import partial
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from dartok.core.regions import Regions
from dartok.core.tokenizer import Tokenizer
from dartok.models.embeddings import RegionEmbeddings
from dartok.models.intermediates import Entered, RegionBlocks

__all__ = ["TransformersBlocks", "is_encoder"]

_PLACES = ("layers", "layer")
_LAST_NORMS = ("layernorm", "post_layernorm", "rms_norm", "norm")


def is_encoder(module: nn.Module) -> bool:
    """Whether a module is an encoder of transformers on regions.

    Example:
        >>> is_encoder(nn.Linear(2, 2))
        False
    """
    return isinstance(getattr(module, "embeddings", None), RegionEmbeddings)


class TransformersBlocks(RegionBlocks):
    """An adapted encoder of transformers as a sequence of blocks.

    Its layers are called here and not by the model, which cannot be told the regions of a call
    without keeping them; nothing is recorded, so threads do not meet.

    Args:
        encoder: One for which `is_encoder` holds.
    Raises:
        ValueError: If its layers are not found.
    """

    def __init__(self, encoder: nn.Module) -> None:
        self.encoder: Any = encoder
        self.layers = _layers_of(encoder)

    @property
    def tokenizer(self) -> Tokenizer:
        """What cuts the images and embeds their regions."""
        return self.encoder.embeddings.tokenizer

    @property
    def num_prefix(self) -> int:
        """Tokens before those of the regions."""
        prefix = self.encoder.embeddings.prefix_tokens
        return 0 if prefix is None else prefix.shape[1]

    @property
    def num_blocks(self) -> int:
        """How many layers there are."""
        return len(self.layers)

    def as_images(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Pictures in the dtype of the model."""
        return self.encoder.embeddings.as_images(images)

    def entered(
        self,
        images: Float[Tensor, "B C H W"],
        regions: Regions,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Entered:
        """The tokens of regions that are known, at the first layer; none is masked."""
        assert attn_mask is None
        assert not is_causal
        tokens = self.encoder.embeddings.embed(images, regions)
        before = getattr(self.encoder, "pre_layrnorm", None)  # transformers' spelling
        tokens = tokens if before is None else before(tokens)
        options = self._options(tokens, regions)
        return Entered(tokens, [partial(_run, layer, options) for layer in self.layers])

    def normed(self, tokens: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        """Tokens behind the last norm, also where the model gives it its class token alone."""
        found = (getattr(self.encoder, name, None) for name in _LAST_NORMS)
        norm = next((norm for norm in found if isinstance(norm, nn.Module)), None)
        if norm is None:
            raise ValueError(
                f"norm must be False for {type(self.encoder).__name__}, which has no last norm"
            )
        return norm(tokens)

    def _options(self, tokens: Tensor, regions: Regions) -> dict[str, Any]:
        """What a layer takes beside the tokens."""
        known = inspect.signature(self.layers[0].forward).parameters
        options: dict[str, Any] = {}
        if "attention_mask" in known:  # some layers have no default for it
            options["attention_mask"] = None
        if "position_embeddings" in known:
            from dartok.models.families.hf_dinov3 import rotation_of

            rope = self.encoder.rope_embeddings
            options["position_embeddings"] = rotation_of(rope, regions, tokens.dtype)
        return options


def _run(layer: nn.Module, options: dict[str, Any], tokens: Tensor) -> Tensor:
    output = layer(tokens, **options)
    return output if isinstance(output, Tensor) else output[0]


def _layers_of(encoder: nn.Module) -> nn.ModuleList:
    inner = (getattr(encoder, name, None) for name in ("encoder", "model"))
    for owner in (encoder, *inner):
        for name in _PLACES:
            layers = getattr(owner, name, None)
            if isinstance(layers, nn.ModuleList):
                return layers
    raise ValueError(
        f"features need the layers of an encoder one by one, and {type(encoder).__name__} keeps "
        f"no list of them as one of {', '.join(_PLACES)}"
    )
