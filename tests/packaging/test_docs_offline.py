"""What docs/offline.md and docs/jetson.md name exists: files, options, commands, messages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from wheelhouse import _parser

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
OFFLINE = (DOCS / "offline.md").read_text()
JETSON = (DOCS / "jetson.md").read_text()


@pytest.mark.parametrize("text", [OFFLINE, JETSON], ids=["offline", "jetson"])
def test_links_and_paths_lead_to_files(text: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert target.startswith("http") or (DOCS / target).exists(), target
    for path in re.findall(r"(?:packaging|docker)/[\w./]+\w", text):
        assert (ROOT / path).exists(), path


def test_page_of_the_folder_names_what_is_in_it() -> None:
    template = (ROOT / "packaging" / "offline" / "README.md").read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", template):
        assert (ROOT / target).exists(), target


def test_every_option_is_documented() -> None:
    options = {word for action in _parser()._actions for word in action.option_strings} - {"-h", "--help"}
    assert {word for word in options if f"`{word}" not in OFFLINE} == set()


def test_messages_that_the_page_explains_are_those_of_the_scripts() -> None:
    scripts = "".join((ROOT / "packaging" / "offline" / name).read_text() for name in ("install.sh", "verify.sh"))
    generic = re.sub(r"2\.\$\w+|\$\w+|\d+\.\d+|x86_64|aarch64|python3", "_", scripts)
    messages = re.findall(r"^\| `([^`]+)` \|", OFFLINE.split("| it says |")[1].split("\n\n")[0], re.M)
    assert len(messages) == 5
    for message in messages:
        assert re.sub(r"\d+\.\d+|x86_64|aarch64|python3", "_", message) in generic, message


def test_page_says_that_no_device_was_at_hand() -> None:
    assert "Nothing on this page was run on a Jetson" in JETSON


def test_make_knows_the_commands() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for name in ("wheelhouse", "test-wheelhouse"):
        assert re.search(rf"^{name}: .*##", makefile, re.M)
    for variable in re.findall(r"\b([A-Z_]+)=", " ".join(re.findall(r"make wheelhouse [^\n]*", OFFLINE + JETSON))):
        assert re.search(rf"^{variable} [?:]=", makefile, re.M), variable
