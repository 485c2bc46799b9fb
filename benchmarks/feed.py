"""Pictures per second that reach a training loop, from each kind of source and number of workers.

    python benchmarks/feed.py FOLDER --workers 0 2 --steps 20

FOLDER holds one folder of pictures per class. Up to --num-samples of its pictures are written to a
temporary folder as class folders, WebDataset shards and Parquet files, with the same bytes. Each
contestant then reads, decodes and augments the same number of steps; they take turns, and the
median of the rounds is printed. The first batch, and with it the start of workers and the filling
of a stream's buffer, is timed apart. Pictures come from the system's file cache: no disk is timed.
"""

import argparse
import os
import statistics
import sys
import tarfile
import tempfile
import time
from io import BytesIO
from pathlib import Path

import numpy as np
import torch

from dartok.bench.machine import describe_machine
from dartok.data.augment import AugmentConfig, PixelConfig
from dartok.data.columns import Columns
from dartok.data.feed import train_feed
from dartok.data.folder import FolderSource
from dartok.data.hub import TableSource, open_parquet
from dartok.data.order import TrainOrder
from dartok.data.parquet import ParquetStream
from dartok.data.samples import AnySource
from dartok.data.shards import ShardSource
from dartok.data.transforms import train_transform

PIXELS = PixelConfig(size_px=224, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
Picture = tuple[str, int, bytes]


def pictures_of(folder: Path, num_samples: int) -> tuple[tuple[str, ...], list[Picture]]:
    """Class names, and names, labels and bytes of pictures drawn from a folder."""
    source = FolderSource(folder)
    drawn = np.random.default_rng(0).permutation(len(source))[:num_samples].tolist()
    found = [
        (source.name(i), source.label(i), (folder / source.name(i)).read_bytes()) for i in drawn
    ]
    return source.class_names, found


def write_folder(root: Path, names: tuple[str, ...], pictures: list[Picture]) -> FolderSource:
    """As class folders."""
    for name, _, data in pictures:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return FolderSource(root, names)


def write_shards(
    root: Path, names: tuple[str, ...], pictures: list[Picture], num_shards: int
) -> ShardSource:
    """As tar files."""
    root.mkdir()
    paths = [root / f"{shard:03}.tar" for shard in range(num_shards)]
    for shard, path in enumerate(paths):
        with tarfile.open(path, "w") as tar:
            for number, (_, label, data) in enumerate(pictures[shard::num_shards]):
                for suffix, content in (("jpg", data), ("cls", str(label).encode())):
                    member = tarfile.TarInfo(f"{number:06}.{suffix}")
                    member.size = len(content)
                    tar.addfile(member, BytesIO(content))
    return ShardSource([str(path) for path in paths], own=names)


def write_parquet(root: Path, pictures: list[Picture], num_files: int) -> list[Path]:
    """As Parquet files with groups of 100 rows, which is how Hugging Face writes pictures."""
    import pyarrow as pa
    from pyarrow.parquet import write_table

    root.mkdir()
    paths = [root / f"{number:03}.parquet" for number in range(num_files)]
    for number, path in enumerate(paths):
        part = pictures[number::num_files]
        columns = {"image": [row[2] for row in part], "label": [row[1] for row in part]}
        write_table(pa.table(columns), path, row_group_size=100, compression="none")
    return paths


def measure(source: AnySource, options: argparse.Namespace, workers: int) -> tuple[float, float]:
    """Pictures per second after the first batch, and seconds to that."""
    order = TrainOrder(num_samples=len(source), batch_size=options.batch_size, seed=0)
    transform = train_transform(AugmentConfig(), PIXELS)
    start = time.perf_counter()
    batches = train_feed(source, transform, order, 0, options.steps + 1, workers=workers)
    next(batches)
    first_s = time.perf_counter() - start
    count = sum(len(batch.labels) for batch in batches)
    return count / (time.perf_counter() - start - first_s), first_s


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder of class folders")
    parser.add_argument("--num-samples", type=int, default=2000, help="pictures used (2000)")
    parser.add_argument("--num-shards", type=int, default=8, help="tar and Parquet files (8)")
    parser.add_argument("--batch-size", type=int, default=32, help="pictures per step (32)")
    parser.add_argument("--steps", type=int, default=20, help="timed steps of each (20)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each (3)")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2], help="(0 2)")
    return parser.parse_args()


def contestants(root: Path, options: argparse.Namespace) -> dict[str, AnySource]:
    """The same pictures in each form."""
    names, pictures = pictures_of(options.folder, options.num_samples)
    paths = write_parquet(root / "parquet", pictures, options.num_shards)
    return {
        "folder": write_folder(root / "folder", names, pictures),
        "shards": write_shards(root / "shards", names, pictures, options.num_shards),
        "parquet": TableSource(open_parquet(paths), Columns(), "parquet", names),
        "parquet stream": ParquetStream(paths, Columns(), names),
    }


def main() -> int:
    """Measure in turns, print, and return the exit code."""
    options = parse()
    print(describe_machine(torch.device("cpu"), torch.float32))
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HF_DATASETS_CACHE"] = str(Path(folder) / "cache")  # read once, at the import
        sources = contestants(Path(folder), options)
        found: dict[tuple[str, int], list[tuple[float, float]]] = {}
        for _ in range(options.rounds):
            for workers in options.workers:
                for name, source in sources.items():
                    found.setdefault((name, workers), []).append(measure(source, options, workers))
    for (name, workers), rows in found.items():
        speed, first_s = (statistics.median(column) for column in zip(*rows, strict=True))
        spread = " ".join(f"{row[0]:.0f}" for row in rows)
        print(
            f"{name:<15} {workers} workers {speed:6.0f} pictures/s ({spread}), "
            f"first batch {first_s:.2f} s"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
