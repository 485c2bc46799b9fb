"""Where the tokens of a clip go: to the frame that carries the information, and not to repetitions.

    python benchmarks/clips_shares.py --num-frames 16 --num-tokens 784

For each score net two clips of one picture, a photograph of scikit-image: in the first it is the
ninth frame of a clip that is blank otherwise, in the second every frame shows it. Prints the share
of the tokens in the one frame, and the tokens of each frame of the still video. Exits with 1 unless
the one frame has most tokens, and every score net of motion spends less on any repeated frame than
on the first. Needs the extra `demo`.
"""

import argparse
import sys
from typing import Any

import torch
from torch import Tensor

from dartok.scorers import RegionTokenizer


def photograph(side_px: int) -> Tensor:
    """A picture `(3, side, side)`, normalised."""
    from skimage import data

    sources: Any = data
    pixels = torch.tensor(sources.astronaut()).permute(2, 0, 1).float() / 127.5 - 1
    sides = (side_px, side_px)
    return torch.nn.functional.interpolate(pixels[None], sides, mode="bilinear", antialias=True)[0]


@torch.inference_mode()
def tokens_of_frames(scorer: str, clip: Tensor, num_tokens: int) -> Tensor:
    """How many tokens have their middle in each frame."""
    torch.manual_seed(0)
    tokenizer = RegionTokenizer(embed_dim=8, num_tokens=num_tokens, scorer=scorer).eval()
    frames = tokenizer.regions(clip).centre_frames()[0]
    return torch.bincount(frames, minlength=clip.shape[1])


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    scorers = ["edge", "conv", "motion/edge", "motion/conv"]
    parser.add_argument("--scorers", nargs="+", default=scorers)
    parser.add_argument("--num-frames", type=int, default=16)
    parser.add_argument("--num-tokens", type=int, default=784)
    parser.add_argument("--side-px", type=int, default=224)
    return parser.parse_args()


def main() -> int:
    """Print, and return the exit code."""
    options = parse()
    picture, place = photograph(options.side_px), options.num_frames // 2
    blank = torch.zeros(1, options.num_frames, *picture.shape)
    once, still = blank.clone(), blank + picture
    once[:, place] = picture
    sound = True
    for scorer in options.scorers:
        share = tokens_of_frames(scorer, once, options.num_tokens)[place] / options.num_tokens
        spent = tokens_of_frames(scorer, still, options.num_tokens).tolist()
        print(f"{scorer:<12} one frame of {options.num_frames}: {share:.1%} of the tokens")
        print(f"{'':<12} a still video, frame by frame: {' '.join(map(str, spent))}")
        sound &= bool(share > 0.5)
        if scorer.startswith("motion/"):
            sound &= max(spent[1:]) < spent[0]
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
