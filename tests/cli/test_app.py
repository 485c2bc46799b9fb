"""The command itself: quick, and short with the user's mistakes."""

import subprocess
import sys
import warnings

import pytest

import dartok as package
from dartok.models import checkpoints

HEAVY = ("torch", "torchvision", "timm", "skimage", "sklearn")
PARSING = (
    ["--help"],
    ["--version"],
    ["show", "--help"],
    ["demo", "--help"],
    ["models", "--help"],
    ["convert", "--help"],
    ["env", "--help"],
    ["shwo"],
    ["show", "missing.png"],
    ["show", "a.png", "--tokens", "0"],
    ["show", "a.png", "--tokns", "4"],
    ["demo", "--steps", "0"],
)


def test_help_and_parsing_import_nothing_heavy():
    program = (
        "import sys\n"
        "from dartok.cli.app import main\n"
        f"for arguments in {PARSING!r}:\n"
        "    try:\n"
        "        main(arguments)\n"
        "    except SystemExit:\n"
        "        pass\n"
        f"print(sorted(set({HEAVY!r}) & set(sys.modules)))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert run.stdout.splitlines()[-1] == "[]"


def test_the_package_runs_as_a_module():
    command = [sys.executable, "-m", "dartok", "--version"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout == f"{package.__version__}\n"


def test_help_lists_every_command_with_its_purpose(dartok):
    code, out, err = dartok("--help")
    assert (code, err) == (0, "")
    for command in ("demo", "show", "models", "convert", "env"):
        assert any(command in line and len(line.split()) > 4 for line in out.splitlines())


@pytest.mark.parametrize("option", ["out", "tokens", "rows", "scorer", "partition", "strength"])
def test_help_explains_every_option_from_its_field(dartok, option):
    assert f"--{option} " in dartok("show", "--help").out


@pytest.mark.refuses
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["shwo"], 'Unknown command "shwo". Did you mean "show"?'),
        (["show", "a.png", "--tokns", "9"], "Unknown option: --tokns. Did you mean --tokens?"),
        (["show", "a.png", "--tokens", "many"], 'unable to convert "many" into int'),
        (["show", "a.png", "--partition", "flood"], 'Choose from: "flow", "grid"'),
        (["show"], "FILES requires an argument. See: dartok show --help"),
        (["convert", "a.pth"], "TARGET requires an argument"),
        (["env", "--josn"], "Did you mean --json? See: dartok env --help"),
    ],
)
def test_mistyped_commands_and_options_are_answered_in_one_line(refused, arguments, message):
    assert message in refused(*arguments)


def failing(error):
    def convert_checkpoint(source, target, *, name=None):
        raise error

    return convert_checkpoint


@pytest.mark.refuses
@pytest.mark.parametrize(
    "error",
    [
        ValueError("a value\nin two lines"),
        ImportError("a value in two lines", name="mamba_ssm"),
        OSError("a value in two lines"),
    ],
)
def test_what_the_user_can_mend_is_answered_in_one_line(refused, monkeypatch, error):
    monkeypatch.setattr(checkpoints, "convert_checkpoint", failing(error))
    assert refused("convert", "a.pth", "b.safetensors") == "a value in two lines"


@pytest.mark.parametrize(
    "error", [RuntimeError("a defect"), ImportError("a defect", name="dartok.core")]
)
def test_a_defect_keeps_its_traceback(dartok, monkeypatch, error):
    monkeypatch.setattr(checkpoints, "convert_checkpoint", failing(error))
    with pytest.raises(type(error), match="a defect"):
        dartok("convert", "a.pth", "b.safetensors")


@pytest.mark.filterwarnings("default")
def test_warnings_take_one_line(dartok, monkeypatch):
    def convert_checkpoint(source, target, *, name=None):
        warnings.warn("look\nout", UserWarning, stacklevel=1)
        return "darvit_tiny"

    monkeypatch.setattr(checkpoints, "convert_checkpoint", convert_checkpoint)
    code, out, err = dartok("convert", "a.pth", "b.safetensors")
    assert (code, out) == (0, "b.safetensors: weights of darvit_tiny\n")
    assert err == "dartok: warning: look out\n"


def test_an_interrupt_ends_quietly(dartok, monkeypatch):
    monkeypatch.setattr(checkpoints, "convert_checkpoint", failing(KeyboardInterrupt()))
    assert dartok("convert", "a.pth", "b.safetensors") == (130, "", "")
