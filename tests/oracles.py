"""The method again, naive and in NumPy float64: what the implementation is held to.

Written from the definitions, with Python loops, for one image or clip at a time, sharing no code
with `dartok`. Scores are `(T, h, w)`, pictures `(T, C, H, W)`, row edges `(T, R + 1)` in [0, 1] and
strip edges `(N + 1,)` in strip coordinates: one item of the package's batches, T = 1 for an image.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Partition",
    "Rectangle",
    "authors_partition",
    "bilinear",
    "centred_patch",
    "corner_patch",
    "flow_partition",
    "grid_partition",
    "label_map",
    "mass_per_region",
    "overlaps",
    "quantile_edges",
    "rectangles",
    "row_average",
]

Array = NDArray[np.float64]


class Partition(NamedTuple):
    """One image's or clip's regions."""

    row_edges: Array
    strip_edges: Array


class Rectangle(NamedTuple):
    """One rectangle of a region, in [0, 1] of its frame."""

    frame: int
    left: float
    top: float
    right: float
    bottom: float


def quantile_edges(density: Array, num_regions: int) -> Array:
    """Edges of equal mass: the cumulative mass, piecewise linear, read backwards."""
    mass = np.concatenate([[0.0], np.cumsum(density, dtype=np.float64)])
    levels = np.linspace(0, mass[-1], num_regions + 1)
    edges = np.interp(levels, mass, np.arange(len(mass), dtype=np.float64))
    edges[0], edges[-1] = 0, len(density)
    return edges


def row_average(scores: Array, edges_cells: Array) -> Array:
    """Mean of the map `(h, w)` over each row of regions, weighted by the height shared."""
    rows = np.zeros((len(edges_cells) - 1, scores.shape[1]))
    for row in range(len(rows)):
        total = 0.0
        for cell in range(scores.shape[0]):
            top = max(edges_cells[row], cell)
            bottom = min(edges_cells[row + 1], cell + 1)
            if bottom > top:
                rows[row] += (bottom - top) * scores[cell]
                total += bottom - top
        rows[row] /= total
    return rows


def flow_partition(scores: Array, num_tokens: int, num_rows: int) -> Partition:
    """Rows of equal mass in each frame, then regions of equal mass along all rows end to end."""
    frames = np.asarray(scores, np.float64)
    row_cells = [quantile_edges(frame.sum(1), num_rows) for frame in frames]
    strip_cells = quantile_edges(_strip_density(frames, row_cells), num_tokens)
    return Partition(np.stack(row_cells) / frames.shape[1], strip_cells / frames.shape[2])


def grid_partition(scores: Array, num_tokens: int, num_rows: int) -> Partition:
    """Rows and columns of equal mass, cut separately: each row repeats the column edges."""
    frames = np.asarray(scores, np.float64)
    num_columns = num_tokens // (len(frames) * num_rows)
    rows, strip = [], [0.0]
    for t, frame in enumerate(frames):
        rows.append(quantile_edges(frame.sum(1), num_rows) / frame.shape[0])
        columns = quantile_edges(frame.sum(0), num_columns) / frame.shape[1]
        for r in range(num_rows):
            strip.extend(t * num_rows + r + columns[1:])
    return Partition(np.stack(rows), np.array(strip))


def authors_partition(scores: Array, num_tokens: int, num_rows: int) -> Partition:
    """The released code's regions of one image `(h, w)`, its epsilons included."""
    pdf = scores / scores.sum()
    rows = pdf.sum(1)
    row_cells = _authors_quantile(rows / (rows.sum() + 1e-8), num_rows)
    strip = row_average(pdf, row_cells).ravel()
    strip_cells = _authors_quantile(strip / strip.sum(), num_tokens)
    return Partition(row_cells[None] / pdf.shape[0], strip_cells / pdf.shape[1])


def _strip_density(frames: Array, row_cells: Iterable[Array]) -> Array:
    pairs = zip(frames, row_cells, strict=True)
    return np.concatenate([row_average(frame, cells).ravel() for frame, cells in pairs])


def _authors_quantile(pdf: Array, num_regions: int) -> Array:
    edges = [0.0]
    cumulative = np.cumsum(pdf)
    for k in range(1, num_regions):
        cell = next((j for j, c in enumerate(cumulative) if c >= k / num_regions), len(pdf) - 1)
        before = cumulative[cell - 1] if cell else 0.0
        edges.append(cell + (k / num_regions - before) / (pdf[cell] + 1e-8))
    return np.array([*edges, len(pdf)])


def mass_per_region(scores: Array, partition: Partition) -> Array:
    """Strip density integrated over each region's interval, in score cells."""
    row_edges, strip_edges = partition
    height, width = scores.shape[1:]
    mass = np.concatenate([[0.0], np.cumsum(_strip_density(scores, row_edges * height))])
    return np.diff(np.interp(strip_edges * width, np.arange(len(mass)), mass))


def rectangles(partition: Partition, region: int) -> list[Rectangle]:
    """The parts of a region, one for each row it touches, empty ones left out."""
    row_edges, strip_edges = partition
    num_rows = row_edges.shape[1] - 1
    found = []
    for strip_row in range(row_edges.shape[0] * num_rows):
        left = max(strip_edges[region] - strip_row, 0.0)
        right = min(strip_edges[region + 1] - strip_row, 1.0)
        if right > left:
            frame, row = divmod(strip_row, num_rows)
            top, bottom = row_edges[frame, row], row_edges[frame, row + 1]
            found.append(Rectangle(frame, left, top, right, bottom))
    return found


def label_map(partition: Partition, size: tuple[int, int]) -> NDArray[np.int64]:
    """Region of each pixel's centre `(T, H, W)`, by asking every rectangle. -1 where none holds it.

    A rectangle holds its left and top sides, not its right and bottom ones.
    """
    num_frames, num_regions = len(partition.row_edges), len(partition.strip_edges) - 1
    labels = np.full((num_frames, *size), -1)
    y = ((np.arange(size[0]) + 0.5) / size[0])[:, None]
    x = ((np.arange(size[1]) + 0.5) / size[1])[None, :]
    for region in range(num_regions):
        for part in rectangles(partition, region):
            held = (part.left <= x) & (x < part.right) & (part.top <= y) & (y < part.bottom)
            assert (labels[part.frame][held] == -1).all(), "two regions hold one pixel"
            labels[part.frame][held] = region
    return labels


def overlaps(partition: Partition, size: tuple[int, int], measure: str = "area") -> Array:
    """What each region shares with each map cell `(N, T, h, w)`, by clipping every rectangle.

    "area": the common area, a frame's being 1. "strip": the length along the strip, for which every
    row of regions is as high as every other.
    """
    num_frames, num_regions = len(partition.row_edges), len(partition.strip_edges) - 1
    shared = np.zeros((num_regions, num_frames, *size))
    for region in range(num_regions):
        for part in rectangles(partition, region):
            unit = part.bottom - part.top if measure == "strip" else 1.0
            for i in range(size[0]):
                tall = min(part.bottom, (i + 1) / size[0]) - max(part.top, i / size[0])
                for j in range(size[1]):
                    wide = min(part.right, (j + 1) / size[1]) - max(part.left, j / size[1])
                    shared[region, part.frame, i, j] += max(tall, 0) / unit * max(wide, 0)
    return shared


def bilinear(picture: Array, x_px: float, y_px: float) -> Array:
    """The picture `(C, H, W)` at a pixel index, the border pixel repeated outside."""
    height, width = picture.shape[1:]
    x_px, y_px = min(max(x_px, 0.0), width - 1.0), min(max(y_px, 0.0), height - 1.0)
    j, i = int(x_px), int(y_px)
    fx, fy = x_px - j, y_px - i
    right, below = min(j + 1, width - 1), min(i + 1, height - 1)
    upper = (1 - fx) * picture[:, i, j] + fx * picture[:, i, right]
    lower = (1 - fx) * picture[:, below, j] + fx * picture[:, below, right]
    return (1 - fy) * upper + fy * lower


def centred_patch(
    pictures: Array,
    partition: Partition,
    region: int,
    patch_size: tuple[int, int],
    oversample: int = 1,
) -> Array:
    """One region's patch `(C, P, P)`: every sample in the middle of its share of the region."""
    height, width = pictures.shape[2:]
    rows, columns = patch_size[0] * oversample, patch_size[1] * oversample
    num_rows = partition.row_edges.shape[1] - 1
    left, right = partition.strip_edges[region : region + 2]
    fine = np.zeros((pictures.shape[1], rows, columns))
    for j in range(columns):
        strip = left + (right - left) * (j + 0.5) / columns
        frame, row = divmod(min(int(strip), len(pictures) * num_rows - 1), num_rows)
        top, bottom = partition.row_edges[frame, row : row + 2]
        for k in range(rows):
            y = top + (bottom - top) * (k + 0.5) / rows
            x = strip - frame * num_rows - row
            fine[:, k, j] = bilinear(pictures[frame], x * width - 0.5, y * height - 0.5)
    return _pooled(fine, oversample)


def corner_patch(
    pictures: Array,
    partition: Partition,
    region: int,
    patch_size: tuple[int, int],
    oversample: int = 1,
) -> Array:
    """One region's patch `(C, P, P)` by the authors' rule, through their strip of resampled rows.

    Samples start at the left and top edges, which are read as pixel indices. Neighbouring columns
    of the strip blend wherever they come from; beyond its end it is zero.
    """
    height, width = pictures.shape[2:]
    rows, columns = patch_size[0] * oversample, patch_size[1] * oversample
    num_rows = partition.row_edges.shape[1] - 1

    def strip_column(index: int) -> Array:
        if not 0 <= index < len(pictures) * num_rows * width:
            return np.zeros((pictures.shape[1], rows))
        strip_row, x_px = divmod(index, width)
        frame, row = divmod(strip_row, num_rows)
        top, bottom = partition.row_edges[frame, row : row + 2] * height
        heights = [top + (bottom - top) * k / rows for k in range(rows)]
        return np.stack([bilinear(pictures[frame], x_px, y_px) for y_px in heights], axis=1)

    left, right = partition.strip_edges[region : region + 2] * width
    fine = np.zeros((pictures.shape[1], rows, columns))
    for j in range(columns):
        x_px = left + (right - left) * j / columns
        index = int(np.floor(x_px))
        share = x_px - index
        fine[:, :, j] = (1 - share) * strip_column(index) + share * strip_column(index + 1)
    return _pooled(fine, oversample)


def _pooled(fine: Array, factor: int) -> Array:
    channels, rows, columns = fine.shape
    return fine.reshape(channels, rows // factor, factor, columns // factor, factor).mean((2, 4))
