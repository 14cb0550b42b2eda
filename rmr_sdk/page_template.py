"""Templates of the HTML pages: every string escaped, every unknown name an error. Owns no words and no looks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2


def load_template(path: Path, **filters: Callable[..., Any]) -> jinja2.Template:
    """Read a template.

    Args:
        path: Its file; templates that it includes lie beside it.
        filters: Name -> function, beside Jinja's own.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(path.parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= filters
    return environment.get_template(path.name)
