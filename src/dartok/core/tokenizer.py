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
from dartok.core.positions import position_map
from dartok.core.projection import (
    Projection,
    check_projection,
    patch_sides,
    project,
    steps_of,
    tubelet_of,
)
from dartok.core.quantiles import geometry
from dartok.core.reading import readable
from dartok.core.regions import Regions, frames_of
from dartok.core.sampling import BilinearName, SamplingName, check_sampling, sample_regions
from dartok.core.scoring import Scored, check_images
from dartok.core.sides import Bounds, bounds_of, check_bounded_kind, check_bounds
from dartok.core.size_embedding import SizeEmbedding
from dartok.core.steering import Steering, steer_scores

__all__ = ["Tokenizer", "Tokens", "check_images", "readable"]


_TALLEST_ASPECT = 16
"""Height over width up to which an exported graph of any size has as many rows as it should."""


class Tokens(NamedTuple):
    """What a tokenizer makes of a batch of images or clips."""

    tokens: Float[Tensor, "B N D"]
    """Embedding of each region, its position included."""
    regions: Regions
    """Where the tokens came from."""


class Tokenizer(Scored):
    """Images to tokens: score, cut into regions, resample each to a patch, project, add positions.

    A clip `(B, T, C, H, W)` is one strip: the rows of all its frames end to end, one budget for all
    of them, so that tokens flow to the frames that matter. Where `proj` is a `Conv3d`, a step of
    the strip is a tubelet of k frames: its score is their mean, a region is resampled in each of
    them, and the `Regions` of a clip have `T / k` frames. An image is a clip of one frame.

    `tokens = proj(sample(images, regions)) + regions.to_tokens(positions)` with
    `regions = partition(scorer(images) ** strength)`. The logit of a score is its logarithm, so
    `strength` multiplies the logits: at 0 every score is 1 and the regions are the fixed grid, at 1
    they follow the picture.

    Source: DART, arXiv:2506.10390, section 3; strength is ours.

    Args:
        scorer: Maps images to positive scores `(B, h, w)`; any h and w. See `Scored` for clips.
        proj: Convolution whose kernel and stride are the patch size, as in a ViT; a `Conv3d` for
            tubelets.
        num_tokens: Regions per image or clip, `>= 1`; may be changed at any time.
        num_rows: Rows of regions, in each frame; None for about square regions, from the aspect.
        positions: Position embedding as a map `(1, D, h, w)`, or None for a host without one.
        time_positions: Embedding `(1, D, S)` of the steps of a clip, resampled linearly to as many
            as a clip has; None for none.
        norm: Applied to the projected patches, before the positions.
        partition: "flow", "grid" or "authors" (see `dartok.core.partition`).
        sampling: "centred" or "corner" (see `sample_regions`).
        oversample: Samples averaged per patch pixel and axis, `>= 1`.
        antialias: Whether regions of more pixels than samples are averaged (see `sample_regions`).
        size_embedding: Whether a token is told how large its region is (see `SizeEmbedding`).
        min_region: Least height and width of any region, as a share of the picture's; None for any.
        max_region: Largest, likewise. Bounds hold at any strength and under any steering.
        strength: From 0 to 1; kept in a buffer, see `set_strength`.
    Raises:
        ValueError: If a count, share or name is out of range, options exclude each other, or `proj`
            is not a patch projection.
    Example:
        >>> class Darkness(nn.Module):
        ...     def forward(self, images):
        ...         return (-images.mean(1)).exp()
        >>> proj = nn.Conv2d(3, 8, kernel_size=16, stride=16)
        >>> tokenizer = Tokenizer(scorer=Darkness(), proj=proj, num_tokens=6)
        >>> tokenizer(torch.rand(2, 3, 40, 70)).tokens.shape
        torch.Size([2, 6, 8])
    """

    def __init__(
        self,
        *,
        scorer: nn.Module,
        proj: Projection,
        num_tokens: int,
        num_rows: int | None = None,
        positions: Float[Tensor, "1 D h w"] | None = None,
        time_positions: Float[Tensor, "1 D S"] | None = None,
        norm: nn.Module | None = None,
        partition: PartitionName = "flow",
        sampling: SamplingName = "centred",
        oversample: int = 1,
        antialias: bool = False,
        size_embedding: bool = False,
        min_region: float | None = None,
        max_region: float | None = None,
        strength: float = 1.0,
    ) -> None:
        super().__init__(scorer, strength)
        check_projection(proj)
        self.proj = proj
        self.norm = nn.Identity() if norm is None else norm
        self.pos_embed = None if positions is None else nn.Parameter(positions)
        self.time_embed = None if time_positions is None else nn.Parameter(time_positions)
        self.partition: PartitionName = one_of("partition", partition, PartitionName)
        check_sampling(sampling, antialias=antialias)
        self.sampling: SamplingName = sampling
        self.oversample = whole_number("oversample", oversample)
        self.antialias = antialias
        steps = 1 if time_positions is None else time_positions.shape[-1]
        self.size_embed = (
            SizeEmbedding(proj.out_channels, num_tokens=num_tokens / steps)
            if size_embedding
            else None
        )
        self.bounds = bounds_of(min_region, max_region)
        check_bounded_kind(self.bounds, partition)
        self.bilinear: BilinearName = "grid_sample"
        self._known: Regions | None = None
        self.set_num_tokens(num_tokens, num_rows)

    @property
    def patch_size(self) -> tuple[int, int]:
        """Samples per region, (height, width)."""
        return patch_sides(self.proj)

    @property
    def tubelet(self) -> int:
        """Frames of a clip that a token is made of."""
        return tubelet_of(self.proj)

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
        """Another number of tokens for a while; then the former, or the former budget, again.

        The number that is set already keeps its rows.
        """
        before = self.num_tokens, self.num_rows, self.budget
        if num_rows is None and num_tokens == self.num_tokens:
            num_rows = self.num_rows
        self.set_num_tokens(num_tokens, num_rows)
        try:
            yield
        finally:
            self.num_tokens, self.num_rows, self.budget = before

    def regions(self, images: Tensor, steering: Steering | None = None) -> Regions:
        """The regions of images `(B, C, H, W)` or clips `(B, T, C, H, W)`, without sampling them.

        `steering` stands in for that of `steered`.
        """
        channels, tubelet = self.proj.in_channels, self.tubelet
        check_images(images, channels, self.patch_size, tubelet=tubelet)
        if self._known is not None:
            return self._known
        scores = self.scores(images)
        if images.ndim == 5:
            return self.cut(scores, (images.shape[-2], images.shape[-1]), steering)
        if self.budget is None and not (self.partition == "flow" and _is_any_size(images)):
            return self.cut(scores, (images.shape[-2], images.shape[-1]), steering)
        return self._cut_each(scores, images, steering)

    def _refuse_clip(self, steering: Steering | None) -> None:
        for name, value in {"num_tokens='auto'": self.budget, "steering": steering}.items():
            if value is not None:
                raise ValueError(f"{name} is for images, got it for clips; leave it out")

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
        scores: Float[Tensor, "B *T h w"],
        size_px: tuple[int, int],
        steering: Steering | None = None,
    ) -> Regions:
        """`num_tokens` regions of score maps, strength included, for images of `size_px`.

        The score of a tubelet is the mean of its frames'.
        """
        if scores.ndim == 4:
            self._refuse_clip(steering or self._steering)
        if scores.ndim == 4 and self.tubelet > 1:
            scores = scores.unflatten(1, (-1, self.tubelet)).mean(2)
        num_frames = scores.shape[1] if scores.ndim == 4 else 1
        num_rows = self.num_rows or self._default_num_rows(self.num_tokens, size_px, num_frames)
        return partition(
            steer_scores(scores, steering or self._steering),
            num_tokens=self.num_tokens,
            num_rows=num_rows,
            kind=self.partition,
            bounds=self.bounds,
        )

    def _default_num_rows(
        self, num_tokens: int, size_px: tuple[int, int], num_frames: int = 1
    ) -> int:
        height, width = self.patch_size  # rows and columns are counted in patches
        down, across = int(size_px[0]) * width, int(size_px[1]) * height
        return default_num_rows(
            num_tokens, down, across, kind=self.partition, num_frames=num_frames
        )

    def _cut_each(self, scores: Tensor, images: Tensor, steering: Steering | None) -> Regions:
        """Regions where counts or rows are known on the device only."""
        if self.budget is None:
            tokens = scores.new_full((1,), self.num_tokens, dtype=torch.long)
            most = self.num_tokens
            return self.cut_to(tokens, scores, images, num_tokens=most)._replace(counts=None)
        self._check_bounds_of_each(self.budget, (images.shape[-2], images.shape[-1]))
        tokens = self.budget(scores.mean((1, 2)))
        most = self.budget.most
        return self.cut_to(tokens, scores, images, num_tokens=most, steering=steering)

    def _check_bounds_of_each(self, budget: AutoBudget, size_px: tuple[int, int]) -> None:
        """Refuse bounds that a picture of a count that the budget may give could not keep."""
        for tokens in () if self.bounds is None else budget.counts():
            rows = self.num_rows or self._default_num_rows(tokens, size_px)
            check_bounds(self.bounds, tokens, min(rows, tokens))

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
            bounds=self.bounds,
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

    def embed(
        self, images: Tensor, regions: Regions, *, first_step: int | None = None
    ) -> Float[Tensor, "B N D"]:
        """Tokens of given regions: resampled, projected, positions added.

        `first_step` numbers the first step of a clip that is part of a longer one (`TokenStream`).
        """
        patches = sample_regions(
            steps_of(images, self.proj),
            regions,
            self.patch_size,
            sampling=self.sampling,
            oversample=self.oversample,
            antialias=self.antialias,
            bilinear=self.bilinear,
        )
        tokens = self.norm(project(patches, self.proj))
        places = position_map(self.pos_embed, self.time_embed, frames_of(regions), first_step)
        if places is not None:
            measure: Measure = "strip" if self.partition == "authors" else "area"
            tokens = tokens + regions.to_tokens(places, measure=measure).to(tokens.dtype)
        if self.size_embed is not None:
            tokens = tokens + self.size_embed(regions).to(tokens.dtype)
        if regions.counts is None:
            return tokens
        return tokens.masked_fill(~regions.is_region().unsqueeze(-1), 0)

    def forward(self, images: Tensor) -> Tokens:
        """Tokens and regions of images or clips, normalised as the host expects."""
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
        bounds = "".join(
            f", {name}={side}" for name, side in (self.bounds or Bounds())._asdict().items() if side
        )
        return (
            f"num_tokens={self.num_tokens}, num_rows={self.num_rows}, "
            f"partition={self.partition!r}, sampling={self.sampling!r}, "
            f"oversample={self.oversample}, antialias={self.antialias}{bounds}"
        )


def _is_any_size(images: Tensor) -> bool:
    """Whether a graph is being exported in which height or width is still open."""
    sides = images.shape[-2:]
    return torch.compiler.is_exporting() and any(isinstance(side, torch.SymInt) for side in sides)


def _lengths(images: Tensor, dim: int) -> Float[Tensor, ""]:
    """A side in pixels as a value of the graph, which every exporter understands."""
    line = images[0, 0, :, 0] if dim == -2 else images[0, 0, 0, :]
    return geometry(torch.ones_like(line)).sum()
