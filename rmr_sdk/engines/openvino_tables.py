"""Tables of a graph in OpenVINO: bound as inputs once, instead of folded into masks; and kept beside the network.

OpenVINO computes at compile time whatever follows from constants. From the region ids of shifted windows, a table of
some kilobytes, follow attention masks as large as gigabytes: the paper preset at 28 x 126 x 126 takes 2.1 GB that way
and 0.4 GB this way, at the same speed. As inputs the ids unfold while a tile is computed, and are forgotten again.

    entry of the cache:    length of the tables (8 bytes), the tables as .npz, the compiled network
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Tables = Mapping[str, NDArray[Any]]

_LENGTH_BYTES = 8


def pack(tables: Tables, network: bytes) -> bytes:
    """Give one entry of tables and compiled network."""
    stream = io.BytesIO()
    np.savez(stream, **tables)  # type: ignore[arg-type]  # mistakes an array for `allow_pickle`
    return stream.tell().to_bytes(_LENGTH_BYTES, "little") + stream.getvalue() + network


def unpack(data: bytes) -> tuple[dict[str, NDArray[Any]], bytes]:
    """Take an entry apart.

    Raises:
        ValueError: It is none.
    """
    end = _LENGTH_BYTES + int.from_bytes(data[:_LENGTH_BYTES], "little")
    try:
        with np.load(io.BytesIO(data[_LENGTH_BYTES:end]), allow_pickle=False) as file:
            return {name: file[name] for name in file.files}, data[end:]
    except (zipfile.BadZipFile, EOFError, OSError, ValueError) as error:
        raise ValueError("not an entry of this cache") from error
