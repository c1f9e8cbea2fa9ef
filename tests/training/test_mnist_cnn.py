import msgspec
import pytest
import torch
from torch import nn

from training import mnist_cnn
from training.errors import Unsuitable
from training.loop import answers, evaluate
from training.recipe import learnt
from training.rows import Rows

QUICK = msgspec.structs.replace(mnist_cnn.PARAMETERS, hidden=(8, 8), epochs=6, batch_size=50)


@pytest.fixture(scope="module")
def squares() -> Rows:
    """300 images of a square at one of ten places: inputs (300, 784), targets (300,)."""
    random = torch.Generator().manual_seed(0)
    targets = torch.arange(300) % 10
    images = torch.rand(300, 28, 28, generator=random) * 60
    for image, target in zip(images, targets.tolist(), strict=True):
        top, left = 3 + target // 5 * 12, 1 + target % 5 * 5
        image[top : top + 8, left : left + 5] += 180
    return Rows(inputs=images.flatten(1), targets=targets)


def test_network_learns_and_answers_with_probabilities(squares: Rows) -> None:
    network, history = learnt(mnist_cnn.RECIPE, QUICK, squares, held_out=squares)
    (probabilities,) = answers(network, squares.inputs)
    assert probabilities.shape == (300, 10)
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(300))
    assert evaluate(network, squares)["accuracy"] > 0.9
    assert history.held_out[-1] < history.held_out[0]


@pytest.mark.gpu
def test_gpu_gives_the_same_quality_and_the_weights_come_back(squares: Rows) -> None:
    parameters = msgspec.structs.replace(QUICK, device="cuda")
    network, _ = learnt(mnist_cnn.RECIPE, parameters, squares, held_out=squares)
    assert {tensor.device.type for tensor in network.state_dict().values()} == {"cpu"}
    assert evaluate(network, squares)["accuracy"] > 0.9


def test_equal_seeds_give_equal_weights_bit_by_bit(squares: Rows) -> None:
    parameters = msgspec.structs.replace(QUICK, epochs=2)
    states = [learnt(mnist_cnn.RECIPE, parameters, squares)[0].state_dict() for _ in range(2)]
    for name, tensor in states[0].items():
        assert torch.equal(tensor, states[1][name]), name


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_any_number_of_convolutions_up_to_five_can_be_chosen(count: int, squares: Rows) -> None:
    parameters = msgspec.structs.replace(QUICK, hidden=(4, 5, 6, 7, 8)[:count], activation="tanh")
    network = mnist_cnn.build(parameters, squares).eval()
    channels = [layer.out_channels for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    assert channels == [4, 5, 6, 7, 8][:count]
    assert network(squares.inputs[:3]).shape == (3, 10)
    assert any(isinstance(layer, nn.Tanh) for layer in network.modules())


def test_batch_normalisation_can_be_left_out(squares: Rows) -> None:
    parameters = msgspec.structs.replace(QUICK, batch_normalisation=False)
    network = mnist_cnn.build(parameters, squares)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in network.modules())
    (first, _) = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    assert first.bias is not None


@pytest.mark.parametrize("hidden", [(), (4, 4, 4, 4, 4, 4)])
def test_wrong_number_of_convolutions_is_named(hidden: tuple[int, ...], squares: Rows) -> None:
    parameters = msgspec.structs.replace(QUICK, hidden=hidden)
    sentence = f"expected 1 to 5 hidden widths, the channels of the convolutions, got {len(hidden)}"
    with pytest.raises(Unsuitable, match=sentence):
        mnist_cnn.build(parameters, squares)
