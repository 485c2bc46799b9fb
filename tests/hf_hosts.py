"""Small random models of transformers, those of `benchmarks/`, and what they are called with."""

import importlib.util
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers")
_PATH = Path(__file__).resolve().parents[1] / "benchmarks" / "transformers_hosts.py"
if not _PATH.is_file():
    pytest.skip("the wheel does not carry benchmarks/", allow_module_level=True)
_SPEC = importlib.util.spec_from_file_location("transformers_hosts", _PATH)
_MODULE = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_MODULE)

HOSTS = {name.removeprefix("transformers "): build for name, build in _MODULE.HOSTS.items()}
WITH_TEXT = {
    *(f"{name}Model" for name in ("CLIP", "Siglip", "Siglip2", "MetaClip2", "ChineseCLIP")),
    *(f"{name}Model" for name in ("AltCLIP", "Aimv2", "VisionTextDualEncoder")),
    "BlipForConditionalGeneration",
    "BlipForImageTextRetrieval",
}
SIDE_PX = 32
NUM_PATCHES = 16
IMAGE_TOKEN = 60


def built(name):
    """A host whose parameters are off the values that hide mistakes: LayerScale near 0, zeros.

    Its attention is far from even, too, so that a wrong position shows.
    """
    host = HOSTS[name]()
    with torch.no_grad():
        for key, value in host.named_parameters():
            if any(part in key for part in ("position", "_token", "class_embedding", "lambda")):
                value.normal_(std=0.5)
            elif value.ndim <= 1:
                value.add_(torch.randn_like(value), alpha=0.05)
            else:
                value.normal_(std=value[0].numel() ** -0.5)
    return host.eval()


def inputs_of(name, *, num_tokens=NUM_PATCHES, size=(SIDE_PX, SIDE_PX), batch=2):
    """Inputs of an adapted model by keyword; of its host too, at its own size and count."""
    inputs = {"pixel_values": torch.randn(batch, 3, *size)}
    words = torch.tensor([[0, 5, 6, 63]]).expand(batch, -1)
    if name in WITH_TEXT:
        inputs["input_ids"] = words
    elif name.startswith("VisionEncoderDecoder"):
        inputs["decoder_input_ids"] = words
    elif name.startswith(("Llava", "VipLlava", "PaliGemma")):
        places = torch.full((batch, num_tokens), IMAGE_TOKEN)
        inputs["input_ids"] = torch.cat([places, words], dim=1)
    return inputs


def outputs_of(model, inputs):
    """Every tensor that a model returns at the top, and its maps, by name."""
    found = dict(model(**inputs).items())
    maps = found.pop("feature_maps", ())
    found |= {f"map {index}": values for index, values in enumerate(maps)}
    return {name: value for name, value in found.items() if isinstance(value, torch.Tensor)}
