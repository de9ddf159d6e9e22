"""Prints what became of the mutants when the suite ends."""

import pytest
from tabulate import tabulate


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One row a mutant; nothing where none ran."""
    results: dict[str, tuple[str, str]] = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, value in getattr(report, "user_properties", ()):
                if name == "mutant":
                    mutant, check, result = value
                    results[mutant] = (check, result)
    if results:
        terminalreporter.section("mutants")
        rows = sorted((check, mutant, result) for mutant, (check, result) in results.items())
        terminalreporter.write_line(tabulate(rows, headers=("check", "mutant", "result")))
        caught = sum(result == "caught" for _, result in results.values())
        terminalreporter.write_line(f"{caught} of {len(results)} mutants caught")
