"""What Hydra, OmegaConf and the schema say of a mistake, in one line with a remedy."""

import re
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from pipelines.config.hydra_errors import explain
from pipelines.config.schema import parse
from pipelines.core.errors import UserError
from pipelines.core.paths import require_folder, require_places

CONF = str(Path(__file__).resolve().parents[2] / "conf")


def line_of(*overrides: str) -> str:
    try:
        with initialize_config_dir(CONF, version_base="1.3"):
            config = compose("config", overrides=list(overrides))
        parse(OmegaConf.to_container(config, resolve=True))  # type: ignore[arg-type]
    except Exception as error:
        line = explain(error, CONF)
        assert "\n" not in line
        return line
    raise AssertionError("nothing was wrong")


@pytest.mark.parametrize(
    ("overrides", "pattern"),
    [
        (["hydra/launcher=slurm"], "hydra/launcher=slurm is unknown; choose basic, joblib"),
        (["pipelin=sgd"], "pipelin; did you mean pipeline?"),
        (["learning_rate=1"], "learning_rate; did you mean pipeline.learning_rate?"),
        (["pipeline=dp_sgd", "privacy.epsilo=1"], "privacy.epsilo; did you mean privacy.epsilon?"),
        (["pipeline.lr=1"], "pipeline.lr; .*learning_rate"),
        (["privacy.epsilon.x=3"], "privacy.epsilon.x; .* write privacy.epsilon=VALUE"),
        (["hydra.launcher.jobs=2"], "hydra.launcher.jobs; .*--cfg hydra"),
        (["~foo"], "unknown key foo"),
        (["~seed"], "^seed is missing; write seed=VALUE, or drop ~seed$"),
        (["~privacy.delta"], "^privacy.delta is missing; write privacy.delta=VALUE, or drop ~privacy.delta$"),
        (["+foo=1"], "foo=1: unknown key; drop it"),
        (["+privacy.eps=3"], "privacy.eps=3: unknown key; drop it"),
        (["dataset=npz", "dataset.file=/a/${x}.npz"], r"^dataset.file: .*'x'.*oc.env:VARIABLE"),
        (["pipeline.epochs=${oc.env:NOPE}"], "^pipeline.epochs: .*NOPE"),
        (["pipeline.epochs=${foo:1}"], "^pipeline.epochs: .*foo"),
        (["pipeline=dp_sgd", "privacy.epsilon=true"], "^privacy.epsilon=True: .* number"),
        (["seed=true"], "^seed=True: .* number"),
        (["seed=null"], "^seed=None: .* integer"),
        (["seed=[0,1]"], r"^seed=\[0, 1\]: .* integer"),
        (["pipeline=dp_sgd", "privacy.epsilon=1..3"], "^privacy.epsilon=1..3: .* number"),
        (["pipeline=dp_sgd", "privacy.epsilon=inf"], "^privacy.epsilon=inf: .* finite"),
        (["pipeline=dp_sgd", "privacy.epsilon=nan"], "^privacy.epsilon=nan: "),
        (["device=gpu"], "^device=gpu: .*'cuda'"),
        (
            ["privacy.restart_every=5"],
            "^privacy.restart_every=5: privacy=fixed has no such key; privacy=tree has; drop it$",
        ),
        (
            ["model=cnn", "model.widths=[64]"],
            r"^model.widths=\[64\]: model=cnn has no such key; model=mlp has; drop it$",
        ),
        (
            ["pipeline=fed_avg", "pipeline.epochs=3"],
            "pipeline=fed_avg has .* pipeline=dp_sgd, dp_sgd_users and sgd have;",
        ),
        (
            ["+partition.alpha=1"],
            "^partition.alpha=1: partition=auto has no such key; partition=dirichlet has; drop it, or",
        ),
        (["model=mlp", "model.widths=64"], r"^model.widths=64: .*model.widths=\[64\]"),
    ],
)
def test_one_line_names_the_key_and_the_remedy(
    overrides: list[str], pattern: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["run", *overrides])
    assert re.search(pattern, line_of(*overrides))


def test_a_working_directory_that_is_gone_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(UserError, match="working directory is gone"):
        require_places()
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("folder", ["/proc/nope", "/dev/null"])
def test_a_scratch_folder_that_cannot_be_made_is_named(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", folder)
    with pytest.raises(UserError, match=rf"TMPDIR={folder} .*; set TMPDIR"):
        require_places()


def test_a_scratch_folder_that_is_missing_is_made(tmp_path: Path) -> None:
    require_folder("TMPDIR", str(tmp_path / "new" / "folder"))
    assert (tmp_path / "new" / "folder").is_dir()
