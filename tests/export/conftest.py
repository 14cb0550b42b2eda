"""What the export tests share: one exported bundle, and one thread for torch beside whatever else runs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from networks import TINY, make_network, make_source

from rmr_export import Source, export_bundle
from rmr_sdk.bundle import Bundle


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def source() -> Source:
    """Give the tiny network with all that is known about it."""
    return make_source(make_network(TINY))


@pytest.fixture(scope="session")
def exported(source: Source, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Give its bundle, exported as a zip file at `exported/tiny.zip`."""
    return export_bundle(source, tmp_path_factory.mktemp("exported") / "tiny.zip", name="tiny")
