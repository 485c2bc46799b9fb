"""`dartok eval`: accuracy of a trained model, for one number of tokens or several."""

import json as json_module
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cyclopts import Parameter
from rich.table import Table

from dartok.cli.console import print_table, say
from dartok.data.source_config import DataConfig

if TYPE_CHECKING:
    from dartok.train.assess import Row
    from dartok.train.protocols import EvalProtocol

__all__ = ["EvalConfig", "evaluate"]

_PAPER_PX = 448
_PAPER_CROP_SHARE = 0.875
"""The authors resize the shorter side to 448 / 0.875 = 512 pixels and crop the middle."""
_PAPER_INTERPOLATION = "bicubic"
_IOU = "iou/"

_CLIP_SETTINGS = ("num_frames", "num_clips", "num_crops")


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """How a model is evaluated."""

    num_tokens: str | None = None
    """Regions per picture: one number, or several as in 49,100,196; by default the model's own."""
    image_px: int | None = None
    """Side that pictures are resized and cropped to; by default the model's own."""
    batch_size: int = 32
    """Pictures per forward pass of each process; with --paper the result depends on it."""
    workers: int = 2
    """Processes that read pictures, for each process."""
    max_bad_share: float = 0.01
    """Stop when more than this share of the pictures is damaged."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the model's arithmetic; auto takes bfloat16 on a GPU that has it, else float32."""
    device: str = "auto"
    """Such as cpu or cuda; auto takes a GPU if there is one."""
    stream: bool = False
    """Read Parquet files or a Hugging Face dataset as a stream."""
    classes: Path | None = None
    """Text file with one class a line, in the order of the numbers in tables or shards; by default
    what they note, or the model's own order."""
    num_samples: int | None = None
    """Pictures in shards or a stream that do not note it."""
    image_column: str = "image"
    """Column of a table that holds the pictures."""
    label_column: str = "label"
    """Column of a table that holds their classes."""
    paper: bool = False
    """Also measure as the authors do: shorter side resized to 512 px (bicubic), middle 448 px, and
    score maps standardised over the batch, of --batch-size pictures; theirs is that of training."""
    windows: bool = False
    """Tell the classes of pixels through overlapping windows, instead of the whole picture."""
    num_frames: int | None = None
    """With a model of videos: frames in a clip; this and the next two by default as in training."""
    num_clips: int | None = None
    """Clips of each video, spread over it."""
    num_crops: int | None = None
    """Squares cut from each frame along its longer side."""
    root: Path | None = None
    """Folder that the paths in a list of videos start from; by default the one it lies in."""
    per_image: Path | None = None
    """Parquet file to write, one row per picture: name, label, prediction, confidence, loss."""
    json: bool = False
    """Print JSON instead of a table."""

    def __post_init__(self) -> None:
        for name in ("image_px", "batch_size", *_CLIP_SETTINGS):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name.replace('_', '-')} must be >= 1, got {value}")
        _ = self.budgets, self.data("any")

    def data(self, name: str) -> DataConfig:
        """Pictures of a name, and how they are read; refuses settings that cannot be."""
        return DataConfig(
            data=name,
            workers=self.workers,
            max_bad_share=self.max_bad_share,
            stream=self.stream,
            classes=self.classes,
            num_samples=self.num_samples,
            image_column=self.image_column,
            label_column=self.label_column,
            root=self.root,
        )

    @property
    def clip(self) -> dict[str, int]:
        """What is given of a clip's settings."""
        given = {name: getattr(self, name) for name in _CLIP_SETTINGS}
        return {name: value for name, value in given.items() if value is not None}

    @property
    def budgets(self) -> tuple[int, ...]:
        """The numbers of tokens; none for the model's own."""
        parts = [] if self.num_tokens is None else self.num_tokens.split(",")
        if not all(part.strip().isdigit() and int(part) > 0 for part in parts):
            raise ValueError(
                f"num-tokens must be numbers >= 1 as in 49,100,196, got {self.num_tokens!r}"
            )
        return tuple(int(part) for part in parts)

    @property
    def protocols(self) -> tuple["EvalProtocol", ...]:
        """How the model is measured: ours, and the authors' where it is asked for."""
        from dartok.train.protocols import EvalProtocol

        ours = EvalProtocol("ours", image_px=self.image_px)
        paper = EvalProtocol(
            "paper",
            image_px=_PAPER_PX,
            crop_share=_PAPER_CROP_SHARE,
            interpolation=_PAPER_INTERPOLATION,
            batch_statistics=True,
        )
        return (ours, paper) if self.paper else (ours,)


def evaluate(
    model: Path,
    data: str,
    /,
    *,
    config: EvalConfig = EvalConfig(),
) -> None:
    """Measure a trained model on labelled pictures or videos: folders, label maps, shards, ...

    Every readable picture counts once, also with several processes (torchrun ... -m dartok eval).

    Args:
        model: Folder of the model, such as best/ of a run.
        data: The pictures, named as --data of dartok train: a folder, Parquet files, shards, ...;
            for a model of segmentation a data set of label maps, or one of its splits, ROOT:SPLIT;
            for one of videos a folder of class folders, a list or shards of them.
        config: How it is evaluated.
    """
    from dartok.train.assess import assess
    from dartok.train.world import start_world

    with start_world(config.device) as world:
        results = assess(
            model,
            config.data(data),
            budgets=config.budgets,
            protocols=config.protocols,
            batch_size=config.batch_size,
            precision=config.precision,
            world=world,
            per_image=config.per_image,
            windows=config.windows,
            clip=config.clip,
        )
        if not world.is_main:
            return
    if config.json:
        say(json_module.dumps(results))
        return
    if "miou" in results[0]:
        _print_maps(results)
    else:
        _print_table(results, all_columns=config.paper)


def _print_table(results: list["Row"], *, all_columns: bool) -> None:
    table = Table(box=None, pad_edge=False)
    names = ("tokens", "top-1", "top-5", "mean class top-1", "loss", "ECE", "pictures")
    for name in (*(("protocol", "batch") if all_columns else ()), *names):
        table.add_column(name, justify="left" if name == "protocol" else "right")
    for row in results:
        first = (str(row["protocol"]), str(row["batch_size"])) if all_columns else ()
        table.add_row(*first, *_cells(row))
    print_table(table)


def _print_maps(results: list["Row"]) -> None:
    """Measures of all classes, then those of each."""
    table = Table(box=None, pad_edge=False)
    for name in ("tokens", "mIoU", "pixels right", "mean class", "loss", "pictures"):
        table.add_column(name, justify="right")
    for row in results:
        shares = [f"{row[name]:.2%}" for name in ("miou", "pixel_accuracy", "mean_class_accuracy")]
        numbers = [f"{row['loss']:.3f}", f"{row['images']:.0f}"]
        table.add_row(f"{row['num_tokens']:.0f}", *shares, *numbers)
    print_table(table)
    say("")
    of_class = Table(box=None, pad_edge=False)
    of_class.add_column("class")
    for row in results:
        of_class.add_column(f"IoU at {row['num_tokens']:.0f}", justify="right")
    for name in (name for name in results[0] if name.startswith(_IOU)):
        of_class.add_row(name.removeprefix(_IOU), *(f"{row[name]:.2%}" for row in results))
    print_table(of_class)


def _cells(row: "Row") -> list[str]:
    shares = [f"{row[name]:.2%}" for name in ("top1", "top5", "mean_class_top1")]
    numbers = [f"{row['loss']:.3f}", f"{row['ece']:.3f}", f"{row['images']:.0f}"]
    return [f"{row['num_tokens']:.0f}", *shares, *numbers]
