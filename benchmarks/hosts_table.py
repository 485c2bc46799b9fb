"""Which encoders `dartok.adapt` carries over: named hosts, each measured or refused by name.

    python benchmarks/hosts_table.py --out docs/hosts.md

A host is built by its library with random weights, which are then moved off the values that would
hide a mistake: LayerScale near 0, biases and tables at 0, attention that is nearly even. Compared
are the tokens of its last layer and those of the adapted model, on one random picture of the host's
own size. Exits with 1 if a host is neither the same function within 1e-5 nor refused by name.
Takes about three minutes on one core.
"""

import argparse
import importlib
import importlib.util
import re
import sys
import warnings
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
import torchvision
from torch import nn

import dartok
from dartok.bench.machine import describe_machine
from dartok.core.files import write_beside
from dartok.models.families import family_of
from dartok.models.families.wrappers import encoder_in

LARGEST_DIFFERENCE = 1e-5
GRAIN_PX = 4
"""White noise would measure how well float32 places a sample (1e-5 px in 518), not the function."""
DEPTH = 2
"""Blocks of a timm host, so that the table takes minutes; a block is like the next."""

TIMM = [
    "vit_tiny_patch16_224",
    "vit_small_patch32_224",
    "vit_base_patch16_224",
    "vit_small_patch8_224",
    "deit_tiny_patch16_224",
    "deit_tiny_distilled_patch16_224",
    "deit3_small_patch16_224",
    "vit_small_patch14_dinov2",
    "vit_small_patch14_reg4_dinov2",
    "flexivit_small",
    "vit_base_patch32_clip_224",
    "vit_base_patch16_clip_quickgelu_224",
    "vit_base_patch16_siglip_224",
    "vit_base_patch16_siglip_gap_224",
    "vit_medium_patch16_gap_240",
    "vit_mediumd_patch16_reg4_gap_256",
    "vit_wee_patch16_reg1_gap_256",
    "vit_dpwee_patch16_reg1_gap_256",
    "vit_intern300m_patch14_448",
    "aimv2_large_patch14_224",
    "eva_giant_patch14_224",
    "eva02_tiny_patch14_224",
    "eva02_base_patch14_448",
    "eva02_base_patch16_clip_224",
    "eva_giant_patch14_clip_224",
    "vit_small_patch16_dinov3",
    "vit_small_patch16_dinov3_qkvb",
    "vit_small_plus_patch16_dinov3",
    "vit_base_patch16_dinov3",
    "vit_large_patch16_dinov3",
    "vit_small_patch16_lingbot",
    "vit_pe_core_tiny_patch16_384",
    "vit_pe_core_base_patch16_224",
    "vit_pe_spatial_tiny_patch16_512",
    "vit_pe_lang_large_patch14_448",
    "vit_small_patch16_rope_224",
    "vit_small_patch16_rope_ape_224",
    "vit_small_patch16_rope_mixed_224",
    "vit_small_patch16_rope_mixed_ape_224",
    "vit_medium_patch16_rope_reg1_gap_256",
    "vit_betwixt_patch16_rope_reg4_gap_256",
    "beit_base_patch16_224",
    "beit_base_patch16_384",
    "beitv2_base_patch16_224",
    "vit_relpos_small_patch16_224",
    "vit_relpos_medium_patch16_cls_224",
    "vit_relpos_small_patch16_rpn_224",
    "vit_srelpos_small_patch16_224",
    "naflexvit_base_patch16_gap",
    "naflexvit_base_patch16_parfac_gap",
    "naflexvit_base_patch16_siglip",
    "vit_tiny_r_s16_p8_224",
    "vit_so400m_patch14_siglip_384",
    "xcit_nano_12_p16_224",
    "samvit_base_patch16",
]

TIMM_OF_STAGES = [
    "swin_tiny_patch4_window7_224",
    "swinv2_tiny_window8_256",
    "hiera_tiny_224",
    "mvitv2_tiny",
    "pvt_v2_b0",
    "maxvit_tiny_tf_224",
    "levit_128s",
    "pit_ti_224",
]
"""Hosts without one depth for all: built as deep as they are."""

OURS = ["vim_tiny", "vim_small", "vim_tiny_stride8", "videomamba_tiny", "videomamba_small"]
"""Vision Mambas, registered with timm by dartok."""

ABSOLUTE = "pos_embed|position_embedding"
RELATIVE = "relative_position|rel_pos|attention_bias|cpb_mlp"


def timm_host(name: str, **options: Any) -> Callable[[], nn.Module]:
    """What builds a host of timm."""
    return lambda: timm.create_model(name, **options)


def torchvision_host(name: str) -> Callable[[], nn.Module]:
    """What builds a host of torchvision."""
    return lambda: torchvision.models.get_model(name)


def listed_hosts() -> dict[str, Callable[[], nn.Module]]:
    """Name of each host, its library first, and what builds it."""
    hosts = {f"timm {name}": timm_host(name, depth=DEPTH) for name in TIMM}
    hosts |= {f"timm {name}": timm_host(name) for name in TIMM_OF_STAGES}
    hosts |= {f"dartok {name}": timm_host(name, depth=DEPTH) for name in OURS}
    hosts |= {f"torchvision {name}": torchvision_host(name) for name in ("vit_b_16", "vit_b_32")}
    if importlib.util.find_spec("transformers") is not None:
        hosts |= importlib.import_module("transformers_hosts").HOSTS
    return hosts


class Row(NamedTuple):
    """One line of the table."""

    name: str
    cls: str
    blocks: str
    positions: str
    difference: float | None
    refusal: str

    @property
    def kept(self) -> bool:
        """Whether the host is the same function, or refused by name before that was measured."""
        if self.difference is None:
            return "its features differ" not in self.refusal
        return self.difference <= LARGEST_DIFFERENCE

    def markdown(self) -> str:
        """The line."""
        same = f"{self.difference:.1e}" if self.difference is not None else ""
        result = same or f"refused: {self.refusal}"
        return f"| `{self.name}` | `{self.cls}` | {self.blocks} | {self.positions} | {result} |"


@torch.no_grad()
def unsettle(host: nn.Module) -> None:
    """Move every parameter off the values that hide mistakes."""
    for name, value in host.named_parameters():
        leaf = name.rsplit(".", 1)[-1]
        if "gamma" in name or "lambda" in name or "layer_scale" in name:
            value.uniform_(0.05, 0.3)
        elif "pos" in leaf or "position" in name or "token" in leaf or leaf == "class_embedding":
            value.normal_(std=0.5)
        elif value.ndim <= 1:
            value.add_(torch.randn_like(value), alpha=0.05)
        elif leaf != "freqs":
            value.normal_(std=value[0].numel() ** -0.5)


def positions_of(encoder: nn.Module) -> str:
    """What tells an encoder where its tokens are, by the names of its parts."""
    names = [name for name, _ in encoder.named_parameters()]
    relative = {name for name in names if re.search(RELATIVE, name)}
    classes = " ".join(type(module).__name__ for module in encoder.modules())
    kinds = {
        "absolute": any(re.search(ABSOLUTE, name) for name in names if name not in relative),
        "rotary": re.search("Rotary|RopePosition", classes) is not None,
        "relative bias": bool(relative),
    }
    return ", ".join(kind for kind, held in kinds.items() if held)


def blocks_of(encoder: nn.Module) -> int:
    """How many blocks an encoder has: its longest list of modules of one class."""
    lists = [list(m) for m in encoder.modules() if isinstance(m, nn.ModuleList | nn.Sequential)]
    return max(len(items) for items in lists if len({type(item) for item in items}) == 1)


def measured(name: str, build: Callable[[], nn.Module]) -> Row:
    """A host, adapted and compared."""
    torch.manual_seed(0)
    host = build().eval()
    unsettle(host)
    cls = type(host).__name__
    try:
        model = dartok.adapt(host)
    except ValueError as error:
        reason = re.sub(r"^adapt cannot carry over \w+( at \(.*?\) px)?: ", "", str(error))
        reason = reason.partition("; dartok.reshape")[0]
        return Row(name, cls, "", positions_of(host), None, reason)
    place = encoder_in(host)
    encoder = host.get_submodule(place)
    difference = features_apart(encoder, model.get_submodule(place))
    return Row(name, cls, str(blocks_of(encoder)), positions_of(encoder), difference, "")


@torch.no_grad()
def features_apart(encoder: nn.Module, adapted: nn.Module) -> float:
    """Relative difference of all tokens, on a random picture of the encoder's own size."""
    family = family_of(encoder)
    parts = family.take_apart(encoder)
    grains = [side // GRAIN_PX for side in parts.image_px]
    images = torch.randn(1, parts.proj.in_channels, *grains)
    images = nn.functional.interpolate(images, parts.image_px, mode="bilinear")
    expected, actual = family.features(encoder, images), family.features(adapted, images)
    return float((actual - expected).norm() / expected.norm())


def made_with() -> str:
    """The machine and the libraries that hosts come from."""
    machine = describe_machine(torch.device("cpu"), torch.float32)
    known = importlib.util.find_spec("transformers") is not None
    return f"{machine}, transformers {version('transformers')}" if known else machine


def page(rows: Iterable[Row]) -> str:
    """The page of the documentation."""
    rows = list(rows)
    same = sum(row.difference is not None for row in rows)
    lines = [
        "# Encoders that `dartok.adapt` carries over",
        "",
        f"{same} hosts start as the same function on regions, {len(rows) - same} are refused by",
        "name. Hosts of timm and ours are as wide as their name says, with the number of blocks",
        "given here; those of transformers are small models of their real class. The result is the",
        "relative difference of all tokens of the last layer, host against adapted model, with",
        "random weights on a random picture of the host's own size; at most 1e-5 counts as the",
        "same function.",
        "",
        "Made by `python benchmarks/hosts_table.py --out docs/hosts.md`, with",
        f"{made_with()}.",
        "",
        "| host | class | blocks | positions | result |",
        "| --- | --- | --- | --- | --- |",
        *(row.markdown() for row in rows),
    ]
    return "\n".join(lines) + "\n"


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, help="Markdown file to write; none to print alone")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="hosts to measure; all if none")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, write, and return the exit code."""
    warnings.filterwarnings("ignore")  # of the libraries, on random weights
    options, hosts = parsed(arguments), listed_hosts()
    names = options.only or list(hosts)
    unknown = [name for name in names if name not in hosts]
    if unknown:
        print(f"--only must name listed hosts, got {', '.join(unknown)}", file=sys.stderr)
        return 2
    rows = []
    for name in names:
        rows.append(measured(name, hosts[name]))
        print(rows[-1].markdown(), flush=True)
    if options.out is not None:
        text = page(rows)
        write_beside(options.out, lambda target: target.write_text(text, encoding="utf-8"))
    wrong = [row.name for row in rows if not row.kept]
    print(f"\nall the same function or refused by name: {'NOT MET' if wrong else 'met'}", *wrong)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
