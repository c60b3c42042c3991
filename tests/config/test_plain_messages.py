"""No text of Hydra's or OmegaConf's reaches the user: every override and every recipe composes, or is refused in our words."""

from __future__ import annotations

import re

import pytest

from dltrain.config.compose import compose, open_catalogue, open_hydra
from dltrain.config.validation import validate
from dltrain.errors import UserError

FOREIGN = re.compile(
    r"full_key|object_type|provider=|Could not (override|append|delete|find)|Error merging|Merge error|defaults list, "
    r"|In '[\w/]+'|[Ii]n the defaults list|not in struct|could not be converted|Config group|ConfigKeyError|hydra\.cc"
)
# these once showed text of Hydra's
RAW = [
    "hydra.foo=3",
    "hydra.job.num=abc",
    "hydra=3",
    "hydra=none",
    "hydra/help=foo",
    "hydra/foo=bar",
    "hydra.mode=foo",
    "~hydra",
    "~hydra.job",
    "~hydra.foo",
    "hydra.callbacks.a=3",
    "hydra.output_subdir=[1]",
    "~sweep.trials",
    "model.hidden={a:1}",
    "tags={a:1}",
    "trust=3",
    "hydra.job_logging=3",
    "hydra.job.env_set.A=3",
    "notes=a\nb",
    "seed=${..lr}",
]
OVERRIDES = [
    'experiment=[base,o]', 'experiment=[o,base]', 'experiment=null', 'experiment=', 'debug=fast', 'debug=[fast]',
    '+hydra.foo=3', 'hydra.verbose=[x]', 'hydra.verbose=3', 'hydra.job.id=a',
    'hydra.help.header=3', 'hydra.run=3', 'hydra.run.dir=${lr}', 'hydra/job_logging=foo',
    'hydra/job_logging=none', 'hydra/output=default', '+hydra/foo=bar',
    'hydra/callbacks=foo', 'hydra.mode=RUN', 'hydra.overrides.task=[a]', 'hydra.runtime.cwd=3',
    '~hydra/help', '+hydra.callbacks.a=3',
    '+hydra.callbacks.a._target_=os.system', 'hydra.sweep.dir=3', 'hydra.job.config.override_dirname.kv_sep=3',
    'hydra.env=3', '~sweep', '~sweep=grid', '~sweep.foo',
    '~regularization', '~regularization.l2', '~optimizer=adam', '~experiment', '~model.hidden=[3]',
    '~parameters.lr_scale.x', '~parameters.lr_scale', '+a.b=1', '++a.b=1', '+lr=1', '++lr=0.5', '++lr.x=1',
    '+lr.x=1', 'lr.x=1', 'optimizer.lr.x=1', 'optimizer.betas.0=1', 'optimizer.betas[0]=1', '+optimizer=sgd',
    'optimizer/adam=1', 'optimizer/foo=adam', 'sweep/backend=local', 'sweep.backend=local', '+sweep.backend.foo=1',
    'sweep.backend.foo=1', 'sweep.backend=foo', 'sweep/backend=foo', 'sweep=foo', 'sweep.space=3',
    'sweep.space={a:3}', '+sweep.space.lr=[1]', 'sweep.space.lr=[1]', 'model=${optimizer}', 'optimizer=${lr}',
    'lr=${optimizer}', 'lr=${model}', 'lr=${nothing}', 'lr=${hydra:job.num}', 'lr=${hydra:foo}',
    'lr=${hydra.job.num}', 'lr=${now:%Y}', 'lr=${oc.env:HOME}', 'lr=${oc.decode:1}', 'lr=${oc.create:{a:1}}',
    'lr=${oc.select:seed}', 'lr=${oc.dict.keys:model}', 'seed=${.lr}', 'seed=${lr', 'seed=$lr',
    'notes=${lr}', 'notes=${a', 'notes=\\${a}', 'lr=???', 'optimizer=???', 'model.hidden=???', 'dataset.path=???',
    'model={a:1}', 'model=3', 'model=1.5', 'model=true', 'model=[]', 'model=[mlp]', 'optimizer={}',
    'regularization={l2:{strength:1}}', 'regularization=[[l2]]', 'regularization=[l2,l2]', 'regularization=[{l2:1}]',
    'regularization=3', 'regularization=true', 'regularization=[1]', 'wrap=sam',
    'optimizer.betas={a:1}', 'lr={a:1}', 'lr=[1]', 'log=3', 'log={every_steps:3}', 'log=null',
    'evaluation={}', 'checkpoint=[1]', 'dataset=', 'lr=', 'lr= ', 'name=', "name=''", '=3', 'a', '', ' ', 'lr==3',
    'lr=3=4', 'optimizer@=sgd', 'optimizer@a:b=sgd', '@=3', '+=3', '~', '~=', '+', 'lr=a:b', 'lr={a:b', 'lr="a',
    'lr=a b', 'lr=a#b', 'notes=a: b', 'lr=glob(*)', 'optimizer=glob(ad*)', 'optimizer=glob(zz*)', 'lr=choice(1,2)',
    'lr=range(1,3)', 'lr=interval(1,2)', 'lr=sort(1,2)', 'lr=shuffle(1,2)', 'lr=str(1)', 'lr=int(1.5)',
    'lr=float(a)', 'lr=int(a)', 'lr=bool(3)', 'lr=json_str({a:1})', 'lr=range(1)', 'lr=range(a,b)', 'lr=choice()',
    'lr=interval(a,b)', 'lr=sort(a,1)', 'lr=tag(a,1)', 'lr=extend_list(1)', 'tags=extend_list(1,2)',
    'regularization=extend_list(l2)', 'lr=extend_list(a', 'tags=extend_list()', 'tags=remove(a)',
    'parameters.lr_scale.head=3', 'parameters.lr_scale=3', 'parameters.lr_scale={head:3}',
    'parameters.lr_scale.a.b=3', '+parameters.lr_scale.a=3', 'parameters.lr_scale.*=3',
    "parameters.lr_scale={'a.*':3}", 'parameters={}', 'parameters=null', 'model._target_=x', '+model._partial_=true',
    'model._target_=null', '+model._args_=[1]', '+regularization.l2._target_=x.y',
    '+regularization.foo._target_=x.y', 'regularization.l2=3', 'regularization.l2.x=3', '+regularization.l2={}',
    'sweep.trials=abc', 'sweep.zip=3', 'early_stopping.metric=[1]', 'trust=[1]', 'trust=a', '1=2',
    'a.1=2', 'lr.=2', '.lr=2', 'a..b=3', 'model..hidden=[3]', '-lr=3', 'LR=3', 'Optimizer=sgd', 'optimizer=Sgd',
    'optimizer=SGD', 'lr\n=3', 'lr=\n3', 'lr=\t3', 'lr=é', 'modèle=3', 'notes=é', 'notes="é"',
    'tags=[é]', 'seed=99999999999999999999', 'seed=1e3', 'lr=1e-400', 'lr=1_0', 'lr=0x10', 'lr=0o7', 'lr=+1',
    'lr=-.5', 'lr=.5', 'lr=5.', 'lr=NaN', 'lr=1e999', 'batch_size=64.0', 'quiet=TRUE', 'quiet=1', 'device=cuda:99',
    'output=', 'output=/', 'output=..', 'name=a/b', 'name=..', 'name=/', 'hydra.searchpath=[pkg://a]',
    'hydra.searchpath=3', 'hydra.launcher=3', 'hydra/launcher=basic',
    'hydra.hydra_logging.a=3', '+hydra.job.env_set.A=3', 'hydra.job.env_copy=[A]',
]  # fmt: skip
RECIPES = {
    "o": "defaults:\n  - override /optimizer: nesterov\n  - base\n", "base": "epochs: 3\n",
    "selfself": "defaults:\n  - _self_\n  - _self_\n",
    "override_self": "defaults:\n  - override /optimizer: sgd\n  - base\n  - _self_\n  - override /schedule: cosine\n",
    "opt": "defaults:\n  - optional override /optimizer: adamm\n",
    "opt2": "defaults:\n  - optional /optimizer: adam\n", "opt3": "defaults:\n  - optional nothing\n",
    "opt4": "defaults:\n  - optional override /optimzer: adam\n",
    "interp": "defaults:\n  - override /optimizer: ${model}\n", "inter2": "lr: ${hydra:runtime.cwd}\n",
    "node": "model: ${optimizer}\n", "nn": "optimizer:\n  lr: {a: 1}\n", "hy": "hydra:\n  callbacks:\n    a: 3\n",
    "hy2": "hydra:\n  callbacks: 3\n", "hy3": "hydra: 3\n", "num": "1: 2\n", "nul": "null: 2\n", "keyb": "true: 2\n",
    "lst": "? [a]\n: 2\n", "dt": "lr: 2020-01-01\n", "tag": "lr: !!python/object:os.x 1\n",
    "bin": "lr: !!binary aGVsbG8=\n", "set": "tags: !!set {a}\n", "deep": "model:\n  a:\n    b: 1\n",
    "lognull": "log: null\n", "logn": "log: 3\n", "evn": "evaluation: [1]\n", "sw": "sweep: 3\n",
    "sw2": "sweep:\n space: 3\n", "sw3": "sweep:\n backend: 3\n", "mx": "optimizer: ???\n", "merge": "<<: {lr: 1}\n",
    "par": "parameters:\n  lr_scale: 3\n", "par2": "parameters:\n  lr_scale:\n    head: {x: 1}\n",
    "strs": "model: ''\n", "regs": "regularization: {l2: null}\n", "cond": "optimizer@x: sgd\n", "un": "é: 1\n",
}  # fmt: skip


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("recipes")
        (folder / "conf" / "experiment").mkdir(parents=True)
        for name, text in RECIPES.items():
            (folder / "conf" / "experiment" / f"{name}.yaml").write_text(text, encoding="utf-8")
        patch.chdir(folder)
        catalogue = open_catalogue()
        yield catalogue, open_hydra(catalogue)


def refusal(opened, typed: str) -> str:
    try:
        validate(compose([typed], *opened))
    except UserError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    "typed",
    [
        *RAW,
        *(f"experiment={name}" for name in RECIPES),
        *(pytest.param(t, marks=pytest.mark.ci) for t in OVERRIDES),
    ],
)
def test_it_composes_or_is_refused_in_plain_words(opened, typed):
    message = refusal(opened, typed)
    assert not FOREIGN.search(message), message
    assert len(message.splitlines()) <= 3


def test_the_order_of_a_defaults_list_does_not_matter(workdir):
    """Entries with `override` may stand anywhere, before and after the recipes on which a recipe builds."""
    folder = workdir / "conf" / "experiment"
    folder.mkdir(parents=True)
    (folder / "base.yaml").write_text("defaults:\n  - override /schedule: linear\nepochs: 3\nlr: 0.5\n")
    entries = ["base", "_self_", "override /optimizer: nesterov", "override /schedule: cosine"]
    found = []
    for i, order in enumerate([[0, 1, 2, 3], [2, 0, 1, 3], [3, 2, 0, 1], [2, 3, 0, 1], [0, 2, 1, 3]]):
        text = "".join(f"  - {entries[k]}\n" for k in order)
        (folder / f"r{i}.yaml").write_text(f"defaults:\n{text}lr: 0.25\n")
        catalogue = open_catalogue()
        config = validate(compose([f"experiment=r{i}"], catalogue, open_hydra(catalogue)))
        found.append((config.words["optimizer"], config.words["schedule"], config.epochs, config.lr))
    assert set(found) == {("nesterov", "cosine", 3, 0.25)}
