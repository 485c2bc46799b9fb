"""What a model of videos says about files that have no label."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dartok.core.regions import Regions
from dartok.core.tokenizer import Tokenizer
from dartok.data.clips.transforms import eval_clip_transform
from dartok.data.clips.video import open_video
from dartok.data.samples import BadSample
from dartok.models.dials import regions as regions_of
from dartok.train.evaluation import view_logits
from dartok.train.model import pixels_of
from dartok.train.package import Package
from dartok.train.prediction import Look, Prediction, PredictJob, likeliest

__all__ = ["predict_clips"]


@torch.inference_mode()
def predict_clips(
    package: Package,
    paths: Sequence[Path],
    job: PredictJob,
    *,
    device: torch.device | None = None,
    looks: bool = False,
) -> Iterator[Prediction | BadSample]:
    """One result per video, in order; a video that cannot be read gives its reason instead.

    Args:
        package: A model of videos.
        paths: Video files, or folders of frames.
        job: What is asked; videos are looked at one at a time, in all their clips and crops.
        device: Where the model runs; None for the CPU.
        looks: Whether to add the first view, which costs its score net a second time.
    """
    assert package.clip is not None
    device = device or torch.device("cpu")
    model = package.model.to(device).eval()
    transform = eval_clip_transform(pixels_of(model, job.image_px), package.clip)
    for path in paths:
        try:
            views = transform(open_video(path))
        except ValueError as error:
            yield BadSample(str(path), str(error))
            continue
        shares = view_logits(model, views[None].to(device))[0].exp().cpu()
        look = Look(views[0], _cut(model, views[:1].to(device))) if looks else None
        yield likeliest(str(path), shares, job.top, package.class_names, look)


def _cut(model: nn.Module, clips: Float[Tensor, "1 T 3 H W"]) -> Regions | None:
    has_regions = any(isinstance(module, Tokenizer) for module in model.modules())
    return regions_of(model, clips) if has_regions else None
