"""The version of the package, the one place outside pyproject.toml that holds it; a test keeps the two equal."""

__version__ = "0.1.0"
