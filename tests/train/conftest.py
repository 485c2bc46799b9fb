"""A tiny folder of pictures, and configurations by flag names."""

import numpy as np
import pytest
import torch
from PIL import Image
from run_configs import make_config


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Tiny models are slower with more, and the bits depend on their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """`train` with 2 x 12 and `val` with 2 x 5 noisy pictures, of classes that brightness tells."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 5)):
        for name, level in (("bright", 170), ("dark", 80)):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                noise = rng.normal(level, 30, (40, 48, 3)).clip(0, 255).astype("uint8")
                Image.fromarray(noise).save(folder / f"{number}.png")
    return root


@pytest.fixture
def config_of(pictures, tmp_path):
    """`config_of(steps=4, model="test_vit")`: `make_config` on `pictures`, into "run"."""

    def make(**settings):
        return make_config(pictures, **{"out": tmp_path / "run"} | settings)

    return make
