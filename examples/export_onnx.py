"""Export a model with the number of tokens as an input, and run one file at two sizes and budgets.

    python examples/export_onnx.py --out looked-at

Writes model.onnx, which `dartok.export` runs beside the model before it keeps it, and runs it again
as a user would, in ONNX Runtime alone: prints how far its logits are from the model's. The model is
timm's smallest, with random weights; `--model vit_small_patch16_224 --pretrained` downloads
another. Needs dartok[export].
"""

import argparse
from pathlib import Path

import numpy as np
import onnxruntime
import timm
import torch

import dartok


@torch.inference_mode()
def main(arguments: list[str] | None = None) -> None:
    """Export, then compare the file with the model."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="test_vit", help="a ViT of timm")
    parser.add_argument("--pretrained", action="store_true", help="download its weights")
    parser.add_argument("--num-tokens", type=int, default=100, help="the most of a picture")
    parser.add_argument("--out", type=Path, default=Path("looked-at"), help="folder of the file")
    options = parser.parse_args(arguments)

    torch.manual_seed(0)
    host = timm.create_model(options.model, pretrained=options.pretrained)
    model = dartok.adapt(host, num_tokens=options.num_tokens, strength=1.0).eval()
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "model.onnx"
    # In float32 the edges of regions are a millionth off, which noise shows in the fourth digit.
    checks = dartok.export(model, file, to="onnx", any_num_tokens=True)
    worst = max(check.difference for check in checks)
    print(
        f"{file}: {file.stat().st_size / 1e6:.1f} MB; {len(checks)} runs, at most {worst:.1e} off"
    )

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    print("inputs:", *(f"{one.name} {one.shape}" for one in session.get_inputs()))
    for height, width in ((160, 160), (192, 320)):
        images = torch.rand(2, 3, height, width) * 2 - 1
        for num_tokens in (options.num_tokens, options.num_tokens // 2):
            feeds = {"images": images.numpy(), "num_tokens": np.array(num_tokens)}
            (logits,) = session.run(None, feeds)
            dartok.set_num_tokens(model, num_tokens)
            difference = (torch.from_numpy(logits) - model(images)).abs().max().item()
            print(
                f"{height} x {width} px, {num_tokens} tokens: largest difference {difference:.1e}"
            )


if __name__ == "__main__":
    main()
