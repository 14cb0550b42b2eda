"""What the README shows: its Python runs, its tables are those of the results, its files exist."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()


def code_blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.S)


def test_python_example_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = code_blocks("python")
    assert len(example.strip().splitlines()) <= 12
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(example, "README.md", "exec"), names)
    assert (tmp_path / "out" / "report.html").stat().st_size > 10_000
    assert names["fused"].dtype == "float32"  # type: ignore[attr-defined]


def test_set_up_is_two_commands() -> None:
    assert code_blocks("sh")[0].split("\n")[:2] == ["make demo", "make test"]


def test_tables_are_made_from_the_committed_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    tables = importlib.import_module("tables")
    assert tables.render(TEXT) == TEXT, "run: python benchmarks/tables.py README.md"
    assert "Not measured yet" not in TEXT


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)#]+)\)", TEXT))))
def test_links_lead_to_files(target: str) -> None:
    assert target.startswith("http") or (ROOT / target).exists()
