"""Licences: read from metadata of every form that is in use, refused by name where they are missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from licences import Notice, check_notices, wheel_notice, write_notices
from wheel_file import WheelFile, WheelhouseError

MakeWheel = Callable[..., Path]


@pytest.mark.parametrize(
    ("metadata", "licence"),
    [
        ("License-Expression: BSD-3-Clause AND MIT", "BSD-3-Clause AND MIT"),
        ("License: MIT", "MIT"),
        ("License: OSI Approved :: Apache Software License", "Apache Software License"),
        ("Classifier: License :: OSI Approved :: BSD License", "BSD License"),
        ("License: a text\n        of many lines\nClassifier: License :: OSI Approved :: MIT License", "MIT License"),
        ("Classifier: Programming Language :: Python", ""),
    ],
)
def test_named_licence(make_wheel: MakeWheel, metadata: str, licence: str) -> None:
    assert wheel_notice(WheelFile.read(make_wheel("thing", metadata=metadata))).licence == licence


def test_texts_are_found_wherever_wheels_keep_them(make_wheel: MakeWheel) -> None:
    files = {
        "licenses/LICENSE.txt": "a",
        "licenses/licensing/onednn_third-party-programs.txt": "b",
        "COPYING": "c",
        "licenses/AUTHORS.md": "d",
        "licensing.py": "no text",
        "entry_points.txt": "no licence",
    }
    texts = wheel_notice(WheelFile.read(make_wheel("thing", files=files))).texts
    assert set(texts) == {"LICENSE.txt", "licensing/onednn_third-party-programs.txt", "COPYING", "AUTHORS.md"}
    assert texts["COPYING"] == b"c"


def test_missing_licences_are_all_named(make_wheel: MakeWheel) -> None:
    notices = [
        wheel_notice(WheelFile.read(make_wheel("good"))),
        wheel_notice(WheelFile.read(make_wheel("textless", files={}))),
        wheel_notice(WheelFile.read(make_wheel("nameless", metadata=""))),
        wheel_notice(WheelFile.read(make_wheel("neither", metadata="", files={}))),
    ]
    with pytest.raises(WheelhouseError) as caught:
        check_notices(notices)
    assert "good" not in str(caught.value)
    assert "textless 1.0 has not a licence text; nameless 1.0 has not a named licence" in str(caught.value)
    assert "neither 1.0 has not a named licence or a licence text" in str(caught.value)
    check_notices(notices, accepted=("textless", "nameless", "neither"))


def test_page_lists_every_part_and_links_to_its_texts(tmp_path: Path) -> None:
    there = Notice("thing", "1.0", "MIT", "https://example.org", {"LICENSE": b"text"})
    accepted = Notice("other", "2.0", "", "", {}, "compiled in")
    write_notices([there, accepted], tmp_path)
    assert (tmp_path / "thing-1.0" / "LICENSE").read_bytes() == b"text"
    page = (tmp_path / "README.md").read_text()
    assert "| thing | 1.0 | wheel | MIT | [1](thing-1.0/) | https://example.org |" in page
    assert "| other | 2.0 | compiled in | not given | none |  |" in page
