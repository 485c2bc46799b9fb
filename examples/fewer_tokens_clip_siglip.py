"""Fewer tokens for SigLIP's picture encoder: what they save, and how near its embeddings stay.

    python examples/fewer_tokens_clip_siglip.py          # of transformers; --timm for timm's

Photographs are embedded on the full grid of 196 patches and on fewer tokens, cut evenly (strength
0) and by regions (strength 1), without any training. Printed are multiply-adds and the mean cosine
with the embedding on the full grid; the last line is how alike different photographs are. Weights
are random and the encoder is small unless `--pretrained` downloads SigLIP's.
"""

import argparse
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, interpolate

import dartok
from dartok.bench.cost import measure_cost
from dartok.data.photographs import load_photograph


def create_encoder(options: argparse.Namespace) -> nn.Module:
    """SigLIP's picture encoder; without its weights a small one."""
    if options.timm:
        small: dict[str, Any] = {"embed_dim": 192, "num_heads": 3, "depth": 4}
        name = "vit_base_patch16_siglip_224"
        if options.pretrained:
            return timm.create_model(name, pretrained=True)
        return timm.create_model(name, **small)
    from transformers import SiglipVisionConfig, SiglipVisionModel

    if options.pretrained:
        return SiglipVisionModel.from_pretrained("google/siglip-base-patch16-224")
    return SiglipVisionModel(SiglipVisionConfig(hidden_size=192, num_hidden_layers=4))


def embed(model: nn.Module, images: Tensor) -> Tensor:
    """One vector for each picture."""
    outputs = model(images)
    return getattr(outputs, "pooler_output", outputs)


@torch.inference_mode()
def main(arguments: list[str] | None = None) -> None:
    """Embed on the full grid and on fewer tokens, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pretrained", action="store_true", help="download SigLIP's weights")
    parser.add_argument("--timm", action="store_true", help="timm's encoder")
    torch.manual_seed(0)
    host = create_encoder(parser.parse_args(arguments)).eval()
    model = dartok.adapt(host)
    photographs = [load_photograph(name) for name in ("astronaut", "chelsea", "coffee", "rocket")]
    squares = [interpolate(one[None], (224, 224), mode="area") for one in photographs]
    images = (torch.cat(squares) - 0.5) / 0.5  # as SigLIP expects pixels
    full = embed(host, images)
    print("tokens, multiply-adds: cosine of an even cut, of regions")
    for num_tokens in (196, 144, 98, 49):
        dartok.set_num_tokens(model, num_tokens)
        cosines = []
        for strength in (0.0, 1.0):
            dartok.set_strength(model, strength)
            cosines.append(cosine_similarity(embed(model, images), full).mean().item())
        cost = measure_cost(model, (224, 224)).multiply_adds / 1e9
        print(f"{num_tokens:3}, {cost:5.2f} G: {cosines[0]:.4f}, {cosines[1]:.4f}")
    print(f"different photographs: {cosine_similarity(full, full.roll(1, 0)).mean():.4f}")


if __name__ == "__main__":
    main()
