import re
import subprocess
import sys

import msgspec
import pytest

from training import housing, iris
from training.hyperparameters import ACTIVATIONS, OPTIMIZERS, Hyperparameters
from training.options import parameters, parser
from training.recipes import MODULES, load


def chosen(*arguments: str) -> Hyperparameters:
    given = ["iris", *arguments]
    return parameters(iris.PARAMETERS, parser(given).parse_args(given))


def test_without_options_a_model_keeps_its_own_choices() -> None:
    assert chosen() == iris.PARAMETERS


@pytest.mark.parametrize(
    ("option", "text", "value"),
    [
        ("hidden", "64,32", (64, 32)),
        ("hidden", "none", ()),
        *[("activation", name, name) for name in ACTIVATIONS],
        *[("optimizer", name, name) for name in OPTIMIZERS],
        ("learning_rate", "1e-3", 0.001),
        ("batch_size", "1", 1),
        ("epochs", "9", 9),
        ("weight_decay", "0", 0.0),
        ("batch_normalisation", "yes", True),
        ("batch_normalisation", "no", False),
        ("dropout", "0.5", 0.5),
        ("stop_loss", "0.02", 0.02),
        ("patience", "3", 3),
        ("validation", "0.2", 0.2),
        ("seed", "0", 0),
        ("device", "auto", "auto"),
    ],
)
def test_each_option_is_taken(option: str, text: str, value: object) -> None:
    made = chosen("--" + option.replace("_", "-"), text)
    assert made == msgspec.structs.replace(iris.PARAMETERS, **{option: value})


@pytest.mark.parametrize(
    ("option", "text", "sentence"),
    [
        ("hidden", "64;32", "expected an integer, got 64;32"),
        ("hidden", "0", "expected an integer >= 1, got 0"),
        ("hidden", "10001", "expected an integer <= 10000, got 10001"),
        ("hidden", ",".join(["2"] * 21), "expected a list of length <= 20, got 2,2"),
        ("activation", "swish", "expected one of relu, leaky_relu, sigmoid, tanh, elu, gelu, silu"),
        ("optimizer", "lion", "expected one of sgd, momentum, adam, adamw, rmsprop, adagrad"),
        ("learning-rate", "0", "expected a number > 0.0, got 0"),
        ("learning-rate", "fast", "expected a number, got fast"),
        ("learning-rate", "inf", "expected a number <= 1000000000.0, got inf"),
        ("batch-size", "0", "expected an integer >= 1, got 0"),
        ("epochs", "0", "expected an integer >= 1, got 0"),
        ("epochs", "many", "expected an integer, got many"),
        ("epochs", "1.5", "expected an integer, got 1.5"),
        ("weight-decay", "nan", "expected a number >= 0.0, got nan"),
        ("batch-normalisation", "maybe", "expected one of yes, no, got maybe"),
        ("dropout", "1", "expected a number < 1.0, got 1"),
        ("stop-loss", "none", "expected a number, got none"),
        ("patience", "-1", "expected an integer >= 0, got -1"),
        ("validation", "1.5", "expected a number < 1.0, got 1.5"),
        ("seed", str(2**64), f"expected an integer <= {2**63 - 1}, got {2**64}"),
        ("device", "tpu", "expected one of auto, cpu, cuda, got tpu"),
    ],
)
def test_unsuitable_value_is_one_sentence_and_status_2(
    option: str, text: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        chosen(f"--{option}", text)
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"python -m training: error: argument --{option}: {sentence}")


def test_help_shows_the_defaults_of_the_model_named() -> None:
    for name in MODULES:
        words = " ".join(parser([name, "--help"]).format_help().split())
        widths = ",".join(map(str, load(name).parameters.hidden))
        assert f"widths of the hidden layers, such as 64,32, or none (default: {widths})" in words
        for field in Hyperparameters.__struct_fields__:
            assert "--" + field.replace("_", "-") in words
    shown = " ".join(parser(["housing", "-h"]).format_help().split())
    assert f"dropped in a step (default: {housing.PARAMETERS.dropout})" in shown
    several = " ".join(parser(["iris", "xor", "--help"]).format_help().split())
    assert "dropped in a step (default: the model's)" in several


def test_a_default_can_be_given_back_as_it_is_shown() -> None:
    unlike = Hyperparameters(
        hidden=(), epochs=2, batch_size=3, learning_rate=0.5, weight_decay=0.25, seed=9
    )
    for name in MODULES:
        own = load(name).parameters
        words = " ".join(parser([name, "--help"]).format_help().split())
        given = [name]
        for field in Hyperparameters.__struct_fields__:
            option = "--" + field.replace("_", "-")
            shown = re.findall(rf" {option} [A-Z]+ [^(]*\(default: ([^)]*)\)", words)
            given += [option, *shown]
        assert parameters(unlike, parser(given).parse_args(given)) == own


def test_help_needs_neither_torch_nor_anything_else_that_is_slow() -> None:
    code = """
import sys
from training.__main__ import main
try:
    main([{arguments}])
except SystemExit:
    print({{"torch", "numpy", "sklearn", "matplotlib", "onnx", "httpx"}} & sys.modules.keys())
"""
    for arguments in ("'--help'", "'iris', '--help'", "'evaluate', '-h'", "'export', '-h'", ""):
        done = subprocess.run(
            [sys.executable, "-c", code.format(arguments=arguments)],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.endswith("set()\n")
