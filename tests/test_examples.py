"""Each script of `examples/` prints and writes what its docstring says."""

import ast
import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageChops

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*.py"))
MOST_LINES = 60
AMBER = (255, 176, 32)  # of the outlines on canvases

if not SCRIPTS:
    pytest.skip("the wheel does not carry examples/", allow_module_level=True)


def run(name, capsys, *arguments):
    """What an example prints."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main([str(argument) for argument in arguments])
    return capsys.readouterr().out


def numbers(pattern, printed):
    """The groups of each match, as numbers."""
    found = re.findall(pattern, printed)
    return [tuple(map(float, [one] if isinstance(one, str) else one)) for one in found]


def columns(file, count):
    """The pictures side by side on a sheet, captions cut off."""
    sheet = Image.open(file).convert("RGB")
    width = sheet.width // count
    return [
        sheet.crop((i * width, 0, (i + 1) * width, int(sheet.height * 0.9))) for i in range(count)
    ]


def code_lines(source):
    """Lines that are neither empty nor of a docstring."""
    tree = ast.parse(source)
    documented = [
        n for n in ast.walk(tree) if isinstance(n, ast.Module | ast.ClassDef | ast.FunctionDef)
    ]
    texts = [node.body[0] for node in documented if ast.get_docstring(node)]
    inside = {line for text in texts for line in range(text.lineno, text.end_lineno + 1)}
    lines = enumerate(source.splitlines(), 1)
    return sum(bool(line.strip()) and number not in inside for number, line in lines)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_an_example_is_short_says_its_command_and_is_tested(script):
    source = script.read_text(encoding="utf-8")
    assert code_lines(source) < MOST_LINES
    assert f"python examples/{script.name}" in ast.get_docstring(ast.parse(source))
    assert f'run("{script.stem}"' in Path(__file__).read_text(encoding="utf-8")


def test_lines_of_docstrings_do_not_count():
    assert code_lines('"""Doc.\n\nMore.\n"""\n\nvalue = 1\n') == 1


def test_retrofit_starts_as_its_host_and_leaves_the_grid(tmp_path, capsys):
    pytest.importorskip("skimage")
    printed = run("retrofit_dinov2", capsys, "--image-px", 112, "--out", tmp_path)
    ((difference,),) = numbers(r"differ by ([\d.e+-]+)", printed)
    assert difference < 1e-5
    rows = numbers(
        r"strength ([\d.]+), (\d+) regions of ([\d.]+) to ([\d.]+) %.* ([\d.]+)\n", printed
    )
    assert [row[:2] for row in rows] == [(0, 64), (0.5, 64), (1, 64)]
    even, half, full = (row[2:] for row in rows)
    assert even == (1.56, 1.56, 1)  # 100 % / 64, and the host's own features
    assert full[0] < half[0] < even[0] < half[1] < full[1]
    assert full[2] < half[2] < 1
    grid, between, regions = columns(tmp_path / "retrofit.png", 3)
    assert ImageChops.difference(grid, between).getbbox()
    assert ImageChops.difference(between, regions).getbbox()


@pytest.mark.parametrize("library", ["timm", "transformers"])
def test_fewer_tokens_cost_less_and_move_embeddings(library, capsys):
    pytest.importorskip("skimage")
    pytest.importorskip(library)
    printed = run("fewer_tokens_clip_siglip", capsys, *(["--timm"] if library == "timm" else []))
    rows = numbers(r"(\d+), +([\d.]+) G: ([\d.]+), ([\d.]+)", printed)
    assert [row[0] for row in rows] == [196, 144, 98, 49]
    assert 0.2 < rows[3][1] / rows[0][1] < 0.3  # the score net and the pooling cost the same
    assert rows[0][2] == 1
    ((different,),) = numbers(r"different photographs: ([\d.]+)", printed)
    assert all(different < cosine < 1 for row in rows[1:] for cosine in row[2:])


@pytest.mark.slow
def test_the_segmentation_head_learns_more_from_regions(tmp_path, capsys):
    pytest.importorskip("sklearn")
    printed = run("segmentation_head", capsys, "--steps", 40, "--out", tmp_path)
    rows = dict(
        re.findall(r"(even grid|regions): IoU ([\d.]+) on 64 tokens after 40 steps", printed)
    )
    assert 0.2 < float(rows["even grid"]) < float(rows["regions"]) - 0.05
    sheet = np.asarray(Image.open(tmp_path / "segmentation.png").convert("L"))
    black = [int((row == 0).sum()) for row in np.array_split(sheet, 4)]
    pixels = 4 * (2 * 96) ** 2
    assert black[0] < 0.1 * pixels  # canvases are grey
    assert all(0.9 * pixels < count < 0.999 * pixels for count in black[1:])  # a digit is small


@pytest.mark.slow
def test_the_exported_file_serves_sizes_and_budgets(tmp_path, capsys):
    for package in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package)
    printed = run("export_onnx", capsys, "--num-tokens", 40, "--out", tmp_path)
    assert "num_tokens []" in printed
    rows = numbers(r"(\d+) x (\d+) px, (\d+) tokens: largest difference ([\d.e+-]+)", printed)
    assert [row[:3] for row in rows] == [
        (160, 160, 40),
        (160, 160, 20),
        (192, 320, 40),
        (192, 320, 20),
    ]
    assert all(0 < row[3] < 1e-4 for row in rows)
    import onnxruntime

    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    feeds = {"images": np.zeros((3, 3, 100, 90), np.float32), "num_tokens": np.array(7)}
    assert session.run(None, feeds)[0].shape == (3, 1000)


def test_a_box_draws_regions_in_the_more_the_larger_its_weight(tmp_path, capsys):
    pytest.importorskip("skimage")
    printed = run("steer_with_a_box", capsys, "--out", tmp_path)
    ((area,),) = numbers(r"the box is ([\d.]+) %", printed)
    shares = dict(numbers(r"weight (\d): +([\d.]+) % of 196", printed))
    assert list(shares) == [0, 1, 2, 4]
    assert list(shares.values()) == sorted(shares.values())
    assert shares[0] < 2 * area < shares[1]
    assert shares[4] > 80
    assert "(1, 1000)" in printed
    before, after = columns(tmp_path / "steer.png", 2)
    assert ImageChops.difference(before, after).getbbox()


def test_counts_rise_from_flat_to_busy_around_the_mean(tmp_path, capsys):
    pytest.importorskip("sklearn")
    printed = run("tokens_per_image", capsys, "--mean", 32, "--out", tmp_path)
    ((mean,),) = numbers(r"mean of 256 canvases: ([\d.]+)", printed)
    assert mean == pytest.approx(32, abs=2)
    counts = [count for (count,) in numbers(r": (\d+) tokens\n", printed)]
    assert len(counts) == 3
    assert counts == sorted(set(counts))
    ((difference,),) = numbers(r"differ by ([\d.e+-]+)", printed)
    assert difference < 1e-5
    flat, _, busy = (np.asarray(picture) for picture in columns(tmp_path / "counts.png", 3))
    lines = [int((picture == AMBER).all(-1).sum()) for picture in (flat, busy)]
    assert 0 < lines[0] < lines[1]


def test_the_warp_enlarges_the_face_and_lays_it_back_sharper(tmp_path, capsys):
    pytest.importorskip("skimage")
    printed = run("grid_warp", capsys, "--out", tmp_path)
    rows = numbers(r"fills ([\d.]+) %, its box comes back to ([\d.e+-]+) px", printed)
    assert all(error < 1e-4 for _, error in rows)
    even, warped, steered = (share for share, _ in rows)
    assert even < warped < steered
    sharpness = numbers(r": ([\d.]+) dB in the face, ([\d.]+) dB in the whole", printed)
    assert sharpness[2][0] > sharpness[0][0] + 1  # at the expense of the rest
    cells, warped_picture, _ = columns(tmp_path / "grid.png", 3)
    assert ImageChops.difference(cells, warped_picture).getbbox()
