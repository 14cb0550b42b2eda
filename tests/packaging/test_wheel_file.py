"""Wheels read as files, against pip's own rules: markers of another machine, tags, what is missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from wheel_file import Target, WheelFile, WheelhouseError, closure

HERE = Target("3.11", "x86_64", 35)
JETSON = Target("3.10", "aarch64", 35)

MakeWheel = Callable[..., Path]


@pytest.mark.parametrize(
    ("tag", "on_x86", "on_jetson"),
    [
        ("py3-none-any", True, True),
        ("cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64", True, False),
        ("cp311-cp311-manylinux2014_x86_64", True, False),
        ("cp311-cp311-manylinux1_x86_64.manylinux_2_5_x86_64", True, False),
        ("cp311-cp311-manylinux1_x86_64", True, False),
        ("cp311-cp311-manylinux_2_36_x86_64", False, False),
        ("cp310-cp310-manylinux_2_35_aarch64", False, True),
        ("cp310-abi3-manylinux_2_28_aarch64", False, True),
        ("cp312-cp312-manylinux_2_28_x86_64", False, False),
        ("cp310-abi3-manylinux_2_28_x86_64", True, False),
        ("cp311-cp311-win_amd64", False, False),
        ("cp311-cp311-linux_x86_64", False, False),
    ],
)
def test_takes_what_pip_would_install(make_wheel: MakeWheel, tag: str, on_x86: bool, on_jetson: bool) -> None:
    tags = WheelFile.read(make_wheel("thing", tag=tag)).tags
    assert (HERE.takes(tags), JETSON.takes(tags)) == (on_x86, on_jetson)


def test_oldest_glibc_is_that_of_the_oldest_tag(make_wheel: MakeWheel) -> None:
    both = "cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64"
    assert WheelFile.read(make_wheel("one", tag=both)).glibc == 27
    assert WheelFile.read(make_wheel("two")).glibc == 5


def test_markers_are_those_of_the_target(make_wheel: MakeWheel) -> None:
    wheel = WheelFile.read(
        make_wheel(
            "thing",
            metadata=(
                "Provides-Extra: gpu\n"
                "Requires-Dist: old; python_version < '3.11'\n"
                "Requires-Dist: desk; platform_machine == 'x86_64'\n"
                "Requires-Dist: pycuda>=2024.1; extra == 'gpu'\n"
                "Requires-Dist: tensorrt; extra == 'gpu' and platform_machine == 'x86_64'\n"
                "Requires-Dist: always>=2"
            ),
        )
    )
    assert [str(need) for need in wheel.requirements(HERE)] == ["desk", "always>=2"]
    assert [str(need) for need in wheel.requirements(JETSON)] == ["old", "always>=2"]
    assert [need.name for need in wheel.requirements(JETSON, ["gpu"])] == ["old", "pycuda", "always"]
    with pytest.raises(WheelhouseError, match=r"thing has no extra dicom\. It has: gpu\."):
        list(wheel.requirements(HERE, ["dicom"]))


def test_closure_follows_and_names_what_is_missing(make_wheel: MakeWheel) -> None:
    wheels = [
        WheelFile.read(make_wheel("First", metadata="Requires-Dist: second_one[more]>=2")),
        WheelFile.read(
            make_wheel(
                "second_one",
                "2.1",
                metadata="Provides-Extra: more\nRequires-Dist: third; extra == 'more'\nRequires-Dist: First",
            )
        ),
        WheelFile.read(make_wheel("third", tag="cp312-cp312-manylinux_2_28_x86_64")),
        WheelFile.read(make_wheel("unneeded")),
    ]
    needed, missing = closure([Requirement("first")], wheels, HERE)
    assert [wheel.name for wheel in needed] == ["first", "second-one"]
    assert [str(need) for need in missing] == ["third"], "its wheel is for another Python"
    assert closure([Requirement("first>=2")], wheels, HERE) == ([], [Requirement("first>=2")])


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x05\x06" + bytes(18)])
def test_damaged_wheel_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "thing-1.0-py3-none-any.whl"
    path.write_bytes(content)
    with pytest.raises(WheelhouseError, match=r"thing-1\.0-py3-none-any\.whl is not a wheel"):
        WheelFile.read(path)
