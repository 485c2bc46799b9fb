"""`TokenStream`: the tokens of a video whose frames come one after the other."""

from collections.abc import Sequence
from fractions import Fraction

import torch
from jaxtyping import Float
from torch import Tensor

from dartok.core.names import whole_number
from dartok.core.regions import Regions, frames_of, rows_of
from dartok.core.scoring import check_images
from dartok.core.tokenizer import Tokenizer, Tokens

__all__ = ["TokenStream", "join_regions"]


class TokenStream:
    """Frames to tokens, chunk by chunk: causal, at a constant number of tokens per second.

    Each `chunk_frames` frames are one clip with a budget of its own: chunk c, from 0, has
    `floor((c + 1) b) - floor(c b)` tokens with `b = tokens_per_second * chunk_frames / fps`, so
    that the sum never is a whole token away from what the seconds ask for. Its score looks back at
    one frame of the chunk before, so a scorer of motion is not surprised at each chunk's start; it
    looks at no later frame. Time and memory of a chunk do not grow with the length of the video.

    A tokenizer with positions in time counts steps from the start of the stream. Beyond those it
    knows the last one is held.

    Not for several videos at once whose frames come at different times: one stream for each.

    Source: ours.

    Args:
        tokenizer: In eval mode; its own number of tokens and rows are not used.
        chunk_frames: Frames that are cut together, `>= 1`, a multiple of the tubelet's. More of
            them share tokens better, and come later.
        tokens_per_second: Budget; at least one token for each chunk.
        fps: Frames per second.
    Raises:
        ValueError: If a number is out of range, or a chunk would have no token.
    Example:
        >>> from dartok.scorers import RegionTokenizer
        >>> stream = TokenStream(
        ...     RegionTokenizer(embed_dim=8, num_tokens=1), chunk_frames=4, tokens_per_second=50,
        ...     fps=8,
        ... )
        >>> [found.tokens.shape[1] for found in stream.push(torch.rand(1, 10, 3, 32, 32))]
        [25, 25]
        >>> [found.tokens.shape[1] for found in stream.finish()]
        [12]
    """

    def __init__(
        self, tokenizer: Tokenizer, *, chunk_frames: int, tokens_per_second: float, fps: float
    ) -> None:
        if tokenizer.partition != "flow":
            raise ValueError(
                f"a stream needs partition='flow', got {tokenizer.partition!r}: its chunks differ "
                "by a token, which no lattice can"
            )
        self.tokenizer = tokenizer
        self.chunk_frames = whole_number("chunk_frames", chunk_frames)
        if self.chunk_frames % tokenizer.tubelet:
            raise ValueError(
                f"chunk_frames must be a multiple of {tokenizer.tubelet}, the frames of the "
                f"model's tubelets, got {chunk_frames}"
            )
        for name, value in {"tokens_per_second": tokens_per_second, "fps": fps}.items():
            if not 0 < value < float("inf"):
                raise ValueError(f"{name} must be > 0 and finite, got {value}")
        self._per_frame = Fraction(tokens_per_second) / Fraction(fps)
        if self._per_frame * self.chunk_frames < 1:
            raise ValueError(
                f"tokens_per_second must give a chunk of {chunk_frames} frames a token, got "
                f"{tokens_per_second} at {fps} frames per second; raise it or chunk_frames"
            )
        self._waiting: list[Tensor] = []
        self._before: Tensor | None = None
        self._frames_done = 0

    @property
    def frames_done(self) -> int:
        """Frames whose tokens were given."""
        return self._frames_done

    def push(self, frames: Float[Tensor, "B T C H W"]) -> list[Tokens]:
        """The tokens of all chunks that these frames complete; those left over wait.

        Args:
            frames: The next ones, any number of them, normalised as the host expects.
        Raises:
            ValueError: If they are no clip, or of another size or batch than those before.
        """
        self._check(frames)
        waiting = [*self._waiting, frames]
        if sum(part.shape[1] for part in waiting) < self.chunk_frames:
            self._waiting = [*self._waiting, frames.clone()]
            return []
        held = torch.cat(waiting, dim=1)
        rest = held.shape[1] % self.chunk_frames
        before = self._before, self._frames_done
        try:
            whole = held[:, : held.shape[1] - rest]
            found = [self._cut(chunk) for chunk in whole.split(self.chunk_frames, 1)]
        except BaseException:  # the stream is as it was: these frames can be pushed again
            self._before, self._frames_done = before
            raise
        self._waiting = [held[:, -rest:].clone()] if rest else []
        return found

    def finish(self) -> list[Tokens]:
        """The tokens of the frames that still wait, with their share; then start anew.

        Frames that do not fill a tubelet are dropped.
        """
        try:
            held = torch.cat(self._waiting, dim=1) if self._waiting else None
            whole = 0 if held is None else held.shape[1] // self.tokenizer.tubelet
            if held is None or not whole:
                return []
            return [self._cut(held[:, : whole * self.tokenizer.tubelet])]
        finally:
            self._waiting, self._before, self._frames_done = [], None, 0

    def _check(self, frames: Tensor) -> None:
        if frames.ndim != 5 or not frames.shape[1]:
            raise ValueError(
                f"frames must be (B, T, C, H, W) with at least one, got {tuple(frames.shape)}; "
                "images[None] is a clip of one video"
            )
        proj = self.tokenizer.proj
        check_images(frames, proj.in_channels, self.tokenizer.patch_size, tubelet=1)
        known = self._waiting[0] if self._waiting else self._before
        if known is not None and _picture(known) != _picture(frames):
            raise ValueError(
                f"frames must be {_picture(known)} as those before, got {_picture(frames)}; begin "
                "another stream, or call finish() first"
            )

    def _cut(self, chunk: Float[Tensor, "B T C H W"]) -> Tokens:
        """Cut a chunk, and remember what the next one needs of it."""
        start, stop = self._frames_done, self._frames_done + chunk.shape[1]
        num_tokens = max(1, int(self._per_frame * stop) - int(self._per_frame * start))
        regions = self._regions(chunk, num_tokens)
        tubelet = self.tokenizer.tubelet
        tokens = self.tokenizer.embed(chunk, regions, first_step=start // tubelet)
        self._before, self._frames_done = chunk[:, -1:].clone(), stop
        return Tokens(tokens, regions)

    def _regions(self, chunk: Tensor, num_tokens: int) -> Regions:
        seen = chunk if self._before is None else torch.cat([self._before, chunk], dim=1)
        scores = self.tokenizer.scores(seen)[:, -chunk.shape[1] :]
        size_px = (chunk.shape[-2], chunk.shape[-1])
        usual = max(1, int(self._per_frame * self.chunk_frames))
        steps = self.chunk_frames // self.tokenizer.tubelet
        rows = self.tokenizer._default_num_rows(usual, size_px, steps)  # the same for all chunks
        with self.tokenizer.at_num_tokens(num_tokens, min(rows, num_tokens)):
            return self.tokenizer.cut(scores, size_px)


def join_regions(chunks: Sequence[Regions]) -> Regions:
    """The regions of chunks of a video as those of the video.

    Args:
        chunks: One after the other, of one batch, with as many rows in each frame.
    Raises:
        ValueError: If there is none, or they differ in batch or rows.
    Example:
        >>> one = Regions(torch.tensor([[[0.0, 1.0]]]), torch.tensor([[0.0, 0.5, 1.0]]))
        >>> join_regions([one, one]).strip_edges
        tensor([[0.0000, 0.5000, 1.0000, 1.5000, 2.0000]])
    """
    kinds = {(len(chunk.row_edges), rows_of(chunk)) for chunk in chunks}
    if len(kinds) != 1 or any(chunk.counts is not None for chunk in chunks):
        raise ValueError(
            "chunks must be at least one, of one batch and number of rows, without counts of their "
            f"own, got {sorted(kinds)}"
        )
    edges, length = [], 0
    for chunk in chunks:
        edges.append(chunk.strip_edges[:, 1:] + length)
        length += frames_of(chunk) * rows_of(chunk)
    first = chunks[0].strip_edges[:, :1]
    row_edges = torch.cat([chunk.row_edges for chunk in chunks], dim=1)
    return Regions(row_edges, torch.cat([first, *edges], dim=1))


def _picture(frames: Tensor) -> str:
    """What must not change from frame to frame."""
    shape = (frames.shape[0], *frames.shape[2:])
    return f"(B, C, H, W) = {shape} of {frames.dtype} on {frames.device}"
