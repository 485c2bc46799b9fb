"""The teacher of a distillation: a frozen timm model that takes the student's images."""

from collections.abc import Sequence
from typing import Any

import timm
import torch
from jaxtyping import Float
from timm.data import resolve_model_data_config
from torch import Tensor, nn
from torch.nn import functional as F

from dartok.core.tokenizer import Tokenizer
from dartok.scorers.weights import load_strictly, read_state
from dartok.tasks.loss_config import LossConfig

__all__ = ["Teacher", "build_teacher"]

_BUILDING_ERRORS = (
    RuntimeError,  # timm: unknown name, no pretrained weights, weights of other shapes
    OSError,  # a folder or the hub cannot be read
    ValueError,
    TypeError,
    KeyError,
    AssertionError,
)


class Teacher(nn.Module):
    """A frozen model behind what the student's images need: its normalisation and its size.

    `logits = model(resize(images * scale + shift))`, with `scale = student_std / teacher_std` and
    `shift = (student_mean - teacher_mean) / teacher_std`; without gradient. It stays in eval mode.

    Args:
        model: Maps images to logits.
        size_px: Height and width that it takes, to which images are resized (bilinear,
            antialiased); None for any size.
        scale: Per channel, multiplied with the student's pixels.
        shift: Per channel, added to them.
    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 5))
        >>> teacher = Teacher(model, size_px=(8, 8), scale=(1.0, 1.0, 1.0), shift=(0.0, 0.0, 0.0))
        >>> teacher(torch.rand(2, 3, 20, 20)).shape, teacher.train().training
        (torch.Size([2, 5]), False)
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        model: nn.Module,
        *,
        size_px: tuple[int, int] | None,
        scale: Sequence[float],
        shift: Sequence[float],
    ) -> None:
        super().__init__()
        self.model = model.requires_grad_(False)
        self.size_px = size_px
        self.register_buffer("scale", torch.tensor(tuple(scale)).view(-1, 1, 1))
        self.register_buffer("shift", torch.tensor(tuple(shift)).view(-1, 1, 1))
        self.eval()

    def train(self, mode: bool = True) -> "Teacher":
        """Stay in eval mode, whatever `mode`: a teacher does not learn."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K"]:
        images = images * self.scale + self.shift
        if self.size_px is not None and images.shape[-2:] != self.size_px:
            images = F.interpolate(
                images, self.size_px, mode="bilinear", align_corners=False, antialias=True
            )
        return self.model(images)


def build_teacher(
    config: LossConfig,
    *,
    num_classes: int,
    device: torch.device,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Teacher | None:
    """The teacher that a configuration names, ready to look at the student's images.

    Its weights are those of `config.teacher_checkpoint`, or its pretrained ones. Where its patch
    grid is fixed, images are resized to its own size. The seed of the caller's random numbers does
    not move.

    Args:
        config: Names the teacher, or none.
        num_classes: K, of the student.
        device: Where to put it.
        mean: Of the student's normalisation, per channel in [0, 1]; None if its images are
            normalised as the teacher's.
        std: As `mean`; both or neither.
    Returns:
        The teacher, None if the configuration wants none.
    Raises:
        ValueError: If the model is unknown, cannot be built or loaded, or has other classes.
    Example:
        >>> build_teacher(LossConfig(), num_classes=10, device=torch.device("cpu")) is None
        True
    """
    if config.teacher is None:
        return None
    with torch.random.fork_rng(devices=[]):
        model = _build(config.teacher, num_classes, pretrained=config.teacher_checkpoint is None)
    if config.teacher_checkpoint is not None:
        path = config.teacher_checkpoint
        load_strictly(model, read_state(path), source=f"teacher-checkpoint {path}")
    if model.num_classes != num_classes:
        raise ValueError(
            f"teacher {config.teacher!r} must know the {num_classes} classes of the pictures, got "
            f"{model.num_classes}; choose a model trained on them"
        )
    expected: dict[str, Any] = resolve_model_data_config(model)  # type: ignore[no-untyped-call]
    scale, shift = _conversion(mean, std, expected["mean"], expected["std"])
    teacher = Teacher(model, size_px=_fixed_size(model, expected), scale=scale, shift=shift)
    return teacher.to(device)


def _build(name: str, num_classes: int, *, pretrained: bool) -> Any:
    """The timm model; pretrained ones keep their own head: another one would know nothing."""
    if ":" not in name and not timm.is_model(name):
        raise ValueError(f"teacher {name!r} is unknown; see timm.list_models()")
    try:
        if pretrained:
            return timm.create_model(name, pretrained=True)
        return timm.create_model(name, num_classes=num_classes)
    except _BUILDING_ERRORS as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"teacher {name!r} cannot be built ({reason}); check the name, or give its weights as "
            "--teacher-checkpoint"
        ) from error


def _conversion(
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    teacher_mean: Sequence[float],
    teacher_std: Sequence[float],
) -> tuple[list[float], list[float]]:
    """Factor and summand per channel that turn the student's pixels into the teacher's."""
    if (mean is None) != (std is None):
        raise ValueError(f"mean and std must be given together, got mean={mean}, std={std}")
    if mean is None or std is None:
        return [1.0] * len(teacher_mean), [0.0] * len(teacher_mean)
    scale = [own / other for own, other in zip(std, teacher_std, strict=True)]
    centres = zip(mean, teacher_mean, teacher_std, strict=True)
    return scale, [(own - other) / deviation for own, other, deviation in centres]


def _fixed_size(model: nn.Module, expected: dict[str, Any]) -> tuple[int, int] | None:
    """Height and width that a fixed grid wants; None for a model that takes any."""
    embed: Any = getattr(model, "patch_embed", None)
    if isinstance(embed, Tokenizer):
        return None
    if hasattr(embed, "strict_img_size"):  # timm's: says whether it checks the size
        size = embed.img_size if embed.strict_img_size else None
        return None if size is None else (int(size[0]), int(size[1]))
    fixed = getattr(model, "pretrained_cfg", {}).get("fixed_input_size", False)
    height, width = expected["input_size"][-2:]
    return (int(height), int(width)) if fixed else None
