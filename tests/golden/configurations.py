"""The configurations whose results are recorded, and the data files that some of them read.

Together they hold every group and every word that needs neither a download nor an extra package.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

COMMON = "quiet=true threads=1 device=cpu precision=fp32"
SMALL = "dataset.limit=200 epochs=2"  # of digits: 4 steps an epoch


@dataclass(frozen=True)
class Configuration:
    """A command line by name.

    Args:
        stop: optimizer steps after which SIGTERM ends the run, which is then resumed; 0 leaves it alone.
        kill: as `stop`, but the process dies without saving.
        tolerance: largest relative difference that counts as equal; 0 compares bits.
    """

    name: str
    words: str
    stop: int = 0
    kill: int = 0
    tolerance: float = 0.0

    @property
    def arguments(self) -> list[str]:
        return [*self.words.split(), *COMMON.split()]


# Every optimizer, with its own schedule, initializer and other choices
OPTIMIZERS = {
    "gd": "dataset=breast_cancer optimizer=gd epochs=10 schedule=step initializer=kaiming_normal",
    "sgd": f"optimizer=sgd {SMALL} schedule=linear initializer=xavier_uniform regularization=[l2]",
    "momentum": "dataset=wine optimizer=momentum epochs=6 schedule=multistep initializer=xavier_normal",
    "nesterov": f"optimizer=nesterov {SMALL} schedule=one_cycle momentum_schedule=linear initializer=kaiming_uniform",
    "rprop": "dataset=iris optimizer=rprop epochs=12 initializer=uniform",
    "quickprop": "dataset=iris optimizer=quickprop epochs=12 initializer=normal model.hidden=[16]",
    "adagrad": f"optimizer=adagrad {SMALL} schedule=inverse_sqrt initializer=truncated_normal",
    "adadelta": f"optimizer=adadelta {SMALL} schedule=constant schedule.warmup_steps=3 initializer=fan_in_uniform",
    "rmsprop": f"optimizer=rmsprop optimizer.centered=true {SMALL} schedule=inverse initializer=orthogonal",
    "shampoo": f"optimizer=shampoo optimizer.update_every=2 {SMALL} schedule=inverse_k initializer=sparse",
    "adam": f"optimizer=adam {SMALL} schedule=cosine initializer=lsuv",
    "amsgrad": f"optimizer=amsgrad {SMALL} schedule=exponential initializer=constant initializer.last=normal",
    "adamw": f"optimizer=adamw {SMALL} schedule=cosine_restarts momentum_schedule=cosine regularization=[dropout]",
    "adamax": f"optimizer=adamax {SMALL} schedule=triangular initializer.last=zeros initializer=xavier_normal",
    "nadam": f"optimizer=nadam {SMALL} schedule=polynomial",
    "radam": f"optimizer=radam {SMALL} steps=12 epochs=null schedule=plateau schedule.patience=1",
    "ranger": f"optimizer=ranger {SMALL} parameters.lr_scale={{head:3}}",
    "newton_cg": "dataset=wine optimizer=newton_cg epochs=4 model.hidden=[16]",
    "lbfgs": "dataset=iris optimizer=lbfgs epochs=4 model.hidden=[16] regularization=[l2]",
    "steepest": "dataset=none model=quadratic optimizer=steepest steps=20",
    "muon": f"optimizer=muon {SMALL} model=cnn initializer=dirac",
    "lion": f"optimizer=lion {SMALL} optimizer.weight_decay=0.1",
    "schedule_free": f"optimizer=schedule_free {SMALL}",
    "adafactor": f"optimizer=adafactor {SMALL} initializer=zeros initializer.last=kaiming_normal",
}
# What the other groups and the knobs of the loop do
SINGLE = {
    "default": "epochs=3",
    "patience": "dataset=wine lr=0.03 epochs=40 early_stopping.patience=3",
    "smoothing": "dataset=wine lr=0.03 epochs=20 early_stopping.smoothing=0.9 early_stopping.metric=gap",
    "tolerance": "dataset=iris optimizer=gd epochs=60 early_stopping=none early_stopping.tolerance=0.05",
    "accuracy": f"{SMALL} early_stopping.metric=val/accuracy early_stopping.mode=max evaluation.every_steps=3",
    "sam": f"optimizer=momentum wrap=[sam] {SMALL} regularization=[dropout] accumulate=2",
    "sam_lookahead": f"optimizer=sgd wrap=[sam,lookahead] wrap.lookahead.k=2 {SMALL} model=cnn",
    "ema": f"model=cnn averaging=ema {SMALL} optimizer=momentum",
    "polyak": f"averaging=polyak {SMALL} accumulate=3",
    "swa": f"averaging=swa {SMALL} epochs=4 model.norm=batch",
    "penalties": f"regularization=[elastic_net,max_norm,gradient_noise] penalty_schedule=linear {SMALL}",
    "decay": f"regularization=[weight_decay,gradient_clipping] optimizer=sgd {SMALL}",
    "l1": f"regularization=[l1,label_smoothing] {SMALL} penalty_schedule=cosine optimizer=sgd",
    "clipping": f"regularization=[gradient_clipping] regularization.gradient_clipping.mode=adaptive {SMALL}",
    "stochastic_depth": f"model.hidden=[32,32,32] model.residual=true regularization=[stochastic_depth] {SMALL}",
    "warps": f"model=cnn augmentation=[shift,rotate,scale,shear,flip] {SMALL} shuffle=once",
    "pixels": f"model=lenet augmentation=[crop,distort,noise,cutout] {SMALL} batch_size=32",
    "mixed": f"model=cnn augmentation=[color,mixup,cutmix,alternating_flip] {SMALL} model.norm=group",
    "randaugment": f"model=vit_tiny model.depth=2 model.dim=24 augmentation=[randaugment] {SMALL}",
    "trivialaugment": f"model=speed_cnn model.widths=[8,16,16] augmentation=[trivialaugment] initializer=whitening {SMALL}",
    "resnet": "model=resnet20 model.width=4 dataset.limit=64 steps=3 dataset.class_weights=balanced",
    "wide_resnet": "model=wide_resnet model.depth=10 model.width=1 dataset.limit=64 steps=3 regularization=[dropout]",
    "torchvision": "dataset=image_folder dataset.root=pictures dataset.image_size=32 model=torchvision batch_size=8 steps=3",
    "balanced": f"sampler=balanced dataset=npz dataset.path=uneven.npz model=linear {SMALL} loss=cross_entropy",
    "hard": f"sampler=hard {SMALL} model=deep_linear model.depth=2 model.width=16",
    "replacement": f"shuffle=replacement loss=bce {SMALL} model.activation=gelu model.norm=layer",
    "bernoulli": "shuffle=bernoulli model.norm=batch dataset.limit=200 batch_size=6 steps=40",
    "frozen": f"parameters.freeze=[layers.0] parameters.thaw_epoch=1 {SMALL} optimizer=momentum",
    "table": "dataset=csv dataset.path=table.csv dataset.target=y dataset.task=regression loss=huber epochs=4 model=table_mlp model.hidden=[16]",
    "regression": "dataset=diabetes loss=mae epochs=3 batch_size=full optimizer=rmsprop folds=3 fold=1",
    "teacher": "dataset=teacher dataset.task=regression dataset.samples=300 loss=mse epochs=3 diagnostics=[layers,prediction]",
    "two_moons": "dataset=two_moons dataset.samples=300 epochs=3 diagnostics=[curvature,batch_noise] seed=3 model.hidden=[16]",
    "rosenbrock": "dataset=none model=rosenbrock optimizer=nesterov lr=1e-4 steps=30 diagnostics=[surface]",
    "saddle": "dataset=none model=saddle optimizer=adam lr=0.05 steps=30 regularization=[gradient_noise]",
    "pretrained": f"initializer=pretrained initializer.path=linear.safetensors model=linear {SMALL}",
    "metrics": f"metrics=[f1,auroc,top_k,balanced_accuracy,precision,recall,average_precision,cohen_kappa,mcc,calibration_error] {SMALL} "
    "early_stopping.metric=val/f1",
    "metrics_of_quantities": "dataset=diabetes metrics=[rmse,r2,mape,spearman,mae] epochs=3 schedule=plateau schedule.metric=val/r2",
    "metrics_by_default": "metrics=[accuracy] dataset=iris epochs=2 evaluation.every_steps=1",
    "fast": "debug=fast",
    "overfit": "debug=overfit steps=20 epochs=null",
    "recipe": "experiment=digits_mlp dataset.limit=200 epochs=2",
    "skip": f"non_finite=skip {SMALL} log.every_steps=2 dataset.split_seed=4 dataset.normalize=center",
}  # fmt: skip
EVERYTHING = (
    "model=cnn model.channels=[8,8] optimizer=momentum schedule=plateau averaging=ema regularization=[l2,dropout,gradient_noise] "
    "augmentation=[shift,mixup] accumulate=2 dataset.limit=300 epochs=3 sampler=hard checkpoint.every_steps=2"
)
INTERRUPTED = [
    Configuration("stopped_in_mid_epoch", EVERYTHING, stop=7),
    Configuration("killed_in_mid_epoch", EVERYTHING, kill=8),
    Configuration("stopped_under_sam", f"optimizer=sgd wrap=[lookahead,sam] {SMALL} schedule=cosine", stop=6),
    Configuration(
        # the best evaluation is that of step 21
        "stopped_after_the_best",
        "dataset.limit=150 lr=0.02 epochs=10 early_stopping=none averaging=polyak",
        stop=26,
    ),
]
SWEPT = {
    "swept_grid": f"-m optimizer=sgd,adam seed=0,1 {SMALL} sweep.backend=local",
    "swept_search": f"-m sweep=tpe sweep.trials=5 sweep.startup_trials=2 lr=tag(log,interval(1e-3,1)) {SMALL} sweep.jobs=1 "
    "sweep.backend=local",
    "swept_qmc": f"-m sweep=qmc sweep.trials=2 lr=tag(log,interval(1e-3,1)) {SMALL} sweep.backend=local",
    "swept_folds": "-m dataset=wine folds=3 fold=0,1,2 model.hidden=[16] epochs=2 evaluation.test=true sweep.backend=local",
}  # fmt: skip
STACKED = {
    "stacked_optimizers": f"-m optimizer=sgd,momentum,adam,rmsprop,lion {SMALL}",
    "stacked_rules": f"-m seed=0,1 regularization=[l1],[l2,dropout],[gradient_noise,gradient_clipping] {SMALL}",
    "stacked_random": f"-m sweep=random sweep.trials=3 lr=tag(log,interval(1e-3,1e-1)) {SMALL}",
    "stacked_lengths": f"-m lr=0.01,0.001 epochs=2,3 schedule=cosine,plateau {SMALL.replace('epochs=2', '')}",
}


def configurations() -> Iterator[Configuration]:
    """Yield every configuration, in the order of the recording."""
    for name, words in (OPTIMIZERS | SINGLE).items():
        yield Configuration(name, words)
    yield from INTERRUPTED
    for name, words in SWEPT.items():
        yield Configuration(name, words)
    for name, words in STACKED.items():
        yield Configuration(name, f"{words} sweep.backend=stacked sweep.jobs=1", tolerance=1e-4)


def write_data(folder: Path) -> None:
    """Write the files that `npz`, `csv` and `image_folder` read."""
    import numpy as np
    import torch
    from PIL import Image
    from safetensors.torch import save_file

    draw = np.random.default_rng(0)
    inputs = draw.normal(size=(240, 6)).astype(np.float32)
    np.savez(folder / "uneven.npz", inputs=inputs, targets=(inputs[:, 0] > 0.9).astype(np.int64))
    rows = [
        f"{a:.6f},{b:.6f},{'abc'[i % 3]},{a - 2 * b + i % 3:.6f}"
        for i, (a, b) in enumerate(draw.normal(size=(120, 2)))
    ]
    (folder / "table.csv").write_text("\n".join(["a,b,letter,y", *rows, ""]))
    names = {"head.weight": (10, 64), "head.bias": (10,)}
    tensors = {
        name: torch.from_numpy(draw.normal(size=size).astype(np.float32)) for name, size in names.items()
    }
    save_file(tensors, folder / "linear.safetensors")
    for number in range(48):
        kind = folder / "pictures" / ("dark", "light")[number % 2]
        kind.mkdir(parents=True, exist_ok=True)
        pixels = draw.integers(0, 128, size=(32, 32, 3)) + 127 * (number % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(kind / f"{number}.png")
