"""Videos to tensors: one clip, augmented, for training; clips and crops for evaluation."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from dartok.data.augment import AugmentConfig, PixelConfig
from dartok.data.clips.clip_config import ClipConfig
from dartok.data.clips.sampling import eval_indices, train_indices
from dartok.data.clips.video import BlankVideo, Video
from dartok.data.loading import seeded
from dartok.data.samples import ClipTransform, Transform
from dartok.data.transforms import train_transform

__all__ = ["blank_clip", "eval_clip_transform", "train_clip_transform"]


def train_clip_transform(
    augment: AugmentConfig, pixels: PixelConfig, clip: ClipConfig
) -> ClipTransform:
    """A clip `(T, 3, H, W)` whose frames are all varied alike, each as `train_transform` does.

    Crop, flip, colours, policy and erased rectangle, its noise too, are drawn once for all frames.
    They come from the global generators of PyTorch, NumPy and Python.

    Args:
        augment: How frames are varied; `on_device` is refused.
        pixels: Size and normalisation.
        clip: Which frames.
    Raises:
        ValueError: If timm does not know the policy, or `augment` asks for the device.
    """
    if augment.on_device:
        raise ValueError("on-device does not know clips, got True; drop --on-device")
    size = pixels.size_px
    return _TrainClip(train_transform(augment, pixels), clip, (clip.num_frames, 3, size, size))


def eval_clip_transform(pixels: PixelConfig, clip: ClipConfig) -> ClipTransform:
    """Clips and crops `(num_clips * num_crops, T, 3, H, W)` of a video, normalised.

    The shorter side is resized to `size_px / crop_share`. Square k of K lies `floor(k * rest /
    (K - 1))` from the start of the longer side, `rest` being what it has over `size_px`; in the
    middle of the shorter side, and with one crop of both. The crops of the first clip come first.

    Source: 3 crops along the longer side are those of Kinetics' testing since arXiv:1711.07971, at
    `crop_share` 1 in the recipes of VideoMAE and VideoMamba.

    Args:
        pixels: Size and normalisation.
        clip: Which frames, and the numbers of clips and crops.
    """
    return _EvalClips(pixels, clip, (clip.num_views, clip.num_frames, 3, *[pixels.size_px] * 2))


def blank_clip(transform: ClipTransform) -> Float[Tensor, "1 ..."]:
    """A batch of one black video, as a transform gives it."""
    return transform(BlankVideo())[None]


@dataclass(frozen=True)
class _TrainClip:
    transform: Transform
    clip: ClipConfig
    sample_shape: tuple[int, ...]

    def __call__(self, video: Video) -> Float[Tensor, "T 3 H W"]:
        images = _images(video, train_indices(video.num_frames, self.clip).tolist())
        seed = int(torch.randint(2**62, ()))
        made = []
        for image in images:
            with seeded(seed):  # each frame draws the same
                made.append(self.transform(image))
        return torch.stack(made)


@dataclass(frozen=True)
class _EvalClips:
    pixels: PixelConfig
    clip: ClipConfig
    sample_shape: tuple[int, ...]

    def __call__(self, video: Video) -> Float[Tensor, "views T 3 H W"]:
        indices = eval_indices(video.num_frames, self.clip)
        distinct = sorted(set(indices.flatten().tolist()))
        images = _images(video, distinct)
        crops = dict(zip(distinct, map(self._crops, images), strict=True))
        clips = [torch.stack([crops[index] for index in row], dim=1) for row in indices.tolist()]
        return torch.cat(clips)

    def _crops(self, image: Image.Image) -> Float[Tensor, "crops 3 H W"]:
        from torchvision.transforms import InterpolationMode
        from torchvision.transforms import functional as images

        size = self.pixels.size_px
        shorter = math.floor(size / self.pixels.crop_share)
        resized = images.resize(image, shorter, InterpolationMode(self.pixels.interpolation))
        tensor = images.normalize(images.to_tensor(resized), self.pixels.mean, self.pixels.std)
        places = _places(resized.height, resized.width, size, self.clip.num_crops)
        return torch.stack([images.crop(tensor, top, left, size, size) for top, left in places])


def _images(video: Video, indices: list[int]) -> list[Image.Image]:
    frames = video.frames(indices).permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(frame) for frame in frames]


def _places(height: int, width: int, size: int, num_crops: int) -> list[tuple[int, int]]:
    """Top and left of each crop."""
    top, left = round((height - size) / 2), round((width - size) / 2)
    if num_crops == 1:
        return [(top, left)]
    rest = max(height, width) - size
    along = [number * rest // (num_crops - 1) for number in range(num_crops)]
    return [(place, left) if height > width else (top, place) for place in along]
