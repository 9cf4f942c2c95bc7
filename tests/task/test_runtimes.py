from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from fieldfold.errors import BundleError, DataError
from fieldfold.task import Bundle, RuntimeSettings, open_runtime
from fieldfold.task.batches import evaluation
from fieldfold.task.bundle import SECTION_NAMES, pack
from fieldfold.task.manifest import Manifest, SectionName
from fieldfold.task.onnx_runtime import OnnxRuntime
from fieldfold.task.runtime import Runtime

Open = Callable[[Bundle], Runtime]


@pytest.fixture(params=["onnx", "torch"])
def opened(request: pytest.FixtureRequest) -> Open:
    settings = RuntimeSettings(runtime=request.param, device="cpu")
    return lambda bundle: open_runtime(bundle, settings)


def batch_of(manifest: Manifest, rows: int, seed: int = 0) -> dict[str, NDArray[Any]]:
    """Windows whose mean of the first feature decides the target."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, *manifest.inputs[0].shape), np.float32)
    x += rng.standard_normal((rows, 1, x.shape[2]), np.float32)
    level = x[:, :, 0].mean(1)
    if manifest.kind == "regression":
        return {"x": x, "y": (0.5 + 0.2 * level).astype(np.float32)[:, None]}
    return {"x": x, "y": np.digitize(level, [-0.7, 0, 0.7]).astype(np.int64)}


def train(runtime: Runtime, bundle: Bundle, steps: int, **options: Any) -> list[float]:
    manifest = bundle.manifest
    rate = manifest.learning_rate.initial
    return [
        runtime.step(batch_of(manifest, manifest.batch_size, step), learning_rate=rate, seed=step, **options)
        for step in range(steps)
    ]


def repacked(bundle: Bundle, replace: dict[SectionName, bytes] | None = None, **changes: Any) -> Bundle:
    sections: dict[SectionName, bytes] = {name: bundle.section(name) for name in SECTION_NAMES}
    manifest = msgspec.structs.replace(bundle.manifest, **changes)
    return Bundle.from_bytes(pack(manifest, {**sections, **(replace or {})}))


def test_the_self_check_passes_where_the_bundle_was_built(opened: Open, each_bundle: Bundle) -> None:
    opened(each_bundle).self_check()


def test_training_learns(opened: Open, each_bundle: Bundle) -> None:
    runtime = opened(each_bundle)
    start = each_bundle.initial_parameters()
    held_out = batch_of(each_bundle.manifest, 300, seed=10_000)
    runtime.begin(start)
    losses = train(runtime, each_bundle, 150)
    assert np.isfinite(losses).all()
    before, after = runtime.evaluate(start, held_out), runtime.evaluate(runtime.parameters(), held_out)
    assert after.loss < 0.6 * before.loss
    assert after.num_examples == 300


def test_the_same_run_gives_the_same_bits(opened: Open, each_bundle: Bundle) -> None:
    ends = []
    for _ in range(2):
        runtime = opened(each_bundle)
        runtime.begin(each_bundle.initial_parameters())
        train(runtime, each_bundle, 5)
        ends.append(runtime.parameters())
    np.testing.assert_array_equal(ends[0], ends[1])


def test_begin_forgets_the_optimizer_unless_told_to_keep_it(opened: Open, mlp_bundle: Bundle) -> None:
    runtime = opened(mlp_bundle)
    ends = []
    for keep_optimizer in (False, False, True):
        runtime.begin(mlp_bundle.initial_parameters(), keep_optimizer=keep_optimizer)
        train(runtime, mlp_bundle, 3)
        ends.append(runtime.parameters())
    np.testing.assert_array_equal(ends[0], ends[1])
    assert not np.array_equal(ends[1], ends[2])


def test_a_self_check_leaves_no_trace_in_the_optimizer(opened: Open, mlp_bundle: Bundle) -> None:
    ends = []
    for checked in (False, True):
        runtime = opened(mlp_bundle)
        if checked:
            runtime.self_check()
        runtime.begin(mlp_bundle.initial_parameters(), keep_optimizer=True)
        train(runtime, mlp_bundle, 3)
        ends.append(runtime.parameters())
    np.testing.assert_array_equal(ends[0], ends[1])


def test_parameters_are_a_copy(opened: Open, mlp_bundle: Bundle) -> None:
    runtime = opened(mlp_bundle)
    given = mlp_bundle.initial_parameters().copy()
    runtime.begin(given)
    given.fill(np.nan)
    taken = runtime.parameters()
    train(runtime, mlp_bundle, 2)
    np.testing.assert_array_equal(taken, mlp_bundle.initial_parameters())


def test_the_seed_decides_dropout_and_noise(opened: Open, mlp_bundle: Bundle) -> None:
    runtime = opened(mlp_bundle)
    batch = batch_of(mlp_bundle.manifest, 64)
    losses = []
    for seed in (1, 1, 2, -3, 2**62):
        runtime.begin(mlp_bundle.initial_parameters())
        losses.append(runtime.step(batch, learning_rate=0.001, seed=seed))
    assert losses[0] == losses[1]
    assert len(set(losses[1:])) == 4


def test_a_strong_proximal_term_holds_training_at_the_global_model(opened: Open, mlp_bundle: Bundle) -> None:
    distances = []
    for proximal in (0.0, 100.0):
        runtime = opened(mlp_bundle)
        start = mlp_bundle.initial_parameters()
        runtime.begin(start)
        train(runtime, mlp_bundle, 30, proximal=proximal)
        distances.append(float(np.linalg.norm(runtime.parameters() - start)))
    assert distances[1] < 0.3 * distances[0]


def test_clipping_bounds_the_step_of_gradient_descent(opened: Open, batch_norm_bundle: Bundle) -> None:
    runtime = opened(batch_norm_bundle)
    start = batch_norm_bundle.initial_parameters()
    layout = batch_norm_bundle.manifest.layout
    runtime.begin(start)
    runtime.step(batch_of(batch_norm_bundle.manifest, 32), learning_rate=1.0, seed=0, clip_norm=1e-3)
    shrink = 1 - batch_norm_bundle.manifest.optimizer.weight_decay
    decayed = layout.flatten(
        {k: v * np.float32(shrink if v.ndim > 1 else 1) for k, v in layout.unflatten(start).items()}
    )
    step = (runtime.parameters() - decayed)[: layout.num_trained]
    assert float(np.linalg.norm(step)) == pytest.approx(1e-3, rel=1e-2)


def test_batch_norm_buffers_follow_the_data(opened: Open, batch_norm_bundle: Bundle) -> None:
    runtime = opened(batch_norm_bundle)
    start = batch_norm_bundle.initial_parameters()
    runtime.begin(start)
    train(runtime, batch_norm_bundle, 3)
    layout = batch_norm_bundle.manifest.layout
    buffers = {spec.name for spec in layout.tensors if spec.kind == "buffer"}
    assert {name.rsplit(".", 1)[-1] for name in buffers} == {"running_mean", "running_var"}
    before, after = layout.unflatten(start), layout.unflatten(runtime.parameters())
    assert all(not np.array_equal(before[name], after[name]) for name in buffers)


def test_evaluation_does_not_depend_on_how_rows_fall_into_batches(opened: Open, each_bundle: Bundle) -> None:
    runtime = opened(each_bundle)
    parameters = each_bundle.initial_parameters()
    rows = 2 * each_bundle.manifest.batch_size + 1
    data = batch_of(each_bundle.manifest, rows)
    whole = runtime.evaluate(parameters, data)
    singles = [runtime.evaluate(parameters, {k: v[i : i + 1] for k, v in data.items()}).loss for i in range(rows)]
    assert whole.loss == pytest.approx(np.mean(singles), rel=1e-5)


def test_regression_metrics_are_those_of_the_predictions(opened: Open, mlp_bundle: Bundle) -> None:
    runtime = opened(mlp_bundle)
    parameters = mlp_bundle.initial_parameters()
    data = batch_of(mlp_bundle.manifest, 130)
    error = 125 * (runtime.predict(parameters, {"x": data["x"]})["output"] - data["y"])
    found = runtime.evaluate(parameters, data).metrics
    assert found == {
        "RMSE": pytest.approx(float(np.sqrt((error**2).mean())), rel=1e-5),
        "MAE": pytest.approx(float(np.abs(error).mean()), rel=1e-5),
    }


def test_accuracy_is_that_of_the_predictions(opened: Open, batch_norm_bundle: Bundle) -> None:
    runtime = opened(batch_norm_bundle)
    parameters = batch_norm_bundle.initial_parameters()
    data = batch_of(batch_norm_bundle.manifest, 70)
    scores = runtime.predict(parameters, {"x": data["x"]})["output"]
    assert scores.shape == (70, 4)
    expected = float((scores.argmax(1) == data["y"]).mean())
    assert runtime.evaluate(parameters, data).metrics["accuracy"] == pytest.approx(expected)


def test_a_loss_that_is_not_finite_is_returned_as_it_is(opened: Open, mlp_bundle: Bundle) -> None:
    runtime = opened(mlp_bundle)
    runtime.begin(mlp_bundle.initial_parameters())
    batch = batch_of(mlp_bundle.manifest, 64)
    batch["y"][0] = np.nan
    assert np.isnan(runtime.step(batch, learning_rate=0.001, seed=0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": np.zeros((64, 30, 13), np.float32)}, "array x has shape"),
        ({"y": np.zeros((63, 1), np.float32)}, "array y has shape"),
        ({"y": np.zeros(64, np.float32)}, "array y has shape"),
    ],
)
def test_a_batch_that_does_not_fit_is_refused(
    opened: Open, mlp_bundle: Bundle, change: dict[str, NDArray[np.float32]], message: str
) -> None:
    runtime = opened(mlp_bundle)
    runtime.begin(mlp_bundle.initial_parameters())
    with pytest.raises(DataError, match=message):
        runtime.step(batch_of(mlp_bundle.manifest, 64) | change, learning_rate=0.001, seed=0)


def test_nothing_to_evaluate_on_is_said(opened: Open, mlp_bundle: Bundle) -> None:
    with pytest.raises(DataError, match="the batch has no row"):
        opened(mlp_bundle).evaluate(mlp_bundle.initial_parameters(), batch_of(mlp_bundle.manifest, 0))


def test_a_missing_array_is_named(opened: Open, mlp_bundle: Bundle) -> None:
    with pytest.raises(DataError, match="no array x"):
        opened(mlp_bundle).predict(mlp_bundle.initial_parameters(), {})


def test_a_self_check_that_comes_out_otherwise_is_refused(opened: Open, mlp_bundle: Bundle) -> None:
    check = mlp_bundle.manifest.self_check
    for wrong in (
        msgspec.structs.replace(check, losses=(*check.losses[:-1], check.losses[-1] * 1.01)),
        msgspec.structs.replace(check, evaluation_loss=check.evaluation_loss * 0.99),
        msgspec.structs.replace(check, learning_rate=check.learning_rate * 2),
    ):
        with pytest.raises(BundleError, match="self-check: the"):
            opened(repacked(mlp_bundle, self_check=wrong)).self_check()


def test_a_graph_that_is_no_graph_is_refused(mlp_bundle: Bundle) -> None:
    with pytest.raises(BundleError, match=r"train\.onnx is not a graph that may be run"):
        OnnxRuntime(repacked(mlp_bundle, {"train.onnx": b"not a graph"})).self_check()


def test_a_graph_in_the_place_of_another_is_refused(mlp_bundle: Bundle) -> None:
    swapped = repacked(mlp_bundle, {"train.onnx": mlp_bundle.section("evaluate.onnx")})
    with pytest.raises(BundleError, match=r"train\.onnx gives"):
        OnnxRuntime(swapped).self_check()
    swapped = repacked(mlp_bundle, {"predict.onnx": mlp_bundle.section("evaluate.onnx")})
    with pytest.raises(BundleError, match=r"predict\.onnx takes y"):
        OnnxRuntime(swapped).predict(swapped.initial_parameters(), batch_of(swapped.manifest, 2))


def test_a_graph_of_another_model_is_refused(mlp_bundle: Bundle, batch_norm_bundle: Bundle) -> None:
    with pytest.raises(BundleError, match=r"train\.onnx takes"):
        OnnxRuntime(repacked(mlp_bundle, {"train.onnx": batch_norm_bundle.section("train.onnx")})).self_check()


class TestScoresByClass:
    """Vibration has four classes; remaining life has none."""

    def test_each_class_is_scored_as_if_it_were_alone(self, opened: Open, batch_norm_bundle: Bundle) -> None:
        runtime, manifest = opened(batch_norm_bundle), batch_norm_bundle.manifest
        first, batch = batch_norm_bundle.initial_parameters(), batch_of(batch_norm_bundle.manifest, 150)
        found = runtime.evaluate(first, batch)
        assert [n for _, n in found.by_class] == np.bincount(batch["y"], minlength=4).tolist()
        for number, (score, _) in enumerate(found.by_class):
            alone = runtime.evaluate(first, {name: array[batch["y"] == number] for name, array in batch.items()})
            assert score == pytest.approx(alone.metrics[manifest.metrics[0].name])
        together = sum(score * n for score, n in found.by_class) / found.num_examples
        assert together == pytest.approx(found.metrics[manifest.metrics[0].name])

    def test_a_class_without_examples_has_none(self, opened: Open, batch_norm_bundle: Bundle) -> None:
        batch = batch_of(batch_norm_bundle.manifest, 20)
        batch["y"][:] = 2
        found = opened(batch_norm_bundle).evaluate(batch_norm_bundle.initial_parameters(), batch)
        assert [n for _, n in found.by_class] == [0, 0, 20, 0]
        assert found.by_class[0] == (0.0, 0)

    def test_a_task_without_classes_has_none(self, opened: Open, mlp_bundle: Bundle) -> None:
        found = opened(mlp_bundle).evaluate(mlp_bundle.initial_parameters(), batch_of(mlp_bundle.manifest, 20))
        assert found.by_class == ()

    @pytest.mark.parametrize("label", [-1, 4, 2**62])
    def test_a_class_that_the_task_does_not_have(self, batch_norm_bundle: Bundle, label: int) -> None:
        with pytest.raises(DataError, match="the task has 4"):
            evaluation(batch_norm_bundle.manifest, {"y": np.array([0, label])}, np.zeros((2, 2), np.float32))
