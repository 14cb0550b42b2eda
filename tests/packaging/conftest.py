"""Tiny wheels, and the folder of packaging/ on the path: its scripts import one another by their file names."""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "packaging"))

MIT = "MIT License\n\nPermission is hereby granted, free of charge, ...\n"


@pytest.fixture
def make_wheel(tmp_path: Path) -> Callable[..., Path]:
    """Give a function that writes a wheel which pip installs: one module, metadata, and a licence unless told."""

    def make(
        name: str,
        version: str = "1.0",
        *,
        tag: str = "py3-none-any",
        metadata: str = "License-Expression: MIT",
        files: dict[str, str] | None = None,
        folder: Path | None = None,
    ) -> Path:
        info = f"{name}-{version}.dist-info"
        contents = {
            f"{name}.py": f"version = {version!r}\n",
            f"{info}/METADATA": f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n{metadata}\n",
            f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: {tag}\n",
            **(
                {f"{info}/licenses/LICENSE": MIT}
                if files is None
                else {f"{info}/{key}": text for key, text in files.items()}
            ),
        }
        record = "".join(f"{path},,\n" for path in (*contents, f"{info}/RECORD"))
        path = (folder or tmp_path) / f"{name}-{version}-{tag}.whl"
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(path, "w") as archive:
            for inside, text in {**contents, f"{info}/RECORD": record}.items():
                archive.writestr(inside, text)
        return path

    return make
