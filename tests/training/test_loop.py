import msgspec
import pytest
import torch
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error
from torch import Tensor, nn

from training.errors import Diverged, Unsuitable
from training.hyperparameters import OPTIMIZERS, Hyperparameters
from training.loop import (
    EVALUATION_BATCH,
    EarlyStop,
    Watch,
    answers,
    choose_device,
    evaluate,
    fit,
    make_deterministic,
    make_optimizer,
)
from training.network import perceptron
from training.rows import Rows

cross_entropy = nn.functional.cross_entropy
TOY = Hyperparameters(
    hidden=(8,), epochs=10, batch_size=16, learning_rate=0.05, weight_decay=0.01, seed=3
)
LINE = msgspec.structs.replace(TOY, hidden=())


def trained(clouds: Rows, parameters: Hyperparameters) -> nn.Sequential:
    make_deterministic(parameters.seed)
    network = perceptron(2, parameters, 3)
    fit(network, clouds, cross_entropy, parameters)
    return network


def weights(network: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def test_fit_learns_what_is_to_be_learnt(clouds: Rows, toy_parameters: Hyperparameters) -> None:
    make_deterministic(0)
    network = perceptron(2, TOY, 3)
    losses = fit(network, clouds, cross_entropy, toy_parameters).loss
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
    network = perceptron(2, LINE, 3)
    (loss,) = fit(network, clouds, cross_entropy, parameters).loss
    assert loss == pytest.approx(cross_entropy(network(clouds.inputs), clouds.targets).item())


def test_every_row_is_seen_once_an_epoch_and_in_another_order(
    clouds: Rows, toy_parameters: Hyperparameters
) -> None:
    seen: list[Tensor] = []

    def watch(inputs: Tensor, done: float) -> Tensor:
        seen.append(inputs)
        return inputs

    parameters = msgspec.structs.replace(toy_parameters, epochs=2)
    fit(perceptron(2, LINE, 3), clouds, cross_entropy, parameters, augment=watch)
    epochs = torch.cat(seen).reshape(2, 120, 2)
    for epoch in epochs:
        assert torch.equal(epoch.sort(dim=0).values, clouds.inputs.sort(dim=0).values)
    assert not torch.equal(*epochs)


def test_augmentation_gets_the_share_of_the_training_that_is_done(clouds: Rows) -> None:
    shares: list[float] = []

    def listen(inputs: Tensor, done: float) -> Tensor:
        shares.append(done)
        return inputs

    parameters = chosen(epochs=2, batch_size=60)  # two steps an epoch
    fit(perceptron(2, LINE, 3), clouds, cross_entropy, parameters, augment=listen)
    assert shares == [0.0, 0.25, 0.5, 0.75]


def test_one_member_without_a_loss_stops_all(clouds: Rows) -> None:
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return torch.stack([outputs.mean(), outputs.mean() * torch.nan])

    with pytest.raises(Diverged, match=r"the loss became nan at step 1 \(epoch 1\)"):
        fit(perceptron(2, LINE, 3), clouds, loss, TOY)


def test_targets_that_do_not_vary_have_no_r2() -> None:
    rows = Rows(inputs=torch.tensor([[1.0], [3.0]]), targets=torch.full((2, 1), 2.0))
    assert evaluate(nn.Identity(), rows) == {"rmse": 1.0, "mae": 1.0}


def test_small_metrics_keep_three_digits() -> None:
    rows = Rows(inputs=torch.tensor([[1.23456e-6], [0.0]]), targets=torch.tensor([[0.0], [2e-6]]))
    assert evaluate(nn.Identity(), rows)["mae"] == 1.62e-06


def test_network_learns_from_the_augmented_inputs(
    clouds: Rows, toy_parameters: Hyperparameters
) -> None:
    network = perceptron(2, LINE, 3)
    fit(network, clouds, cross_entropy, toy_parameters, augment=lambda inputs, _: inputs * -1)
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
        fit(perceptron(2, LINE, 3), clouds, loss, parameters)


def test_nan_in_the_data_stops_training(clouds: Rows, toy_parameters: Hyperparameters) -> None:
    clouds.inputs[7] = torch.nan
    with pytest.raises(Diverged, match=r"\(epoch 1\)"):
        fit(perceptron(2, TOY, 3), clouds, cross_entropy, toy_parameters)


def test_one_step_is_enough(clouds: Rows) -> None:
    parameters = Hyperparameters(
        hidden=(), epochs=1, batch_size=1000, learning_rate=0.1, weight_decay=0, seed=0
    )
    assert len(fit(perceptron(2, LINE, 3), clouds, cross_entropy, parameters).loss) == 1


def test_answer_does_not_depend_on_how_rows_are_batched() -> None:
    network = perceptron(2, TOY, 3)
    inputs = torch.randn(2 * EVALUATION_BATCH + 1, 2)
    (answer,) = answers(network, inputs)
    torch.testing.assert_close(answer, network(inputs).detach())


def test_answer_is_without_dropout() -> None:
    network = nn.Sequential(nn.Dropout(0.5)).train()
    assert torch.equal(answers(network, torch.ones(100, 1))[0], torch.ones(100, 1))


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


class WithInterval(nn.Module):
    """Answers the input, and from 1 below it to 2 above."""

    def forward(self, values: Tensor) -> tuple[Tensor, Tensor]:
        return values, torch.stack([values - 1, values + 2], dim=2)


def test_interval_is_measured_by_what_lies_inside() -> None:
    values = torch.zeros(EVALUATION_BATCH + 4, 1)
    targets = torch.zeros(EVALUATION_BATCH + 4, 1)
    targets[-4:, 0] = torch.tensor([-1.1, -1.0, 2.0, 2.1])  # the borders belong to it
    metrics = evaluate(WithInterval(), Rows(inputs=values, targets=targets))
    assert metrics["interval_coverage"] == round((EVALUATION_BATCH + 2) / len(values), 4)
    assert metrics["interval_width"] == 3


def chosen(**choices: object) -> Hyperparameters:
    return msgspec.structs.replace(TOY, **choices)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_learns(clouds: Rows, optimizer: str) -> None:
    rate = {"sgd": 0.3, "momentum": 0.1, "adagrad": 0.3}.get(optimizer, 0.05)
    parameters = chosen(optimizer=optimizer, learning_rate=rate)
    small = Rows(inputs=clouds.inputs / 20 - 1, targets=clouds.targets)
    assert evaluate(trained(small, parameters), small)["accuracy"] > 0.95


def test_optimizers_take_the_step_their_formula_says() -> None:
    """One step from w = 2 with gradient 3, rate 0.1 and decay 0.5, worked out by hand."""
    after = {
        "sgd": 2 - 0.1 * (3 + 0.5 * 2),
        "momentum": 2 - 0.1 * (3 + 0.5 * 2),
        "adam": 2 - 0.1,  # the first step is the rate
        "adamw": 2 - 0.1 * 0.5 * 2 - 0.1,
        "rmsprop": 2 - 0.1 * 4 / (0.01**0.5 * 4),  # the mean square begins at 1 % of it
        "adagrad": 2 - 0.1,
    }
    for name, expected in after.items():
        layer = nn.Linear(1, 1, bias=False)
        layer.weight.data.fill_(2)
        step = make_optimizer(
            layer, chosen(optimizer=name, learning_rate=0.1, weight_decay=0.5)
        ).step
        layer.weight.grad = torch.tensor([[3.0]])
        step()
        assert layer.weight.item() == pytest.approx(expected, abs=1e-5), name


def test_plain_sgd_is_without_momentum(clouds: Rows) -> None:
    """The one-cycle schedule would give it one: against the plain formula, in full batches."""
    parameters = chosen(
        hidden=(), optimizer="sgd", epochs=8, batch_size=120, learning_rate=0.001, weight_decay=0.0
    )
    network = trained(clouds, parameters)
    make_deterministic(parameters.seed)
    expected = perceptron(2, parameters, 3)
    rates = torch.optim.lr_scheduler.OneCycleLR(
        torch.optim.SGD(expected.parameters(), lr=1), 0.001, total_steps=8, cycle_momentum=False
    )
    for _ in range(8):
        gradients = torch.autograd.grad(
            cross_entropy(expected(clouds.inputs), clouds.targets), list(expected.parameters())
        )
        with torch.no_grad():
            for weight, gradient in zip(expected.parameters(), gradients, strict=True):
                weight.sub_(rates.get_last_lr()[0] * gradient)
        rates.optimizer.step()
        rates.step()
    torch.testing.assert_close(weights(network), weights(expected))


def test_members_are_trained_as_if_each_were_alone(clouds: Rows) -> None:
    """A loss of one number per member: the gradient of each is its own, the report their mean."""
    shared = nn.Parameter(torch.tensor([0.0, 0.0]))

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.offsets = shared

        def forward(self, inputs: Tensor) -> Tensor:
            return self.offsets

    def loss(offsets: Tensor, targets: Tensor) -> Tensor:
        return offsets * torch.tensor([3.0, 5.0]) + torch.tensor([1.0, 2.0])

    parameters = chosen(
        optimizer="sgd", epochs=4, batch_size=200, learning_rate=0.1, weight_decay=0.0
    )
    reported = fit(Two(), clouds, loss, parameters).loss[0]
    assert reported == 1.5
    rates = 0.004 + 0.08117457 + 0.0283061 + 4e-7  # of the one-cycle schedule
    assert shared.tolist() == pytest.approx([-3 * rates, -5 * rates])


# Watching


def test_rows_watched_are_measured_after_each_epoch_and_change_nothing(
    clouds: Rows, capsys: pytest.CaptureFixture[str]
) -> None:
    others = Rows(inputs=clouds.inputs[:30] + 5, targets=clouds.targets[:30])
    make_deterministic(TOY.seed)
    network = nn.Sequential(perceptron(2, TOY, 3), nn.Dropout(0.5))
    watch = Watch("toy/1", others, answer=nn.Softmax(dim=1), targets=others.targets)
    history = fit(network, clouds, cross_entropy, TOY, watch)
    assert len(history.held_out) == len(history.loss) == TOY.epochs
    with torch.no_grad():
        expected = cross_entropy(network.eval()(others.inputs), others.targets).item()
    assert history.held_out[-1] == pytest.approx(expected)
    accuracy = evaluate(network, others)["accuracy"]
    assert f"epoch 10 of 10: loss {history.loss[-1]:.4f}" in (shown := capsys.readouterr().err)
    assert f"held out {expected:.4f}, accuracy {accuracy:.4f}" in shown

    make_deterministic(TOY.seed)
    alone = nn.Sequential(perceptron(2, TOY, 3), nn.Dropout(0.5))
    unwatched = fit(alone, clouds, cross_entropy, TOY)
    assert torch.equal(weights(network), weights(alone))
    assert (unwatched.loss, unwatched.held_out) == (history.loss, [])


# Weight average


def test_average_of_the_weights_is_kept(clouds: Rows) -> None:
    """The formula, step by step, beside a training that keeps the last weights."""
    decay, parameters = 0.9, chosen(epochs=3, batch_size=30)
    seen: list[Tensor] = []
    plain = perceptron(2, LINE, 3)
    averaged = perceptron(2, LINE, 3)
    averaged.load_state_dict(plain.state_dict())
    begin = weights(plain).clone()

    def record(inputs: Tensor, done: float) -> Tensor:
        seen.append(weights(plain).clone())
        return inputs

    make_deterministic(1)
    fit(plain, clouds, cross_entropy, parameters, augment=record)
    make_deterministic(1)
    fit(averaged, clouds, cross_entropy, msgspec.structs.replace(parameters, ema_decay=decay))
    mean = begin
    for step, live in enumerate([*seen[1:], weights(plain)], start=1):
        share = min(decay, (1 + step) / (10 + step))
        mean = share * mean + (1 - share) * live
    torch.testing.assert_close(weights(averaged), mean)
    assert not torch.allclose(weights(averaged), weights(plain))


def test_average_holds_the_statistics_of_batch_normalisation(clouds: Rows) -> None:
    parameters = chosen(batch_normalisation=True, epochs=20, ema_decay=0.95)
    network = trained(clouds, parameters)
    assert evaluate(network, clouds)["accuracy"] > 0.95
    last = trained(clouds, msgspec.structs.replace(parameters, ema_decay=0.0))
    mean_of = "1.running_mean"
    assert not torch.equal(network.state_dict()[mean_of], last.state_dict()[mean_of])


def test_what_is_watched_is_what_will_be_kept(clouds: Rows) -> None:
    watch = Watch("toy/1", clouds, answer=nn.Softmax(dim=1), targets=clouds.targets)
    network = perceptron(2, TOY, 3)
    history = fit(network, clouds, cross_entropy, chosen(ema_decay=0.99), watch)
    with torch.no_grad():
        kept = cross_entropy(network(clouds.inputs), clouds.targets).item()
    assert history.held_out[-1] == pytest.approx(kept)


# Early stop


def test_training_stops_when_the_loss_is_below_the_threshold(clouds: Rows) -> None:
    def losses_of(parameters: Hyperparameters) -> list[float]:
        return fit(perceptron(2, TOY, 3), clouds, cross_entropy, parameters).loss

    everything = losses_of(chosen(epochs=60))
    losses = losses_of(chosen(epochs=60, stop_loss=0.2))
    assert len(losses) < len(everything) == 60
    assert losses[-1] < 0.2 <= min(losses[:-1])


def test_patience_counts_epochs_without_a_lower_loss_and_the_best_weights_return() -> None:
    layer = nn.Linear(1, 1, bias=False)
    stop = EarlyStop(stop_loss=0.0, patience=2)
    for epoch, (loss, stops) in enumerate(
        [(5.0, False), (3.0, False), (4.0, False), (2.0, False), (2.0, False), (2.5, True)]
    ):
        layer.weight.data.fill_(epoch)
        assert stop.now(layer, loss) is stops
    stop.restore(layer)
    assert layer.weight.item() == 3  # of the epoch with loss 2.0, the first of them


def test_training_with_patience_ends_with_the_best_weights(clouds: Rows) -> None:
    states: list[Tensor] = []
    network = perceptron(2, TOY, 3)

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return cross_entropy(outputs, targets)
        states.append(weights(network).clone())
        return torch.tensor([3.0, 1.0, 2.0, 2.0][len(states) - 1])

    fit(network, clouds, loss, chosen(validation=0.1, patience=2))
    assert len(states) == 4
    assert torch.equal(weights(network), states[1])


def test_without_patience_the_last_weights_stay() -> None:
    layer = nn.Linear(1, 1, bias=False)
    stop = EarlyStop(stop_loss=0.0, patience=0)
    for loss in (1.0, 2.0, 0.0):
        layer.weight.data.fill_(loss)
        assert not stop.now(layer, loss)  # a threshold of 0 never stops
    stop.restore(layer)
    assert layer.weight.item() == 0


def test_validation_rows_are_watched_and_never_trained_on(clouds: Rows) -> None:
    trained_on: list[Tensor] = []
    watched: list[int] = []

    def watch(inputs: Tensor, done: float) -> Tensor:
        trained_on.append(inputs)
        return inputs

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            watched.append(len(targets))
            return torch.tensor(float(len(watched)))  # it only ever rises
        return cross_entropy(outputs, targets)

    parameters = chosen(epochs=50, validation=0.25, patience=3)
    history = fit(perceptron(2, TOY, 3), clouds, loss, parameters, augment=watch)
    assert len(history.loss) == 4  # the first epoch was the best, three were waited for
    assert watched == [30] * 4
    assert len(torch.unique(torch.cat(trained_on), dim=0)) == 90


# What does not go together


@pytest.mark.parametrize(
    ("choices", "sentence"),
    [
        ({"validation": 0.2}, "expected patience or a stop loss"),
        ({"validation": 0.999, "patience": 1}, "expected fewer rows for validation than all"),
        ({"batch_normalisation": True, "batch_size": 17}, "got a last batch of 1 of the 120 rows"),
        ({"batch_normalisation": True, "batch_size": 1}, "got a last batch of 1 of the 120 rows"),
    ],
)
def test_choices_that_do_not_go_together_are_named(
    clouds: Rows, choices: dict[str, object], sentence: str
) -> None:
    parameters = chosen(**choices)
    with pytest.raises(Unsuitable, match=sentence):
        fit(perceptron(2, parameters, 3), clouds, cross_entropy, parameters)


def test_device_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(Unsuitable, match="expected a CUDA device"):
        choose_device("cuda")
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")


@pytest.mark.gpu
def test_gpu_gives_the_same_quality_and_the_weights_come_back(clouds: Rows) -> None:
    network = trained(clouds, chosen(device="cuda", batch_normalisation=True, dropout=0.1))
    assert {tensor.device.type for tensor in network.state_dict().values()} == {"cpu"}
    assert evaluate(network, clouds)["accuracy"] > 0.95
