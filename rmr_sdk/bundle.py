"""Bundles: a network with everything that is known about it, as a folder or as one zip file.

Owns where bundles are found, reading their files with every byte checked, and writing them so that nothing half-written
stays behind. Does not interpret the manifest (`rmr_sdk.manifest`) or run a graph (`rmr_sdk.engines`).
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TypeVar

import msgspec

from rmr_sdk.errors import BundleError, ChecksumError, EngineMismatchError, OutputError
from rmr_sdk.golden import GoldenTile, decode_golden
from rmr_sdk.manifest import MANIFEST_NAME, Artifact, GoldenFile, Manifest, decode_manifest, encode_manifest

MAX_MANIFEST_BYTES = 2**20
MAX_RATIO = 200
"""Most that a zip entry may grow when unpacked: weights and index tables stay far below."""

_File = TypeVar("_File", Artifact, GoldenFile)

_SHIPPED = Path(__file__).parent / "bundles"
_UNZIPPABLE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, RuntimeError, ValueError)


class Bundle:
    """An opened bundle; immutable, and safe from several threads.

    Files are read when asked for, and each read is checked against the manifest.

    Attributes:
        manifest: What the bundle says about itself.
        hash: sha256 of the manifest's bytes; identifies every file, since the manifest holds their hashes.
    """

    __slots__ = ("_source", "hash", "manifest")

    def __init__(self, source: _Source, data: bytes) -> None:
        self._source = source
        self.manifest: Manifest = decode_manifest(data)
        self.hash: str = hashlib.sha256(data).hexdigest()

    @classmethod
    def open(cls, name_or_path: str | os.PathLike[str]) -> Bundle:
        """Open a bundle and check its manifest.

        Args:
            name_or_path: Name of a bundle shipped with the package, or a folder, or a `.zip` file. A shipped name wins
                over a folder of the same name; write `./NAME` for the folder.

        Raises:
            BundleError: No such bundle, or neither a folder nor a zip file with a manifest at its top.
            ManifestError: The manifest breaks its schema.
        """
        source = _find(name_or_path)
        return cls(source, source.read(MANIFEST_NAME, MAX_MANIFEST_BYTES))

    def __repr__(self) -> str:
        """Show name, version and the start of the hash."""
        return f"Bundle({self.manifest.name} {self.manifest.version}, {self.hash[:12]})"

    def read(self, path: str) -> bytes:
        """Read one file that the manifest lists.

        Args:
            path: As in the manifest.

        Raises:
            BundleError: The manifest lists no such file, or the bundle does not hold it.
            ChecksumError: The file is not the one that the manifest describes.
        """
        for file in self.manifest.files:
            if file.path == path:
                data = self._source.read(path, file.size)
                found = hashlib.sha256(data).hexdigest()
                if found != file.sha256:
                    raise _changed(path, f"has sha256 {found[:12]}..., not {file.sha256[:12]}...")
                return data
        raise BundleError(f'Bundle "{self.manifest.name}" lists no file "{path}".', f"Listed: {self._listing()}.")

    def graph(self, precision: str) -> bytes:
        """Read the ONNX graph of a precision.

        Raises:
            EngineMismatchError: The bundle has none of that precision.
        """
        for artifact in self.manifest.artifacts:
            if artifact.kind == "onnx" and artifact.precision == precision:
                return self.read(artifact.path)
        found = ", ".join(self.manifest.onnx_precisions)
        raise EngineMismatchError(
            f'Bundle "{self.manifest.name}" has no {precision} graph (it has: {found}).',
            "Choose one of those, or export the bundle with that precision.",
            precision=precision,
            found=self.manifest.onnx_precisions,
        )

    def golden(self) -> GoldenTile:
        """Read the tile that every engine must reproduce."""
        return decode_golden(self.read(self.manifest.golden.path), self.manifest)

    def verify(self) -> None:
        """Read and check every file; the first that fails raises."""
        for file in self.manifest.files:
            self.read(file.path)
        self.golden()

    def _listing(self) -> str:
        return ", ".join(f'"{file.path}"' for file in self.manifest.files)


def list_bundles() -> tuple[str, ...]:
    """Give the names of the bundles shipped with the package, sorted."""
    return tuple(sorted(path.stem for path in _SHIPPED.glob("*.zip")))


def write_bundle(
    target: str | os.PathLike[str], manifest: Manifest, files: Mapping[str, bytes], *, overwrite: bool = False
) -> Bundle:
    """Write a bundle in one step: it is there as a whole, or not at all.

    Args:
        target: A `.zip` file, otherwise a folder. An empty folder may exist already.
        manifest: Lists `files`; their sha256 and size are filled in here, whatever it holds.
        files: Path in the bundle -> bytes; exactly the files that the manifest lists.
        overwrite: Replace a file, or a folder that holds nothing but a bundle.

    Returns:
        The bundle, opened.

    Raises:
        BundleError: `files` and the manifest disagree, or the golden tile does not fit the manifest.
        ManifestError: The manifest breaks its schema.
        OutputError: `target` exists, or cannot be written.
    """
    manifest = _with_hashes(manifest, files)
    contents = {MANIFEST_NAME: encode_manifest(manifest), **files}
    decode_golden(files[manifest.golden.path], manifest)
    target = Path(target)
    _refuse_occupied(target, overwrite)
    temporary, old = (target.with_name(f".{target.name}.{secrets.token_hex(8)}") for _ in range(2))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        (_write_zip if target.suffix == ".zip" else _write_folder)(temporary, contents)
        _swap(temporary, target, old)
    except OSError as error:
        raise OutputError(
            f'Cannot write the bundle "{target}": {error.strerror}.', "Choose a folder that can be written."
        ) from error
    finally:
        _remove(temporary)
    return Bundle.open(target)


class _Folder:
    """A bundle as a folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, path: str, limit: int) -> bytes:
        try:
            with open(self._root / path, "rb", opener=_open_at_once) as file:
                return _read_whole(file, path, limit, os.fstat(file.fileno()).st_size)
        except OSError as error:
            raise _missing(path, error.strerror or "unreadable") from error


class _Zip:
    """A bundle as one zip file; opened for each read, so that it is safe from several threads."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def read(self, path: str, limit: int) -> bytes:
        try:
            with zipfile.ZipFile(self._file) as archive:
                entry = archive.getinfo(path)
                if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise _changed(path, f"is packed with method {entry.compress_type}, neither stored nor deflated")
                if entry.file_size > max(MAX_RATIO * entry.compress_size, 2**16):
                    raise _changed(path, f"would unpack to more than {MAX_RATIO} times its packed size")
                with archive.open(entry) as file:
                    return _read_whole(file, path, limit, entry.file_size)
        except KeyError as error:
            raise _missing(path, "not in the zip file") from error
        except OSError as error:
            raise _missing(path, error.strerror or "unreadable") from error
        except _UNZIPPABLE as error:
            raise BundleError(f'Cannot unpack "{path}": {error}.', "Fetch or export the bundle again.") from error


_Source = _Folder | _Zip


def _find(name_or_path: str | os.PathLike[str]) -> _Source:
    if isinstance(name_or_path, str) and name_or_path in list_bundles():
        return _Zip(_SHIPPED / f"{name_or_path}.zip")
    path = Path(name_or_path)
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        mode = 0
    if stat.S_ISDIR(mode):
        return _Folder(path)
    if stat.S_ISREG(mode):
        return _Zip(path)
    shipped = ", ".join(f'"{name}"' for name in list_bundles()) or "(none)"
    raise BundleError(
        f'There is no bundle "{os.fspath(name_or_path)}" (shipped: {shipped}).',
        "Pass one of those names, or the path of a bundle folder or .zip file.",
        found=list_bundles(),
    )


def _open_at_once(path: str, flags: int) -> int:
    # A named pipe in place of a file must not make the reader wait for a writer.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _read_whole(file: IO[bytes], path: str, limit: int, size: int) -> bytes:
    expected = size if path == MANIFEST_NAME else limit
    if size > limit or size != expected:
        raise _changed(path, f"has {size} bytes, not {'at most ' if path == MANIFEST_NAME else ''}{limit}")
    return file.read(size + 1)


def _missing(path: str, reason: str) -> BundleError:
    if path == MANIFEST_NAME:
        return BundleError(
            f"Not a bundle: {MANIFEST_NAME} is not at its top ({reason}).",
            "Pass the folder or the zip file that holds it directly.",
        )
    return BundleError(f'The bundle lacks its file "{path}" ({reason}).', "Fetch or export the bundle again.")


def _changed(path: str, problem: str) -> ChecksumError:
    return ChecksumError(
        f'"{path}" {problem}: it is not the file that the manifest describes.',
        "Fetch or export the bundle again.",
        path=path,
    )


def _with_hashes(manifest: Manifest, files: Mapping[str, bytes]) -> Manifest:
    listed = {file.path for file in manifest.files}
    if listed != set(files):
        raise BundleError(
            f"The manifest and the files disagree: {sorted(listed ^ set(files))}.", "List exactly the files to write."
        )

    def hashed(file: _File) -> _File:
        data = files[file.path]
        return msgspec.structs.replace(file, sha256=hashlib.sha256(data).hexdigest(), size=len(data))

    artifacts = tuple(hashed(artifact) for artifact in manifest.artifacts)
    return msgspec.structs.replace(manifest, artifacts=artifacts, golden=hashed(manifest.golden))


def _refuse_occupied(target: Path, overwrite: bool) -> None:
    if target.is_dir() and target.suffix != ".zip":
        found = {path.relative_to(target).as_posix() for path in target.rglob("*") if not path.is_dir()}
        free = not found or (overwrite and found <= _bundle_files(target))
    else:
        free = not target.exists() or (overwrite and target.is_file())
    if not free:
        raise OutputError(
            f'"{target}" exists.', "Choose another name, or pass overwrite; a folder must hold nothing but a bundle."
        )


def _bundle_files(folder: Path) -> set[str]:
    try:
        return {MANIFEST_NAME, *(file.path for file in Bundle.open(folder).manifest.files)}
    except BundleError:
        return set()


def _write_folder(folder: Path, contents: Mapping[str, bytes]) -> None:
    for path, data in contents.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        with open(folder / path, "xb") as file:
            file.write(data)
            _sync(file)


def _write_zip(target: Path, contents: Mapping[str, bytes]) -> None:
    with open(target, "xb") as file:
        with zipfile.ZipFile(file, "w") as archive:
            for path, data in contents.items():
                entry = zipfile.ZipInfo(path)  # dated 1980, so that the same contents give the same bytes
                entry.compress_type = zipfile.ZIP_DEFLATED
                entry.external_attr = 0o644 << 16
                archive.writestr(entry, data, compresslevel=9)
        _sync(file)


def _swap(temporary: Path, target: Path, old: Path) -> None:
    """Put `temporary` in the place of `target`; a folder has to step aside first, and comes back if that fails."""
    if not target.is_dir():
        temporary.replace(target)
        return
    target.rename(old)
    try:
        temporary.rename(target)
    except OSError:
        old.rename(target)
        raise
    _remove(old)


def _sync(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    elif path.exists():
        path.unlink()
