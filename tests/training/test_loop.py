import msgspec
import pytest
import torch
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error
from torch import Tensor, nn

from training.data import Rows
from training.errors import Diverged
from training.loop import (
    EVALUATION_BATCH,
    Hyperparameters,
    answer,
    evaluate,
    fit,
    make_deterministic,
)
from training.network import perceptron

cross_entropy = nn.functional.cross_entropy


def trained(clouds: Rows, parameters: Hyperparameters) -> nn.Sequential:
    make_deterministic(parameters.seed)
    network = perceptron(2, parameters.hidden, 3)
    fit(network, clouds, cross_entropy, parameters)
    return network


def weights(network: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def test_fit_learns_what_is_to_be_learnt(clouds: Rows, toy_parameters: Hyperparameters) -> None:
    make_deterministic(0)
    network = perceptron(2, (8,), 3)
    losses = fit(network, clouds, cross_entropy, toy_parameters)
    assert len(losses) == toy_parameters.epochs
    assert losses[-1] < losses[0] / 5
    assert evaluate(network, clouds)["accuracy"] > 0.95


def test_equal_seeds_give_equal_weights_bit_by_bit(
    clouds: Rows, toy_parameters: Hyperparameters
) -> None:
    other = msgspec.structs.replace(toy_parameters, seed=toy_parameters.seed + 1)
    first, again = (weights(trained(clouds, toy_parameters)) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, weights(trained(clouds, other)))


def test_reported_loss_is_the_mean_over_the_rows(clouds: Rows) -> None:
    # A learning rate of almost nothing: the network stays what it is, so its loss is known.
    # 120 rows in batches of 50: the last is smaller and must count for less.
    parameters = Hyperparameters(
        hidden=(), epochs=1, batch_size=50, learning_rate=1e-30, weight_decay=0, seed=0
    )
    network = perceptron(2, (), 3)
    (loss,) = fit(network, clouds, cross_entropy, parameters)
    assert loss == pytest.approx(cross_entropy(network(clouds.inputs), clouds.targets).item())


def test_every_row_is_seen_once_an_epoch_and_in_another_order(
    clouds: Rows, toy_parameters: Hyperparameters
) -> None:
    seen: list[Tensor] = []

    def watch(inputs: Tensor) -> Tensor:
        seen.append(inputs)
        return inputs

    parameters = msgspec.structs.replace(toy_parameters, epochs=2)
    fit(perceptron(2, (), 3), clouds, cross_entropy, parameters, augment=watch)
    epochs = torch.cat(seen).reshape(2, 120, 2)
    for epoch in epochs:
        assert torch.equal(epoch.sort(dim=0).values, clouds.inputs.sort(dim=0).values)
    assert not torch.equal(*epochs)


def test_network_learns_from_the_augmented_inputs(
    clouds: Rows, toy_parameters: Hyperparameters
) -> None:
    network = perceptron(2, (), 3)
    fit(network, clouds, cross_entropy, toy_parameters, augment=lambda inputs: inputs * -1)
    mirrored = Rows(inputs=-clouds.inputs, targets=clouds.targets)
    assert evaluate(network, mirrored)["accuracy"] > 0.9 > evaluate(network, clouds)["accuracy"]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_loss_that_is_no_number_stops_with_its_step(clouds: Rows, bad: float) -> None:
    parameters = Hyperparameters(
        hidden=(), epochs=3, batch_size=60, learning_rate=0.1, weight_decay=0, seed=0
    )
    losses = iter([1.0, 1.0, 1.0, bad])

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return outputs.mean() * 0 + next(losses)

    # Two steps an epoch: the fourth is in the second epoch.
    with pytest.raises(Diverged, match=rf"the loss became {bad} at step 4 \(epoch 2\)"):
        fit(perceptron(2, (), 3), clouds, loss, parameters)


def test_nan_in_the_data_stops_training(clouds: Rows, toy_parameters: Hyperparameters) -> None:
    clouds.inputs[7] = torch.nan
    with pytest.raises(Diverged, match=r"\(epoch 1\)"):
        fit(perceptron(2, (8,), 3), clouds, cross_entropy, toy_parameters)


def test_one_step_is_enough(clouds: Rows) -> None:
    parameters = Hyperparameters(
        hidden=(), epochs=1, batch_size=1000, learning_rate=0.1, weight_decay=0, seed=0
    )
    assert len(fit(perceptron(2, (), 3), clouds, cross_entropy, parameters)) == 1


def test_answer_does_not_depend_on_how_rows_are_batched() -> None:
    network = perceptron(2, (8,), 3)
    inputs = torch.randn(2 * EVALUATION_BATCH + 1, 2)
    torch.testing.assert_close(answer(network, inputs), network(inputs).detach())


def test_answer_is_without_dropout() -> None:
    network = nn.Sequential(nn.Dropout(0.5)).train()
    assert torch.equal(answer(network, torch.ones(100, 1)), torch.ones(100, 1))


def test_accuracy_counts_right_labels() -> None:
    rows = Rows(inputs=torch.eye(4), targets=torch.tensor([0, 1, 2, 0]))
    assert evaluate(nn.Identity(), rows) == {"accuracy": 0.75}


def test_errors_are_those_of_scikit_learn() -> None:
    random = torch.Generator().manual_seed(0)
    targets = torch.randn(40, 1, generator=random) * 9 + 22
    values = targets + torch.randn(40, 1, generator=random)
    metrics = evaluate(nn.Identity(), Rows(inputs=values, targets=targets))
    assert metrics == pytest.approx(
        {
            "rmse": root_mean_squared_error(targets, values),
            "mae": mean_absolute_error(targets, values),
            "r2": r2_score(targets, values),
        },
        abs=1e-4,
    )
