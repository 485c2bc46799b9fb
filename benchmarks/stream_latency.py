"""Streaming: that chunks give what the whole video gives, and how long a frame takes.

    python benchmarks/stream_latency.py VIDEO --chunk-frames 4 --tokens-per-second 400

A causal VideoMamba (tiny, random weights, reading forwards) looks at the frames of a video, or of
random ones without VIDEO, chunk by chunk; then at the whole video at once, cut in the same chunks.
Prints the largest difference of its features and logits, relative to the largest value, and the
median and 99th percentile of the seconds that a frame takes: those of its chunk, divided by its
frames, and of the chunk that is waited for. Exits with 1 if the difference is above 1e-5.
"""

import argparse
import sys
import time
import warnings

import torch
from torch import Tensor

import dartok
from dartok.bench.machine import describe_machine
from dartok.core.streaming import join_regions
from dartok.models.mamba.region_vim import RegionVim
from dartok.models.mamba.video import VideoVim
from dartok.models.streaming import Answer, VideoStream

LARGEST_DIFFERENCE = 1e-5


def causal_model(side_px: int, num_frames: int) -> RegionVim:
    """VideoMamba-Ti that reads forwards, on regions."""
    host = VideoVim(
        img_size=side_px, num_frames=num_frames, directions="forward", class_token="last"
    )
    model = dartok.adapt(host, scorer="motion/conv", strength=1.0).eval()
    assert isinstance(model, RegionVim)
    return model


def read(options: argparse.Namespace) -> tuple[Tensor, float]:
    """A clip `(1, T, 3, side, side)` of all frames, and frames per second."""
    if options.video is None:
        drawn = torch.randn(1, options.num_frames * 3, options.side_px // 8, options.side_px // 8)
        smooth = torch.nn.functional.interpolate(drawn, scale_factor=8, mode="bilinear")
        return smooth.unflatten(1, (options.num_frames, 3)), options.fps
    from dartok.data.clips.video import open_video

    video = open_video(options.video)
    frames = video.frames(range(min(options.num_frames, video.num_frames))).float() / 127.5 - 1
    size = (options.side_px, options.side_px)
    resized = torch.nn.functional.interpolate(frames, size, mode="bilinear", antialias=True)
    return resized[None], video.fps or options.fps


def streamed(stream: VideoStream, clip: Tensor) -> tuple[list[Answer], list[float]]:
    """Answers of all chunks, and the seconds that each took."""
    answers, seconds = [], []
    for frame in clip.split(1, dim=1):
        start = time.perf_counter()
        found = stream.push(frame)
        if found:
            seconds.append(time.perf_counter() - start)
        answers += found
    return answers + stream.finish(), seconds


@torch.inference_mode()
def at_once(model: RegionVim, clip: Tensor, answers: list[Answer]) -> tuple[Tensor, Tensor]:
    """Features and logits of the whole video, cut as the chunks were."""
    regions = join_regions([answer.regions for answer in answers])
    tokens = model.features_of(clip, regions)
    return tokens[:, 1:], model.forward_head(tokens)


def difference(ours: Tensor, theirs: Tensor) -> float:
    """Largest, relative to the largest value."""
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("video", nargs="?", help="a file; random frames without")
    parser.add_argument("--num-frames", type=int, default=64, help="at most (64)")
    parser.add_argument("--side-px", type=int, default=224, help="of the frames (224)")
    parser.add_argument("--chunk-frames", type=int, default=4, help="frames cut together (4)")
    parser.add_argument("--tokens-per-second", type=float, default=400.0)
    parser.add_argument("--fps", type=float, default=8.0, help="where the video does not tell (8)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    return parser.parse_args()


def main() -> int:
    """Stream, compare, print, and return the exit code."""
    options = parse()
    torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore", category=UserWarning)
    clip, fps = read(options)
    model = causal_model(options.side_px, clip.shape[1])
    stream = VideoStream(
        model,
        chunk_frames=options.chunk_frames,
        tokens_per_second=options.tokens_per_second,
        fps=fps,
    )
    streamed(stream, clip[:, : 2 * options.chunk_frames])  # to warm up
    answers, seconds = streamed(stream, clip)
    features, logits = at_once(model, clip, answers)
    found = {
        "features": difference(torch.cat([each.features for each in answers], 1), features),
        "logits": difference(answers[-1].logits, logits),
    }
    print(describe_machine(torch.device("cpu"), torch.float32))
    print(f"{clip.shape[1]} frames, {features.shape[1]} tokens in {len(answers)} chunks")
    for name, value in found.items():
        print(f"{name} of the chunks and of the whole differ by {value:.1e} (relative)")
    times = torch.tensor(seconds)
    p50, p99 = (1000 * times.quantile(q).item() for q in (0.5, 0.99))
    each = options.chunk_frames
    print(f"a chunk of {each} frames: p50 {p50:.1f} ms, p99 {p99:.1f} ms")
    print(f"a frame: p50 {p50 / each:.1f} ms, p99 {p99 / each:.1f} ms, of {1000 / fps:.0f} ms")
    return 0 if max(found.values()) <= LARGEST_DIFFERENCE else 1


if __name__ == "__main__":
    sys.exit(main())
