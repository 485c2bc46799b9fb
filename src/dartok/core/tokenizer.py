"""`Tokenizer`: the method as a module. It receives its parts and only wires them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dartok.core.budget import AutoBudget
from dartok.core.counts import Counts, rows_for
from dartok.core.names import one_of, whole_number
from dartok.core.overlap import Measure
from dartok.core.partition import PartitionName, check_num_rows, default_num_rows, partition
from dartok.core.quantiles import geometry
from dartok.core.reading import readable
from dartok.core.regions import Regions
from dartok.core.sampling import BilinearName, SamplingName, sample_regions
from dartok.core.steering import Steering, steer_scores

__all__ = ["Tokenizer", "Tokens", "check_images", "readable"]


_TALLEST_ASPECT = 16
"""Height over width up to which an exported graph of any size has as many rows as it should."""


class Tokens(NamedTuple):
    """What a tokenizer makes of a batch of images."""

    tokens: Float[Tensor, "B N D"]
    """Embedding of each region, its position included."""
    regions: Regions
    """Where the tokens came from."""


class Tokenizer(nn.Module):
    """Images to tokens: score, cut into regions, resample each to a patch, project, add positions.

    `tokens = proj(sample(images, regions)) + regions.to_tokens(positions)` with
    `regions = partition(scorer(images) ** strength)`. The logit of a score is its logarithm, so
    `strength` multiplies the logits: at 0 every score is 1 and the regions are the fixed grid, at 1
    they follow the picture.

    Source: DART, arXiv:2506.10390, section 3; strength is ours.

    Args:
        scorer: Maps images to positive scores `(B, h, w)`; any h and w.
        proj: Convolution whose kernel and stride are the patch size, as in a ViT.
        num_tokens: Regions per image, `>= 1`; may be changed at any time.
        num_rows: Rows of regions; None for about square regions, from the image's aspect.
        positions: Position embedding as a map `(1, D, h, w)`, or None for a host without one.
        norm: Applied to the projected patches, before the positions.
        partition: "flow", "grid" or "authors" (see `dartok.core.partition`).
        sampling: "centred" or "corner" (see `sample_regions`).
        oversample: Samples averaged per patch pixel and axis, `>= 1`.
        strength: From 0 to 1; kept in a buffer, see `set_strength`.
    Raises:
        ValueError: If a count or name is out of range, or `proj` is not a patch projection.
    Example:
        >>> class Darkness(nn.Module):
        ...     def forward(self, images):
        ...         return (-images.mean(1)).exp()
        >>> proj = nn.Conv2d(3, 8, kernel_size=16, stride=16)
        >>> tokenizer = Tokenizer(scorer=Darkness(), proj=proj, num_tokens=6)
        >>> tokenizer(torch.rand(2, 3, 40, 70)).tokens.shape
        torch.Size([2, 6, 8])
    """

    strength: Tensor

    def __init__(
        self,
        *,
        scorer: nn.Module,
        proj: nn.Conv2d,
        num_tokens: int,
        num_rows: int | None = None,
        positions: Float[Tensor, "1 D h w"] | None = None,
        norm: nn.Module | None = None,
        partition: PartitionName = "flow",
        sampling: SamplingName = "centred",
        oversample: int = 1,
        strength: float = 1.0,
    ) -> None:
        super().__init__()
        _check_projection(proj)
        self.scorer = scorer
        self.proj = proj
        self.norm = nn.Identity() if norm is None else norm
        self.pos_embed = None if positions is None else nn.Parameter(positions)
        self.partition: PartitionName = one_of("partition", partition, PartitionName)
        self.sampling: SamplingName = one_of("sampling", sampling, SamplingName)
        self.oversample = whole_number("oversample", oversample)
        self.bilinear: BilinearName = "grid_sample"
        self._steering: Steering | None = None
        self._known: Regions | None = None
        self.set_num_tokens(num_tokens, num_rows)
        self.register_buffer("strength", torch.tensor(1.0))
        self.set_strength(strength)

    @property
    def patch_size(self) -> tuple[int, int]:
        """Samples per region, (height, width)."""
        return (self.proj.kernel_size[0], self.proj.kernel_size[1])

    def set_num_tokens(self, num_tokens: int, num_rows: int | None = None) -> None:
        """Change the budget. `num_rows=None` derives the rows from each batch's aspect.

        Raises:
            ValueError: If `num_tokens < 1`, or `num_rows` is not from 1 to `num_tokens`, or for a
                grid does not divide it.
        """
        num_tokens = whole_number("num_tokens", num_tokens)
        if num_rows is not None:
            check_num_rows(num_rows, num_tokens, self.partition)
            num_rows = whole_number("num_rows", num_rows)
        self.num_tokens, self.num_rows = num_tokens, num_rows
        self.budget: AutoBudget | None = None

    def set_budget(self, budget: AutoBudget, num_rows: int | None = None) -> None:
        """Give each image a count of its own, from the mass of its scores.

        `num_tokens` becomes the budget's mean; tokens are padded to its `most`, and
        `Regions.counts` says how many each image has.

        Raises:
            ValueError: If the partition is not "flow": a lattice cannot hold every count.
        """
        if self.partition != "flow":
            raise ValueError(
                f"num_tokens='auto' needs partition='flow', got {self.partition!r}; "
                "give a number of tokens"
            )
        self.set_num_tokens(budget.mean, num_rows)
        self.budget = budget.to(self.strength.device).train(self.training)

    @contextmanager
    def at_num_tokens(self, num_tokens: int, num_rows: int | None = None) -> Iterator[None]:
        """Another number of tokens for a while; then the former, or the former budget, again."""
        before = self.num_tokens, self.num_rows, self.budget
        self.set_num_tokens(num_tokens, num_rows)
        try:
            yield
        finally:
            self.num_tokens, self.num_rows, self.budget = before

    def set_strength(self, strength: float) -> None:
        """Set how far the regions leave the fixed grid: 0 not at all, 1 the full method.

        Raises:
            ValueError: If `strength` is outside [0, 1].
        """
        if not 0 <= strength <= 1:
            raise ValueError(f"strength must be from 0 (fixed grid) to 1 (DART), got {strength}")
        self.strength.fill_(strength)

    def regions(self, images: Tensor, steering: Steering | None = None) -> Regions:
        """The regions of a batch of images, without sampling or projecting them.

        `steering` stands in for that of `steered`.
        """
        check_images(images, self.proj.in_channels, self.patch_size)
        if self._known is not None:
            return self._known
        scores = self.scores(images)
        if self.budget is None and not (self.partition == "flow" and _is_any_size(images)):
            return self.cut(scores, (images.shape[-2], images.shape[-1]), steering)
        return self._cut_each(scores, images, steering)

    def scores(self, images: Tensor) -> Float[Tensor, "B h w"]:
        """The scores of images as they are cut, raised to the strength."""
        scores = geometry(_checked_scores(self.scorer(images), images))
        return scores ** geometry(self.strength)

    @contextmanager
    def steered(self, steering: Steering | None) -> Iterator[None]:
        """Steer the regions of the images that come meanwhile; None leaves them as they are."""
        before = self._steering
        self._steering = before if steering is None else steering
        try:
            yield
        finally:
            self._steering = before

    @contextmanager
    def knowing(self, regions: Regions) -> Iterator[None]:
        """Meanwhile `regions` gives these, whatever the images: they are known already."""
        before, self._known = self._known, regions
        try:
            yield
        finally:
            self._known = before

    def cut(
        self,
        scores: Float[Tensor, "B h w"],
        size_px: tuple[int, int],
        steering: Steering | None = None,
    ) -> Regions:
        """`num_tokens` regions of score maps, strength included, for images of `size_px`."""
        num_rows = self.num_rows or self._default_num_rows(self.num_tokens, size_px)
        return partition(
            steer_scores(scores, steering or self._steering),
            num_tokens=self.num_tokens,
            num_rows=num_rows,
            kind=self.partition,
        )

    def _default_num_rows(self, num_tokens: int, size_px: tuple[int, int]) -> int:
        height, width = self.patch_size  # rows and columns are counted in patches
        return default_num_rows(
            num_tokens, int(size_px[0]) * width, int(size_px[1]) * height, kind=self.partition
        )

    def _cut_each(self, scores: Tensor, images: Tensor, steering: Steering | None) -> Regions:
        """Regions where counts or rows are known on the device only."""
        if self.budget is None:
            tokens = scores.new_full((1,), self.num_tokens, dtype=torch.long)
            most = self.num_tokens
            return self.cut_to(tokens, scores, images, num_tokens=most)._replace(counts=None)
        tokens = self.budget(scores.mean((1, 2)))
        most = self.budget.most
        return self.cut_to(tokens, scores, images, num_tokens=most, steering=steering)

    def cut_to(
        self,
        tokens: Int[Tensor, "#B"],
        scores: Float[Tensor, "B h w"],
        images: Float[Tensor, "B C H W"],
        *,
        num_tokens: int,
        most: int | None = None,
        steering: Steering | None = None,
    ) -> Regions:
        """Regions of each image's own number, known on the device only, in `num_tokens` places.

        Args:
            tokens: Regions of each image, or of all of them.
            scores: As `scores` gives them.
            images: Only their size matters.
            num_tokens: The most that `tokens` holds.
            most: What there is room for rows of, where `num_tokens` is open in a graph.
            steering: As of `regions`.
        """
        rows, room = self._rows_of_each(tokens, most or num_tokens, images)
        return partition(
            steer_scores(scores, steering or self._steering),
            num_tokens=num_tokens,
            num_rows=room,
            counts=Counts(tokens, rows),
        )

    def _rows_of_each(self, tokens: Tensor, most: int, images: Tensor) -> tuple[Tensor, int]:
        if self.num_rows is not None:
            return tokens.clamp(max=self.num_rows), self.num_rows
        height, width = self.patch_size
        if _is_any_size(images):
            room = round((most * _TALLEST_ASPECT) ** 0.5)
            aspect = _lengths(images, -2) * width / (_lengths(images, -1) * height)
            return rows_for(tokens, aspect, most=room), room
        down, across = images.shape[-2] * width, images.shape[-1] * height
        room = self._default_num_rows(most, (images.shape[-2], images.shape[-1]))
        return rows_for(tokens, down / across, most=room), room

    def embed(self, images: Tensor, regions: Regions) -> Float[Tensor, "B N D"]:
        """Tokens of given regions: resampled, projected, positions added."""
        patches = sample_regions(
            images,
            regions,
            self.patch_size,
            sampling=self.sampling,
            oversample=self.oversample,
            bilinear=self.bilinear,
        )
        # A pointwise convolution over tokens, not `proj` itself: the gradient of a strided one with
        # respect to its input, which the scorer learns from, is 4 to 14 times as slow on the CPU;
        # nor a matrix product, whose library is up to 1.6 times as slow there. Channels last as
        # they lie, (B, pixels, 1, N), to copy nothing; columns first, as they were sampled.
        pixels = patches.transpose(-1, -2).flatten(2).to(self.proj.weight.dtype)
        pixels = pixels.unsqueeze(1).permute(0, 3, 1, 2)
        weight = self.proj.weight.transpose(-1, -2).flatten(1)[:, :, None, None]
        projected = nn.functional.conv2d(pixels, weight, self.proj.bias)
        tokens = self.norm(projected.flatten(2).transpose(1, 2))
        if self.pos_embed is not None:
            measure: Measure = "strip" if self.partition == "authors" else "area"
            tokens = tokens + regions.to_tokens(self.pos_embed, measure=measure).to(tokens.dtype)
        if regions.counts is None:
            return tokens
        return tokens.masked_fill(~regions.is_region().unsqueeze(-1), 0)

    def forward(self, images: Tensor) -> Tokens:
        """Tokens and regions of images `(B, C, H, W)`, normalised as the host expects."""
        regions = self.regions(images)
        return Tokens(self.embed(images, regions), regions)

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *options: Any) -> None:
        """A budget for each image is a setting, and what its tokens are worth may come along."""
        key = f"{prefix}budget.mass_per_token"
        if self.budget is None:
            state.pop(key, None)
        else:
            state.setdefault(key, self.budget.mass_per_token)
        super()._load_from_state_dict(state, prefix, *options)

    def extra_repr(self) -> str:
        """The settings, as `repr` shows them."""
        return (
            f"num_tokens={self.num_tokens}, num_rows={self.num_rows}, "
            f"partition={self.partition!r}, sampling={self.sampling!r}, "
            f"oversample={self.oversample}"
        )


def check_images(images: Tensor, num_channels: int, patch_size: tuple[int, int]) -> None:
    """Refuse images that cannot be cut: wrong rank, dtype, channels or size, or not finite.

    Values are read on the CPU only: on a GPU that would stall it.

    Raises:
        ValueError: Naming what was got, the rule and the remedy.
    """
    if not isinstance(images, Tensor):
        raise ValueError(f"images must be a tensor (B, C, H, W), got a {type(images).__name__}")
    if images.ndim != 4 or images.shape[0] == 0:
        raise ValueError(
            f"images must be (B, C, H, W) with at least one image, got shape {tuple(images.shape)}"
        )
    if not images.is_floating_point():
        raise ValueError(
            f"images must be floating point, normalised as the model expects, got {images.dtype}; "
            "convert with images.float() / 255 and normalise"
        )
    if images.shape[1] != num_channels:
        raise ValueError(
            f"images must have {num_channels} channels, as the model, got {images.shape[1]}; "
            "convert them"
        )
    if images.shape[2] < patch_size[0] or images.shape[3] < patch_size[1]:
        raise ValueError(
            f"images must be at least one patch ({patch_size[0]} x {patch_size[1]} px) in size, "
            f"got {images.shape[2]} x {images.shape[3]} px; enlarge them"
        )
    if readable(images) and not images.detach().sum(dtype=torch.float32).isfinite():
        raise ValueError("images must be finite, got NaN or infinite pixels; clean the input")


def _is_any_size(images: Tensor) -> bool:
    """Whether a graph is being exported in which height or width is still open."""
    sides = images.shape[-2:]
    return torch.compiler.is_exporting() and any(isinstance(side, torch.SymInt) for side in sides)


def _lengths(images: Tensor, dim: int) -> Float[Tensor, ""]:
    """A side in pixels as a value of the graph, which every exporter understands."""
    line = images[0, 0, :, 0] if dim == -2 else images[0, 0, 0, :]
    return geometry(torch.ones_like(line)).sum()


def _checked_scores(scores: Tensor, images: Tensor) -> Tensor:
    """Refuse what a scorer of the user's own may do wrong."""
    if scores.ndim != 3 or scores.shape[0] != images.shape[0]:
        raise ValueError(
            f"scorer must give scores (B, h, w) with B = {images.shape[0]}, "
            f"got {tuple(scores.shape)}"
        )
    if readable(scores):
        low, high = scores.detach().aminmax()
        if not (low > 0 and high < torch.inf):
            raise ValueError(
                f"scorer must give positive finite scores, got {low:.3g} to {high:.3g}; "
                "end it in exp or softplus"
            )
    return scores


def _check_projection(proj: nn.Conv2d) -> None:
    plain = tuple(proj.dilation) == (1, 1) and proj.padding in ((0, 0), "valid")
    plain = plain and type(proj) is nn.Conv2d  # its weight is read: a wrapper would be ignored
    if tuple(proj.kernel_size) != tuple(proj.stride) or proj.groups != 1 or not plain:
        raise ValueError(
            "proj must be a patch projection (a plain Conv2d, kernel equal to stride, one group, "
            f"no padding or dilation), got {proj}"
        )
