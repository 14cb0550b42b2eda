"""Every `raise` of the project has a row in some test that makes it happen. Runs last: it looks back at the session."""

from __future__ import annotations

from pathlib import Path

import pytest
from raise_sites import raise_sites


def test_every_raise_has_been_reached(request: pytest.FixtureRequest) -> None:
    config = request.config
    ran = {item.path for item in request.session.items}
    everything = set(Path(__file__).parent.rglob("test_*.py"))
    if config.option.keyword or config.option.markexpr or everything - ran:
        pytest.skip("only a run of all tests reaches every raise")
    missed = [str(site) for site in raise_sites() if not site.reached]
    assert not missed, "no test makes these happen:\n" + "\n".join(missed)


def test_the_sites_are_found() -> None:
    found = [str(site) for site in raise_sites()]
    assert any(site.startswith("rmr_sdk/watch.py") and "raise Cancelled(" in site for site in found)
    assert any("raise _contradiction(" in site for site in found)
