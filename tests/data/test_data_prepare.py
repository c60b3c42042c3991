"""From raw samples to splits: shapes, statistics, weights, placing, fingerprint, refusals."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor

from dltrain.data import prepare as prepare_module
from dltrain.data.batches import ResidentSplit, StreamingSplit
from dltrain.data.errors import DataError
from dltrain.data.normalization import moments, normalizer
from dltrain.data.prepare import prepare
from dltrain.data.raw import RawData
from dltrain.data.splits import bootstrapped


def images(count: int = 200, channels: int = 3) -> RawData:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randint(0, 256, (count, channels, 5, 4), generator=generator, dtype=torch.uint8)
    return RawData(inputs, torch.arange(count) % 4, "classification", class_names=("a", "b", "c", "d"))


def table(count: int = 200) -> RawData:
    inputs = (
        torch.randn(count, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 100.0, 0.01])
        + 5
    )
    return RawData(inputs, inputs.sum(1), "regression", feature_names=("x", "y", "z"))


def everything(split: object) -> Tensor:
    assert isinstance(split, ResidentSplit | StreamingSplit)
    return torch.cat([batch.inputs for batch in split.batches(None, 32)])


@pytest.mark.parametrize("raw", [images(), table()], ids=["images", "table"])
@pytest.mark.parametrize("mode", ["unit", "center", "none"])
def test_statistics_come_from_the_training_split_only(raw: RawData, mode: str) -> None:
    splits = prepare(raw, normalize=mode)
    train = everything(splits.train)
    axes = [0, 2, 3] if train.ndim == 4 else [0]
    unit = 255 if raw.inputs.dtype == torch.uint8 else 1  # type: ignore[union-attr]
    if mode in ("unit", "center"):
        scale = train.std(axes, correction=0)
        assert train.mean(axes).abs().max() < 1e-4 * scale.max()
    if mode == "unit":
        torch.testing.assert_close(train.std(axes, correction=0), torch.ones(3), rtol=1e-4, atol=1e-4)
        assert splits.val is not None
        assert everything(splits.val).mean(axes).abs().max() > 1e-3  # not its own statistics
    assert isinstance(raw.inputs, Tensor)
    back = train * splits.spec.std + splits.spec.mean  # the documented inverse
    order = back.reshape(len(back), -1).sum(1).sort().values
    known = raw.inputs.float() / unit
    test = {round(value, 3) for value in known.reshape(len(known), -1).sum(1).tolist()}
    assert all(
        round(value, 3) in test or min(abs(value - t) for t in test) < 1e-2 for value in order[:20].tolist()
    )


@pytest.mark.parametrize("mode", ["unit", "center", "none"])
def test_the_mean_pixel_is_that_of_the_training_images_whatever_normalizes_them(mode: str) -> None:
    splits = prepare(images(), normalize=mode)
    mean = everything(splits.train).double().mean((0, 2, 3))
    torch.testing.assert_close(splits.spec.mean_pixel.flatten().double(), mean, rtol=0, atol=1e-6)
    assert (mode == "none") == bool(splits.spec.mean_pixel.any())
    again = prepare(images(), normalize=mode, split_seed=5, statistics=splits.statistics())
    assert again.spec.mean_pixel.equal(splits.spec.mean_pixel)


def test_an_average_of_another_shape_is_refused() -> None:
    statistics = prepare(images(), normalize="none").statistics() | {"average": torch.zeros(2)}
    with pytest.raises(
        DataError, match=r"mean of shape \(3, 1, 1\) and an average of shape \(2,\); put that"
    ):
        prepare(images(), statistics=statistics)


def test_the_statistics_of_bytes_equal_those_of_floats() -> None:
    inputs = images(3000).inputs
    assert isinstance(inputs, Tensor)
    mean, std = moments(inputs)
    variance, twin = torch.var_mean(inputs.double() / 255, (0, 2, 3), correction=0)
    torch.testing.assert_close(mean.flatten(), twin.float())
    torch.testing.assert_close(std.flatten(), variance.sqrt().float())
    assert mean.shape == std.shape == (3, 1, 1)


def test_a_constant_feature_is_centred_and_not_blown_up() -> None:
    inputs = torch.randn(100, 3)
    inputs[:, 1] = 0.1
    inputs[:, 2] = 0
    # far from 0, where a feature that varies is refused
    inputs = torch.cat([inputs, torch.full((100, 1), 2e9), torch.full((100, 1), 1e-40)], 1)
    normal = normalizer(inputs, "unit")(inputs)
    assert normal[:, 1:].abs().max() < 1e-6
    assert normal.isfinite().all()


@pytest.mark.parametrize("offset", [16e6, 5.4e6, 0.0])
def test_features_that_float32_cannot_normalize_are_refused(offset: float) -> None:
    """16,000,000 and 16,000,001 were a constant, and 5,400,000 to 5,400,009 had a mean of 0.04."""
    inputs = (offset + torch.arange(100) % 2)[:, None]
    if offset:
        with pytest.raises(DataError, match="feature 0 has mean .* Subtract the offset first"):
            normalizer(inputs, "unit")
    else:
        assert normalizer(inputs, "unit")(inputs).std(correction=0) == pytest.approx(1)
    with pytest.raises(DataError, match="Write it in a smaller unit"):
        normalizer(torch.arange(100.0)[:, None] * 1e-40, "unit")


def test_normalisation_is_the_formula() -> None:
    raw = images()
    assert isinstance(raw.inputs, Tensor)
    normal = normalizer(raw.inputs, "unit")
    torch.testing.assert_close(
        normal(raw.inputs), (raw.inputs / 255 - normal.mean) / normal.std, atol=1e-6, rtol=1e-6
    )
    black = normal(torch.zeros(1, 3, 5, 4, dtype=torch.uint8))
    torch.testing.assert_close(black, (-normal.mean / normal.std).expand_as(black))


def test_the_spec_says_what_models_need() -> None:
    spec = prepare(images()).spec
    assert (spec.input_shape, spec.num_classes, spec.task) == ((3, 5, 4), 4, "classification")
    assert spec.class_names == ("a", "b", "c", "d")
    assert spec.sizes == {"train": 162, "val": 18, "test": 20}
    assert spec.mean.shape == spec.std.shape == (3, 1, 1)
    assert spec.class_weights is None
    spec = prepare(table()).spec
    assert (spec.input_shape, spec.num_classes, spec.task) == ((3,), 1, "regression")
    assert spec.mean.shape == (3,)


def test_targets_have_the_documented_shapes() -> None:
    splits = prepare(table())
    assert splits.train.targets.shape == (162, 1) and splits.train.targets.dtype == torch.float32
    splits = prepare(images())
    assert splits.train.targets.shape == (162,) and splits.train.targets.dtype == torch.int64
    two = RawData(torch.zeros(20, 1), torch.zeros(20, 2, dtype=torch.float64), "regression")
    assert prepare(two).spec.num_classes == 2


def test_splits_that_are_not_wanted_are_none() -> None:
    splits = prepare(images(), val_fraction=0, test_fraction=0)
    assert splits.val is None and splits.test is None
    assert splits.spec.sizes == {"train": 200, "val": 0, "test": 0}


def test_balanced_class_weights_have_mean_one_over_the_training_samples() -> None:
    targets = torch.tensor([0] * 100 + [1] * 20 + [2] * 10)
    splits = prepare(RawData(torch.randn(130, 2), targets, "classification"), class_weights="balanced")
    weights = splits.spec.class_weights
    assert weights is not None
    torch.testing.assert_close(weights[splits.train.targets].mean(), torch.tensor(1.0))
    counts = torch.bincount(splits.train.targets)
    torch.testing.assert_close(weights * counts, (weights * counts)[:1].expand(3))


def test_objective_data_are_one_dummy_sample() -> None:
    from dltrain.data.synthetic import none

    splits = prepare(none())
    batch = next(iter(splits.train.batches(torch.tensor([0]), 1)))
    assert (batch.inputs.tolist(), batch.targets.tolist(), batch.indices.tolist()) == ([[0.0]], [0.0], [0])
    assert splits.val is splits.train and splits.test is None
    assert splits.spec.task == "objective" and splits.spec.num_classes == 1


@pytest.mark.parametrize("raw", [images(), table()], ids=["images", "table"])
def test_floats_bytes_and_streams_give_the_same_batches(
    raw: RawData, monkeypatch: pytest.MonkeyPatch
) -> None:
    resident = prepare(raw)
    monkeypatch.setattr(prepare_module, "free_memory", lambda device: 30_000.0)
    compact = prepare(raw, resident_share=0.5)  # 12 000 values: 48 000 bytes as floats, 12 000 as bytes
    streamed = prepare(raw, resident_share=0.0)
    assert isinstance(resident.train, ResidentSplit) and resident.train.normalize is None
    if raw.task == "classification":
        assert isinstance(compact.train, ResidentSplit) and compact.train.inputs.dtype == torch.uint8
    assert isinstance(streamed.train, StreamingSplit)
    order = torch.randperm(len(resident.train), generator=torch.Generator().manual_seed(1))
    for others in zip(
        *(split.train.batches(order, 50) for split in (resident, compact, streamed)), strict=True
    ):
        for other in others[1:]:
            assert all(left.equal(right) for left, right in zip(others[0], other, strict=True))


def test_the_cache_has_the_dtype_that_is_asked_for() -> None:
    splits = prepare(images(), dtype=torch.bfloat16)
    batch = next(iter(splits.train.batches(None, 8)))
    assert batch.inputs.dtype == torch.bfloat16
    torch.testing.assert_close(batch.inputs, everything(prepare(images()).train)[:8].bfloat16())


@pytest.mark.parametrize(
    ("limit", "kept"),
    # of 122, 32 and 8: the quotas 0.75 · 0.20 · 0.05, 7.53 · 1.98 · 0.49, … by largest remainder
    [
        (1, [1, 0, 0]),
        (3, [1, 1, 1]),
        (10, [7, 2, 1]),
        (40, [30, 8, 2]),
        (100, [75, 20, 5]),
        (9999, [122, 32, 8]),
    ],
)
def test_a_limit_keeps_the_shares_of_the_classes_and_leaves_val_and_test(limit: int, kept: list[int]) -> None:
    targets = torch.tensor([0] * 150 + [1] * 40 + [2] * 10)
    raw = RawData(torch.arange(200.0)[:, None], targets, "classification")
    whole, few = prepare(raw), prepare(raw, limit=limit)
    assert torch.bincount(whole.train.targets).tolist() == [122, 32, 8]
    assert len(few.train) == min(limit, len(whole.train)) == few.spec.sizes["train"]
    assert torch.bincount(few.train.targets, minlength=3).tolist() == kept
    assert few.test is not None and whole.test is not None and few.test.targets.equal(whole.test.targets)
    assert few.fingerprint() == whole.fingerprint()
    assert len(prepare(table(), limit=7).train) == 7


def test_a_limit_keeps_one_sample_of_a_rare_class_and_the_imbalance_of_the_others() -> None:
    """Of 9,990 to 10, a hundred keep 99 to 1, so that what is said and measured of rare classes stays."""
    targets = (torch.arange(10_000) % 1000 == 0).long()
    raw = RawData(torch.arange(10_000.0)[:, None], targets, "classification")
    assert prepare(raw, limit=100).spec.class_counts == (99, 1)
    assert prepare(raw, limit=100, split_seed=1).spec.class_counts == (99, 1)


def test_statistics_of_an_earlier_run_are_used_again() -> None:
    first = prepare(table())
    statistics = first.statistics()
    assert set(statistics) == {"mean", "std"}
    again = prepare(table(), split_seed=5, statistics=statistics)
    assert again.spec.mean.equal(first.spec.mean) and again.spec.std.equal(first.spec.std)


def test_the_fingerprint_follows_the_data_and_nothing_else() -> None:
    first = prepare(images()).fingerprint()
    assert len(first) == 16
    assert prepare(images(), split_seed=3, normalize="none", resident_share=0.0).fingerprint() == first
    assert prepare(images(204)).fingerprint() != first
    other = images()
    other.targets[3] = 0
    assert prepare(other).fingerprint() != first
    other = images()
    assert isinstance(other.inputs, Tensor)
    other.inputs[0, 0, 0, 0] += 1
    assert prepare(other).fingerprint() != first


def broken(raw: RawData, **changes: object) -> RawData:
    return RawData(**{**vars(raw), **changes})  # type: ignore[arg-type]


def with_nan() -> RawData:
    raw = table()
    assert isinstance(raw.inputs, Tensor)
    raw.inputs[7, 1] = float("nan")
    return raw


REFUSED = [
    (with_nan(), {}, r"sample 7 has the input value nan \(feature 'y'\); all values must be finite"),
    (broken(table(), targets=torch.full((200,), float("inf"))), {}, "sample 0 has the target value inf"),
    (broken(images(), targets=torch.zeros(3)), {}, "there are 200 inputs but 3 targets"),
    (broken(images(), targets=torch.full((200,), -1)), {}, "whole class numbers from 0 .lowest here: -1"),
    (broken(images(), targets=torch.rand(200)), {}, "use dataset.task=regression"),
    (
        broken(images(), targets=torch.full((200,), 9)),
        {},
        "class number 9 occurs, but there are only 4 class names",
    ),
    (
        broken(images(), targets=torch.zeros(200).long(), class_names=()),
        {},
        "only one class; .* at least two",
    ),
    (RawData(torch.zeros(0, 2), torch.zeros(0), "regression"), {}, "the dataset holds no sample"),
    (table(), {"class_weights": "balanced"}, "class_weights=balanced needs classes.*set it to none"),
    (images(), {"limit": 0}, "limit is 0; it must be at least 1"),
    (images(), {"class_weights": "even"}, "dataset.class_weights is 'even'; it must be none or balanced"),
    (images(), {"normalize": "whiten"}, "dataset.normalize is 'whiten'; it must be unit, center or none"),
    (images(), {"resident_share": 2.0}, r"dataset.resident_share is 2.0; it must be in \[0, 1\]"),
]


@pytest.mark.parametrize(("raw", "keys", "message"), REFUSED)
def test_refusals(raw: RawData, keys: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        prepare(raw, **keys)  # type: ignore[arg-type]
    assert len(str(error.value).splitlines()) <= 3


def test_huge_finite_inputs_are_not_taken_for_infinite() -> None:
    raw = RawData(torch.full((20, 2), 3e38), torch.arange(20.0), "regression")
    prepare(raw, normalize="none")


@pytest.mark.ci
def test_the_default_data_import_nothing_heavy() -> None:
    code = (
        # numpy 1.26 imports numpy.ma by itself, numpy 2 does not
        "import sys, numpy; known = set(sys.modules);"
        "from dltrain.data.prepare import prepare; from dltrain.data.bundled import digits;"
        "prepare(digits()); heavy = ('sklearn', 'torchvision', 'scipy', 'PIL', 'pyarrow', 'pandas', "
        "'torch._dynamo', 'numpy.ma');"
        "print([name for name in heavy if name in set(sys.modules) - known])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_free_memory_is_that_of_the_control_group(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    from pathlib import Path

    folder = Path(str(tmp_path))
    (folder / "memory.max").write_text("1000000\n")
    (folder / "memory.current").write_text("400000\n")
    assert prepare_module._left_in_group(folder) == 600_000
    (folder / "memory.max").write_text("max\n")
    assert prepare_module._left_in_group(folder) == float("inf")
    assert prepare_module._left_in_group(folder / "none") == float("inf")
    assert prepare_module.free_memory(torch.device("cpu")) > 2**20


# Bootstrap samples and rare classes ----------------------------------------------------------------------------------


def rare(count: int = 5) -> RawData:
    targets = torch.tensor([0] * 40 + [1] * 15 + [2] * count)
    return RawData(torch.randn(len(targets), 2), targets, "classification", ("a", "b", "c"))


def lacking(raw: RawData) -> int:
    """Return a seed whose bootstrap sample has none of the last class."""
    train = prepare(raw).source.positions["train"]  # type: ignore[union-attr]
    return next(seed for seed in range(1000) if 2 not in raw.targets[bootstrapped(train, seed)])


def test_a_bootstrap_sample_without_a_class_is_refused() -> None:
    raw = rare()
    seed = lacking(raw)
    with pytest.raises(
        DataError, match="bootstrap sample has none of the 3 training samples of class 'c'; use another seed"
    ):
        prepare(raw, bootstrap=seed, class_weights="balanced")
    other = next(s for s in range(1000) if s != seed)
    weights = prepare(raw, bootstrap=other, class_weights="balanced").spec.class_weights
    assert weights is not None and weights.isfinite().all()


def test_a_class_without_a_training_sample_has_no_weight() -> None:
    with pytest.raises(DataError, match="has no weight for 1 of 3 classes"):
        prepare(rare(), limit=2, class_weights="balanced")
    assert len(prepare(rare(), limit=2).train) == 2


def test_classes_are_counted_before_a_bootstrap_sample_is_drawn() -> None:
    raw = rare(30)
    plain, drawn = prepare(raw).spec, prepare(raw, bootstrap=3).spec
    assert plain.class_counts == drawn.class_counts == (32, 13, 24)
    assert sum(prepare(rare(), limit=30, bootstrap=3).spec.class_counts) == 30
