"""Vim-Ti's forward pass beside transformers' plain Mamba of the same width, depth and state.

    python benchmarks/vim_speed.py --batch-size 1

transformers' `MambaModel` reads 197 embeddings of width 192 through 24 layers in one direction, by
its path in plain PyTorch (its kernels need CUDA); Vim-Ti cuts a picture into 196 patches, adds a
class token, and reads them in both. Forward passes are interleaved; prints medians and the ratio,
and exits with 1 if Vim-Ti is not at least 3 times as fast. Needs the extra `hf`.
"""

import argparse
import sys
import warnings

import torch
from torch import nn

import dartok
from dartok.bench.machine import describe_machine
from dartok.bench.timing import time_interleaved

WIDTH, DEPTH, NUM_STATES, LENGTH = 192, 24, 16, 197
AT_LEAST = 3.0


def plain_mamba() -> nn.Module:
    """transformers' model of that size."""
    from transformers import MambaConfig, MambaModel
    from transformers.utils import logging

    logging.set_verbosity_error()  # that its kernels are missing is what is measured
    config = MambaConfig(
        vocab_size=2,
        hidden_size=WIDTH,
        num_hidden_layers=DEPTH,
        state_size=NUM_STATES,
        expand=2,
        conv_kernel=4,
        use_mambapy=False,
    )
    return MambaModel(config).eval()


def main() -> int:
    """Time both, print, and return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--batch-size", type=int, default=1, help="pictures at a time (1)")
    parser.add_argument("--rounds", type=int, default=9, help="forward passes of each (9)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    warnings.filterwarnings("ignore", category=UserWarning)
    torch.set_num_threads(options.threads)
    vim, plain = dartok.create_model("vim_tiny").eval(), plain_mamba()
    images = torch.randn(options.batch_size, 3, 224, 224)
    embeddings = torch.randn(options.batch_size, LENGTH, WIDTH)
    with torch.inference_mode():
        timings = time_interleaved(
            {
                "vim": lambda: vim(images),
                "plain": lambda: plain(inputs_embeds=embeddings, use_cache=False),
            },
            rounds=options.rounds,
        )
    ours, theirs = timings["vim"].median_s, timings["plain"].median_s
    print(describe_machine(torch.device("cpu"), torch.float32))
    print(f"batches of {options.batch_size}, medians of {options.rounds} interleaved rounds")
    print(f"Vim-Ti, both directions          {1e3 * ours:9.1f} ms")
    print(f"transformers' Mamba, one         {1e3 * theirs:9.1f} ms")
    met = theirs >= AT_LEAST * ours
    print(f"at least {AT_LEAST:g} x as fast: {theirs / ours:.2f} x: {'met' if met else 'NOT MET'}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
