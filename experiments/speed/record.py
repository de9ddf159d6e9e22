"""The benchmark's record: results.csv, results.json, speed.png and the marked part of the README."""

from pathlib import Path

from experiments.speed.chapters import chapter
from experiments.speed.figure import speed_figure
from experiments.speed.results import Records, write_csv, write_json
from experiments.speed.subject import SECTIONS
from experiments.speed.table import origin_text, section_table, targets_table
from pipelines.recipes.record_readme import BLOCK

FOLDER = Path(__file__).resolve().parent
RESULTS, TABLE, FIGURE, README = "results.json", "results.csv", "speed.png", "README.md"
HEADINGS = {
    "federated": "A federated round", "central": "A step of central training", "scale": "Scale", "memory": "Memory",
    "around": "Around training",
}  # fmt: skip


def write_results(records: Records, folder: Path) -> list[Path]:
    """Writes the results and the figure into a folder and returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(records, folder / RESULTS)
    write_csv(records, folder / TABLE)
    speed_figure(records).savefig(folder / FIGURE, bbox_inches="tight")
    return [folder / name for name in (RESULTS, TABLE, FIGURE)]


def write_readme(records: Records, path: Path = FOLDER / README) -> None:
    """Writes the record between the README's two marks."""
    text = path.read_text(encoding="utf-8")
    path.write_text(BLOCK.sub(lambda _: markdown(records), text), encoding="utf-8")


def markdown(records: Records) -> str:
    """The record in Markdown: targets first, then each section with its origin."""
    parts = ["### Targets", targets_table(records, markdown=True)]
    origins = {section: origin_text(records[section].origin) for section in SECTIONS if section in records}
    for section in origins:
        built = chapter(section)
        parts += [f"### {HEADINGS[section]}", built.work, section_table(built, records[section], markdown=True)]
        # Sections of one run share their origin, which is then written once.
        if len(set(origins.values())) > 1:
            parts.append(origins[section])
    if len(set(origins.values())) == 1:
        parts += ["### Made by", next(iter(origins.values()))]
    return "\n\n".join(parts) + "\n"
