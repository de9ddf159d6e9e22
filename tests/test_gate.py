"""The gate, the nightly workflow and make frontier run every recorded recipe, and keep what they leave behind."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.core.paths import REPOSITORY
from pipelines.recipes.recipe import recipe_names

RECIPES = "$(dirname experiments/*/record.json)"


def steps(workflow: str) -> list[dict[str, Any]]:
    content = yaml.safe_load((REPOSITORY / ".github" / "workflows" / workflow).read_text())
    (job,) = content["jobs"].values()
    return job["steps"]


def test_every_push_runs_quick_forms_and_uploads_results() -> None:
    workflow, gate = steps("ci.yml"), (REPOSITORY / ".ci" / "run").read_text()
    assert ".ci/run" in [step.get("run") for step in workflow]
    assert f'recipes="{RECIPES}"' in gate
    assert "pipelines.reproduce $recipes --quick" in gate
    assert 'cp -r mlflow.db mlartifacts outputs/frontier "$RESULTS"' in gate
    (upload,) = [step for step in workflow if step.get("uses", "").startswith("actions/upload-artifact")]
    assert (upload["if"], upload["with"]["path"]) == ("always()", "results")


def test_every_night_runs_full_forms_and_uploads_results() -> None:
    workflow = steps("nightly.yml")
    (run,) = [step["run"] for step in workflow if "reproduce" in step.get("run", "")]
    assert RECIPES in run
    assert "--quick" not in run
    (upload,) = [step for step in workflow if step.get("uses", "").startswith("actions/upload-artifact")]
    assert upload["if"] == "always()"
    assert upload["with"]["path"].split() == ["mlflow.db", "mlartifacts", "outputs/frontier"]


def test_the_shell_finds_the_recipes_that_are_recorded() -> None:
    done = subprocess.run(
        ["bash", "-c", f"echo {RECIPES}"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )  # fmt: skip
    recorded = [name for name in recipe_names() if (REPOSITORY / "experiments" / name / "record.json").exists()]
    assert sorted(done.stdout.split()) == [f"experiments/{name}" for name in recorded]


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["RECIPE=a"], "pipelines.reproduce experiments/a --uri"),
        (["RECIPE=a", "FORM=quick"], "pipelines.reproduce experiments/a --quick --uri"),
        (["RECIPE=a", "FORM=check"], "pipelines.reproduce experiments/a --uri"),
        (["RECIPE=a", "FORM=quick record"], "pipelines.reproduce experiments/a --quick --record --uri"),
    ],
)
def test_make_frontier_runs_one_recipe(arguments: list[str], command: str) -> None:
    # Neither sets up an environment nor trains: -o takes the environment for complete, -n only prints.
    done = subprocess.run(
        ["make", "-n", "-o", ".venv/.complete", "frontier", *arguments],
        cwd=REPOSITORY, capture_output=True, text=True, check=True, env=os.environ | {"MAKEFLAGS": ""},
    )  # fmt: skip
    assert command in " ".join(done.stdout.split())


def test_links_of_documents_resolve() -> None:
    folders = ("conf", "docs", "experiments", "pipelines", "tests")
    documents = [*REPOSITORY.glob("*.md"), *(path for name in folders for path in (REPOSITORY / name).rglob("*.md"))]
    links = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)")
    broken = [
        (str(document.relative_to(REPOSITORY)), link)
        for document in documents
        for link in links.findall(document.read_text(encoding="utf-8"))
        if not (document.parent / link).exists()
    ]
    assert broken == []


def test_gate_is_a_shell_script_without_mistakes_of_syntax() -> None:
    subprocess.run(["bash", "-n", str(Path(".ci", "run"))], cwd=REPOSITORY, check=True)
