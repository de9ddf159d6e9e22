"""What people mistype: each mistake ends in one line that names it, with a remedy that works when it is pasted."""

import shlex
from pathlib import Path

import pytest

from pipelines.config.overrides import arranged
from pipelines.core.errors import UserError

CONF = str(Path(__file__).resolve().parents[2] / "conf")
MISTAKES = [
    # arguments, what the line names, what to write instead; None where there is nothing to paste
    ("pipeline=sdg", "pipeline=sdg", "pipeline=sgd"),
    ("pipeline=SGD", "pipeline=SGD", "dp_sgd"),
    ("experiment=smok", "experiment=smok", "experiment=smoke"),
    ("pipeline=sgd.yaml", "pipeline=sgd.yaml", "pipeline=sgd"),
    ("pipeline=conf/pipeline/sgd.yaml", "pipeline=conf/pipeline/sgd.yaml", "pipeline=sgd"),
    ("-m pipeline=sgd,sdg", "pipeline=sdg", "pipeline=sgd"),
    ("pipeline=null", "pipeline=null", "dp_sgd"),
    ("experiment=null", "experiment=null", "leave experiment out"),
    ("privacy=3", "privacy=3", "adaptive"),
    ("pipeline=[sgd,dp_sgd]", "pipeline=[sgd,dp_sgd]", "dp_sgd"),
    ("'pipeline={name: sgd}'", "pipeline={name: sgd}", "dp_sgd"),
    ("pipeline.name=dp_sgd", "pipeline.name=dp_sgd", "pipeline=dp_sgd"),
    ("+experiment=smoke", "+experiment=smoke", "experiment=smoke"),
    ("++dataset=mnist", "++dataset=mnist", "dataset=mnist"),
    ("~pipeline", "~pipeline", "pipeline=OPTION"),
    ("~tracking tracking.uri=x", "~tracking", "tracking=OPTION"),
    ("sgd", "sgd", "pipeline=sgd"),
    ("none", "none", "audit=none or features=none"),
    ("pipeline", "pipeline", "pipeline=OPTION"),
    ("pipeline/sgd", "pipeline/sgd", "pipeline=sgd"),
    ("pipeline:sgd", "pipeline:sgd", "pipeline=sgd"),
    ("'pipeline: sgd'", "pipeline: sgd", "pipeline=sgd"),
    ("pipeline:=sgd", "pipeline:=sgd", "pipeline=sgd"),
    ("seed==1", "seed==1", "seed=1"),
    ("pipeline = sgd", "pipeline = sgd", "pipeline=sgd"),
    ("pipeline= sgd", "pipeline= sgd", "pipeline=sgd"),
    ("pipeline =sgd", "pipeline =sgd", "pipeline=sgd"),
    ("seed= -1", "seed= -1", "seed=-1"),
    ("override pipeline=sgd", "override", "key=value"),
    ("-pipeline=sgd", "-pipeline=sgd", "pipeline=sgd"),
    ("--pipeline=sgd", "--pipeline=sgd", "pipeline=sgd"),
    ("--pipeline sgd", "--pipeline", "pipeline=sgd"),
    ("--multrun", "--multrun", "--multirun"),
    ("--cfg jobs", "--cfg jobs", "job, hydra, all"),
    ("--info everything=1 --cfg", "--cfg", "job, hydra, all"),
    ("--experimental-rerun x", "--experimental-rerun", "overrides.yaml"),
    ("seed=1,2", "seed=1,2", "python -m pipelines.run -m"),
    ("pipeline=dp_sgd,sgd", "pipeline=dp_sgd,sgd", "python -m pipelines.run -m"),
    ("'seed=choice(1,2)'", "seed=choice(1,2)", "python -m pipelines.run -m"),
    ("privacy.epsilon=1,5", "privacy.epsilon=1,5", "privacy.epsilon=1.5"),
    ("model.widths=64,32", "model.widths=64,32", "'model.widths=[64,32]'"),
    ("dataset.file=/data/a,b.npz", "/data/a,b.npz", "'dataset.file=\"/data/a,b.npz\"'"),
    ("-m 'privacy.epsilon=interval(1,3)'", "interval(1,3)", "privacy.epsilon=1,3"),
    ("-m 'privacy.epsilon=tag(a,interval(1,3))'", "interval(1,3)", "privacy.epsilon=1,3"),
    ("-m 'privacy.epsilon=range(3,1)'", "range(3,1)", "privacy.epsilon=1,2"),
    ("-m 'privacy.epsilon=glob(*)'", "glob(*)", "privacy.epsilon=1,2"),
    ("hydra.run.dir=/proc/nope", "hydra.run.dir=/proc/nope", "hydra.run.dir"),
    ("-m hydra.sweep.dir=/proc/nope", "hydra.sweep.dir=/proc/nope", "hydra.sweep.dir"),
]  # fmt: skip
PASTED = [
    # a value as it was typed, and the one that was meant
    ("dataset.file=/data/x=1,y=2/a.npz", "/data/x=1,y=2/a.npz"),
    ("dataset.file=/data/a#1.npz", "/data/a#1.npz"),
    ("dataset.file=/data/a&b.npz", "/data/a&b.npz"),
    ("dataset.file=/data/(a).npz", "/data/(a).npz"),
    ("dataset.file=/data/a[1].npz", "/data/a[1].npz"),
    ("dataset.file=/data/{a}.npz", "/data/{a}.npz"),
    ("dataset.file=/data/it's.npz", "/data/it's.npz"),
    ('dataset.file=/data/a"b#.npz', '/data/a"b#.npz'),
    ("dataset.file=/data/é.npz", "/data/é.npz"),
    ("dataset.file=~/a.npz", str(Path("~/a.npz").expanduser())),
    ("tracking.uri=sqlite:////tmp/a=b.db", "sqlite:////tmp/a=b.db"),
    ("dataset.folder='abc", "abc"),
    ('dataset.folder="abc', "abc"),
    ("model.widths=[64,32", [64, 32]),
    ("model.widths=(64,32)", [64, 32]),
]


def mistake(*arguments: str) -> str:
    with pytest.raises(UserError) as error:
        arranged(arguments, CONF)
    line = str(error.value)
    assert "\n" not in line
    return line


@pytest.mark.parametrize(("command", "named", "remedy"), MISTAKES)
def test_a_mistake_is_named_with_its_remedy(command: str, named: str, remedy: str) -> None:
    line = mistake(*shlex.split(command))
    assert line.startswith(named) or named in line
    assert remedy in line.partition(named)[2]


@pytest.mark.parametrize(("typed", "meant"), PASTED)
def test_a_remedy_works_when_it_is_pasted(typed: str, meant: object) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    (pasted,) = shlex.split(mistake(typed).rpartition("; write ")[2])
    assert arranged([pasted], CONF) == [pasted]
    assert OverridesParser.create().parse_override(pasted).value() == meant


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("seed=1 -m pipeline=sgd", "-m seed=1 pipeline=sgd"),
        ("-m seed=1,2 -m", "-m -m seed=1,2"),
        ("seed=1 --cfg=job", "--cfg job seed=1"),
        ("--info seed=1", "--info all seed=1"),
        ("-sc install=bash", "-sc install=bash"),
        ("seed=-1 dataset.file=", "seed=-1 dataset.file="),
        (
            "~tuning +hydra.job.env_set.A=1 hydra/launcher=joblib",
            "~tuning +hydra.job.env_set.A=1 hydra/launcher=joblib",
        ),
        ("-m pipeline=glob(dp*) privacy.epsilon=range(1,3)", "-m pipeline=glob(dp*) privacy.epsilon=range(1,3)"),
        ("-cd /tmp dataset=mine", "-cd /tmp dataset=mine"),
    ],
)
def test_options_go_first_wherever_they_stand(given: str, read: str) -> None:
    assert arranged(given.split(), CONF) == read.split()
