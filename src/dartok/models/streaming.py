"""A causal model on a video whose frames come one after the other."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dartok.core.regions import Regions
from dartok.core.streaming import TokenStream
from dartok.core.tokenizer import Tokens
from dartok.models.mamba.causal import MixerState
from dartok.models.mamba.region_vim import RegionVim
from dartok.models.mamba.streaming import stream

__all__ = ["Answer", "VideoStream"]


class Answer(NamedTuple):
    """What a model says after a chunk of a video."""

    logits: Float[Tensor, "B K"]
    """Of all that was seen so far."""
    features: Float[Tensor, "B N D"]
    """The chunk's tokens behind the last norm."""
    regions: Regions
    """Where they lie in the frames of the chunk."""


class VideoStream:
    """Answers while a video runs: each chunk once, at a cost that does not grow with what was seen.

    The model reads forwards, so its tokens of a chunk are those it would give for the whole video,
    cut in the same chunks; the class token is asked anew behind each chunk. What is kept between
    chunks is one frame and one state of fixed size for each block.

    Args:
        model: An adapted Vision Mamba with `directions="forward"` and `class_token="last"`, in eval
            mode, and with `global_pool="token"`.
        chunk_frames: As of `TokenStream`, like the following.
        tokens_per_second: Budget.
        fps: Frames per second.
    Raises:
        ValueError: If the model is not causal, or as `TokenStream`.
    Example:
        >>> import dartok
        >>> from dartok.models.mamba.video import VideoVim
        >>> options = {"directions": "forward", "class_token": "last", "num_classes": 5}
        >>> host = VideoVim(img_size=32, num_frames=8, embed_dim=16, depth=2, **options)
        >>> model = dartok.adapt(host, strength=1.0).eval()
        >>> video = VideoStream(model, chunk_frames=4, tokens_per_second=20, fps=8)
        >>> [answer.logits.shape for answer in video.push(torch.rand(1, 9, 3, 32, 32))]
        [torch.Size([1, 5]), torch.Size([1, 5])]
    """

    def __init__(
        self, model: nn.Module, *, chunk_frames: int, tokens_per_second: float, fps: float
    ) -> None:
        self.model = _check_causal(model)
        self._tokens = TokenStream(
            self.model.patch_embed,
            chunk_frames=chunk_frames,
            tokens_per_second=tokens_per_second,
            fps=fps,
        )
        self._states: list[MixerState] | None = None

    @torch.inference_mode()
    def push(self, frames: Float[Tensor, "B T C H W"]) -> list[Answer]:
        """An answer for each chunk that these frames complete; they are as `TokenStream` says."""
        return [self._answer(found) for found in self._tokens.push(frames)]

    @torch.inference_mode()
    def finish(self) -> list[Answer]:
        """The answer for the frames that still wait, if there are any; then start anew."""
        try:
            return [self._answer(chunk) for chunk in self._tokens.finish()]
        finally:
            self._states = None

    def _answer(self, chunk: Tokens) -> Answer:
        features, self._states = stream(self.model, chunk.tokens, self._states)
        asked, _ = stream(self.model, self._class_token(len(features)), self._states)
        logits = self.model.forward_head(torch.cat([asked, features], dim=1))
        return Answer(logits, features, chunk.regions)

    def _class_token(self, batch: int) -> Float[Tensor, "B 1 D"]:
        return self.model.cls_token.expand(batch, -1, -1)


def _check_causal(model: nn.Module) -> RegionVim:
    if not isinstance(model, RegionVim) or model.directions != "forward":
        raise ValueError(
            f"model must be an adapted Vision Mamba that reads forwards, got a "
            f"{type(model).__name__}; build its host with directions='forward'"
        )
    if model.class_token != "last":
        raise ValueError(
            f"model must ask its class token last, got class_token={model.class_token!r}: "
            "anywhere else it has not seen what comes"
        )
    if model.global_pool != "token":
        raise ValueError(
            f"model must answer with its class token, got global_pool={model.global_pool!r}: "
            "means over all tokens do not come in parts; build its host with 'token'"
        )
    if model.training:
        raise ValueError("model must be in eval mode, got one in training; call model.eval()")
    return model
