"""The bill of materials: valid by the schema of CycloneDX, complete, and the same bytes for the same folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timezone
from hashlib import sha256
from pathlib import Path

import pytest
from licences import Notice, wheel_notice
from sbom import check_sbom, write_sbom
from wheel_file import Target, WheelFile, WheelhouseError

MakeWheel = Callable[..., Path]


@pytest.fixture
def bill(make_wheel: MakeWheel, tmp_path: Path) -> Callable[[], Path]:
    """Give a function that writes the bill of a product, two wheels of which one needs the other, and a bundle."""
    first = WheelFile.read(
        make_wheel("First", metadata="License: BSD License\nRequires-Dist: second_one; python_version > '3'")
    )
    second = WheelFile.read(make_wheel("second_one", metadata="License-Expression: MIT OR Apache-2.0"))
    bundle = tmp_path / "net.zip"
    bundle.write_bytes(b"weights")
    product = Notice("rmr-sdk", "0.1.0", "Apache-2.0", "", {})
    parts = [wheel_notice(first), wheel_notice(second), Notice("net", "1.0.0", "Apache-2.0", "", {}, "bundle")]
    files = {"first": first.path, "second-one": second.path, "net": bundle}

    def write() -> Path:
        path = tmp_path / "sbom.cdx.json"
        when = datetime(2026, 1, 2, tzinfo=timezone.utc)
        write_sbom(path, product, parts, files, [first, second], Target("3.11", "x86_64", 35), when)
        return path

    return write


def test_every_part_with_licence_and_digest(bill: Callable[[], Path]) -> None:
    path = bill()
    written = json.loads(path.read_text())
    assert (written["bomFormat"], written["specVersion"]) == ("CycloneDX", "1.6")
    assert written["metadata"]["component"]["name"] == "rmr-sdk"
    parts = {part["name"]: part for part in written["components"]}
    assert set(parts) == {"first", "second-one", "net"}
    assert parts["net"]["type"] == "machine-learning-model"
    assert parts["net"]["hashes"] == [{"alg": "SHA-256", "content": sha256(b"weights").hexdigest()}]
    assert parts["first"]["licenses"][0]["license"]["name"] == "BSD License"
    assert parts["second-one"]["licenses"][0]["expression"] == "MIT OR Apache-2.0"
    assert parts["second-one"]["purl"] == "pkg:pypi/second-one@1.0"
    needs = {entry["ref"]: entry.get("dependsOn", []) for entry in written["dependencies"]}
    assert needs["first@1.0"] == ["second-one@1.0"]
    assert len(needs["rmr-sdk@0.1.0"]) == 3


def test_same_folder_same_bytes(bill: Callable[[], Path]) -> None:
    assert bill().read_bytes() == bill().read_bytes()


def test_broken_bill_is_refused(bill: Callable[[], Path]) -> None:
    text = bill().read_text()
    check_sbom(text)
    with pytest.raises(WheelhouseError, match=r"breaks the schema of CycloneDX 1\.6"):
        check_sbom(text.replace('"machine-learning-model"', '"network"'))
