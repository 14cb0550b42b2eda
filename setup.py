"""Build the package; everything is declared in pyproject.toml and CMakeLists.txt."""

from setuptools import setup

setup(cmake_source_dir=".")
