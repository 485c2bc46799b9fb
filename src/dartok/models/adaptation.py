"""`adapt`: put regions on an encoder, as the same function at the start, or refuse by name."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TypeVar

from torch import nn

from dartok.core.names import whole_number
from dartok.core.partition import PartitionName
from dartok.core.sampling import SamplingName
from dartok.core.scoring import Scored
from dartok.core.tokenizer import Tokenizer
from dartok.models.dials import set_num_tokens, tokenizer_of
from dartok.models.families import Family, Parts, family_of
from dartok.models.families.wrappers import around, encoder_in
from dartok.models.patch_embed import RegionPatchEmbed
from dartok.models.preprocessing import note_pixels
from dartok.models.same_function import (
    comparing,
    largest_difference,
    noise,
    relative_difference,
)
from dartok.scorers.tokenizer import as_scorer

__all__ = ["adapt", "carry_over"]

Host = TypeVar("Host", bound=nn.Module)


def adapt(
    host: Host,
    *,
    num_tokens: int | Literal["auto"] | None = None,
    num_rows: int | None = None,
    num_frames: int | None = None,
    scorer: str | nn.Module = "conv",
    scorer_weights: str | Path | None = None,
    partition: PartitionName = "flow",
    sampling: SamplingName = "centred",
    oversample: int = 1,
    antialias: bool = False,
    size_embedding: bool = False,
    min_region: float | None = None,
    max_region: float | None = None,
    strength: float = 0.0,
) -> Host:
    """An encoder whose patches are regions: any image size, any number of tokens.

    The result is a new model of the host's class that shares the host's parameters; the host itself
    is left as it was (`copy.deepcopy` it first to train both). At strength 0, the host's own image
    size and number of tokens, the result is the same function; this is checked here on a random
    picture, and a host that cannot be carried over is refused by name. Raise the strength with
    `dartok.set_strength`: in steps while fine-tuning a pretrained host, or to 1 at once when
    training from scratch.

    Class token, registers, LayerScale, rotary positions, distilled DeiT and every pooling of timm's
    vision transformers are carried over, and the like in the encoders of other libraries.

    Vision Mambas (`vim_*`, `videomamba_*`) read the regions in the order of the strip.

    With `num_frames` a model of images becomes one of clips `(B, T, C, H, W)`: one budget for the
    whole clip, joint attention over its tokens, and positions in time, which start at 0. Of a clip
    of one frame it still makes what the host makes of the image.

    A host may also hold its encoder, as a classifier of transformers, a CLIP or a vision-language
    model does, or a model of your own: then only the encoder changes, and it alone is compared.
    What reads its tokens must take any number of them, in the order of reading; a language model
    needs a placeholder in its prompt for each.

    Args:
        host: A vision transformer of timm, transformers or torchvision, a `vim_*` or `videomamba_*`
            of `dartok.create_model`, or what holds one.
        num_tokens: Regions per image or clip; None for the host's own count, of all frames; "auto"
            for each image its own, with the host's on average (see `dartok.set_num_tokens`).
        num_rows: Rows of regions, in each frame; None for about square regions.
        num_frames: Frames of the clips that the positions in time are for; clips of other lengths
            resample them. None for images, and for hosts of clips, which have their own.
        scorer: A name that `dartok.scorers.create_scorer` knows, or a module that maps images to
            positive scores `(B, h, w)`.
        scorer_weights: For a scorer by name: None, "imagenet" or a file.
        partition: "flow" or "grid".
        sampling: "centred" or "corner".
        oversample: Samples averaged per patch pixel and axis.
        antialias: Whether regions of more pixels than samples are averaged, over their area.
        size_embedding: Whether a token is told how large its region is; learnt, 0 at the start.
        min_region: Least height and width of any region, as a share of the picture's; None for any.
        max_region: Largest, likewise: nothing that is wider or higher lies in one region.
        strength: From 0, the fixed grid, to 1, the full method.
    Returns:
        The adapted model, with the host's methods, in the host's mode, dtype and device.
    Raises:
        ValueError: If the host cannot be carried over, or an option is out of range.
    Example:
        >>> import timm, torch
        >>> host = timm.create_model("vit_tiny_patch16_224")
        >>> model = adapt(host, num_tokens=50)
        >>> model(torch.randn(1, 3, 96, 160)).shape
        torch.Size([1, 1000])
    """
    _check_host(host)
    place = encoder_in(host)
    encoder = host.get_submodule(place)
    family = family_of(encoder)
    parts = family.take_apart(encoder)
    model = carry_over(
        encoder,
        parts if num_frames is None else _with_frames(encoder, parts, num_frames),
        scorer=as_scorer(scorer, scorer_weights, parts.proj.in_channels),
        num_tokens=None if isinstance(num_tokens, str) else num_tokens,
        num_rows=num_rows,
        partition=partition,
        sampling=sampling,
        oversample=oversample,
        strength=strength,
        antialias=antialias,
        size_embedding=size_embedding,
        min_region=min_region,
        max_region=max_region,
    )
    note_pixels(model)
    _check_same_function(family, encoder, model, parts)
    if num_frames is not None:
        _check_clips(family, encoder, model, parts)
    if isinstance(num_tokens, str):
        set_num_tokens(model, num_tokens, num_rows=num_rows)
    return around(host, place, model)


def carry_over(
    encoder: Host,
    parts: Parts,
    *,
    scorer: nn.Module,
    num_tokens: int | None,
    num_rows: int | None,
    partition: PartitionName,
    sampling: SamplingName,
    oversample: int,
    strength: float,
    antialias: bool = False,
    size_embedding: bool = False,
    min_region: float | None = None,
    max_region: float | None = None,
) -> Host:
    """An encoder that a family knows, on regions; not compared with it, unlike `adapt`.

    Args:
        encoder: The host, or the part of it that sees the picture; left as it was.
        parts: What its family takes it apart into.
        scorer: Moved to the encoder's device and dtype.
        num_tokens: As of `adapt`, like the following.
        num_rows: Rows of regions.
        partition: "flow" or "grid".
        sampling: "centred" or "corner".
        oversample: Samples averaged per patch pixel and axis.
        strength: From 0 to 1.
        antialias: Whether large regions are averaged.
        size_embedding: Whether a token is told how large its region is; learnt, 0 at the start.
        min_region: Least side of a region.
        max_region: Largest side of a region.
    """
    weight = parts.proj.weight
    embed = RegionPatchEmbed(
        img_size=parts.image_px,
        scorer=scorer.to(weight),
        proj=parts.proj,
        norm=parts.norm,
        positions=parts.positions,
        time_positions=parts.time_positions,
        num_tokens=parts.num_patches if num_tokens is None else num_tokens,
        num_rows=num_rows,
        partition=partition,
        sampling=sampling,
        oversample=oversample,
        antialias=antialias,
        size_embedding=size_embedding,
        min_region=min_region,
        max_region=max_region,
        strength=strength,
    )
    embed.to(weight.device).train(encoder.training)
    model = family_of(encoder).put_together(encoder, embed)
    assert isinstance(model, type(encoder))
    model.register_forward_pre_hook(_refuse_priority, with_kwargs=True)
    return model


def _refuse_priority(model: nn.Module, inputs: object, named: dict[str, object]) -> None:
    """Models of transformers pass over inputs that they do not know."""
    if "priority" in named and not getattr(model, "takes_budgets", False):
        raise ValueError(
            f"{type(model).__name__} takes no priority= in its call; use "
            "`with dartok.steer(model, priority):` around it"
        )


def _check_host(host: nn.Module) -> None:
    name = type(host).__name__
    if any(isinstance(module, Scored) for module in host.modules()):
        raise ValueError(f"host is adapted already, got {name}; adapt the original model")
    if any(parameter.is_meta for parameter in host.parameters()):
        raise ValueError(f"adapt cannot carry over {name} on the meta device: load it first")


def _check_same_function(family: Family, host: nn.Module, model: nn.Module, parts: Parts) -> None:
    weight = parts.proj.weight
    images = noise(parts.shape).to(weight)
    with comparing(weight, host, model), _neutral(tokenizer_of(model), parts.num_patches):
        expected, actual = family.features(host, images), family.features(model, images)
    difference = relative_difference([expected], [actual])
    largest = largest_difference(weight.dtype)
    if not difference <= largest:
        raise ValueError(
            f"adapt cannot carry over {type(host).__name__}: on the fixed grid its features differ "
            f"by {difference:.1e} (relative), more than {largest:.0e}"
        )


def _with_frames(host: nn.Module, parts: Parts, num_frames: int) -> Parts:
    """The parts of a host of images as those of one of clips, whose positions in time are 0."""
    if parts.num_frames is not None:
        raise ValueError(
            f"num_frames is for hosts of images, got {num_frames} for {type(host).__name__}, whose "
            f"clips have {parts.num_frames} frames; leave it out"
        )
    num_frames = whole_number("num_frames", num_frames)
    times = parts.proj.weight.new_zeros(1, parts.proj.out_channels, num_frames)
    return parts._replace(num_frames=num_frames, time_positions=times)


def _check_clips(family: Family, host: nn.Module, model: nn.Module, parts: Parts) -> None:
    """Refuse a host whose forward cannot be given clips, or makes another thing of one frame."""
    weight, embed = parts.proj.weight, tokenizer_of(model)
    clips = noise((2, *parts.shape)).to(weight)
    try:
        with comparing(weight, host, model), _neutral(embed, parts.num_patches):
            one, image = (family.features(model, x) for x in (clips[:, :1], clips[:, 0]))
            with embed.at_num_tokens(2 * parts.num_patches):
                family.features(model, clips)
    except (ValueError, RuntimeError, TypeError, IndexError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"adapt cannot make {type(host).__name__} one of clips ({reason}); leave out num_frames"
        ) from error
    if relative_difference([image], [one]) > largest_difference(weight.dtype):
        raise ValueError(
            f"adapt cannot make {type(host).__name__} one of clips: of one frame it makes another "
            "thing than of the image; leave out num_frames"
        )


@contextmanager
def _neutral(embed: Tokenizer, num_tokens: int) -> Iterator[None]:
    """The host's own fixed grid for a while: strength 0, its own count, one sample per pixel.

    Bounds are left out: they do not change an even grid, but not every grid can keep them.
    """
    oversample, bounds, strength = embed.oversample, embed.bounds, embed.strength.clone()
    with embed.at_num_tokens(num_tokens):
        try:
            embed.oversample, embed.bounds = 1, None
            embed.strength.zero_()
            yield
        finally:
            embed.oversample, embed.bounds = oversample, bounds
            embed.strength.copy_(strength)
