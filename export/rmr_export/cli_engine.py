"""The commands `rmr-export engine` and `rmr-export rewrites`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rmr_sdk.bundle import Bundle, list_bundles
from rmr_sdk.engines.tensorrt_library import RUNTIMES
from rmr_sdk.errors import ConfigError, OutputError

from .engine import BuildOptions, EngineRequest, add_engine, build_for_bundle, engine_path, refuse_existing
from .engine.monitor import Progress

Commands = Any  # argparse has no public name for what `add_subparsers` returns


def add_engine_commands(commands: Commands) -> None:
    """Add the commands to a parser's subcommands; each sets `command` to a generator of lines to print."""
    _add_engine(commands)
    _add_rewrites(commands)


def _add_engine(commands: Commands) -> None:
    about = "Build TensorRT or TensorRT-RTX engines from a bundle's graphs, and keep them in the bundle."
    parser = commands.add_parser("engine", help=about, description=about, allow_abbrev=False)
    parser.add_argument("bundle", metavar="BUNDLE", help="shipped name, folder or .zip")
    parser.add_argument("--runtime", choices=tuple(RUNTIMES), required=True, help="what builds and runs the engine")
    parser.add_argument(
        "--sm",
        type=int,
        nargs="+",
        default=[],
        metavar="NN",
        help="compute capabilities (tensorrt-rtx; default 86 89 120)",
    )
    parser.add_argument(
        "--precision", nargs="+", choices=("fp32", "fp16", "int8"), default=["fp16"], help="graphs to build from"
    )
    parser.add_argument("--explain", action="store_true", help="print the plan; without --out nothing is written")
    parser.add_argument("--workspace-mib", type=int, metavar="N", help="most memory of a kernel beside its tensors")
    parser.add_argument("--timing-cache", type=Path, metavar="FILE", help="keep measured times of kernels there")
    parser.add_argument("--out", type=Path, metavar="DIR|FILE.zip", help="bundle to write (default: BUNDLE itself)")
    parser.add_argument("--overwrite", action="store_true", help="replace engines, or the bundle at --out")
    parser.set_defaults(command=_engine)


def _add_rewrites(commands: Commands) -> None:
    about = "Show what each rewrite of a network's graph is worth to TensorRT-RTX: fp16 plans, built without a GPU."
    parser = commands.add_parser("rewrites", help=about, description=about, allow_abbrev=False)
    parser.add_argument("network", metavar="CHECKPOINT|PRESET", help="checkpoint of rmr-train, or a preset's name")
    parser.add_argument("--tile", type=int, nargs=3, metavar=("D", "H", "W"), help="tile in voxels (default: preset's)")
    parser.add_argument("--sm", type=int, default=86, metavar="NN", help="compute capability (default %(default)s)")
    parser.add_argument("--no-head", action="store_true", help="leave the segmentation head out")
    parser.set_defaults(command=_rewrites)


def _rewrites(options: argparse.Namespace) -> Iterator[str]:
    # Tracing needs torch, which `rmr-export engine` does without.
    from .rewrites import HEADER, measure_rewrites, open_network

    network = open_network(options.network, with_head=not options.no_head)
    yield " | ".join(HEADER)
    for worth in measure_rewrites(network, tuple(options.tile) if options.tile else None, options.sm):
        yield " | ".join(worth.cells())


def _engine(options: argparse.Namespace) -> Iterator[str]:
    target = _target(options)
    bundle = Bundle.open(options.bundle)
    requests = [_request(options, precision) for precision in dict.fromkeys(options.precision)]
    for request in requests if target is not None else ():
        refuse_existing(bundle, request, options.overwrite)
    for request in requests:
        with _progress() as progress:
            built = build_for_bundle(bundle, _with_progress(request, progress))
        where = engine_path(built, request.precision)
        size = f"{len(built.engine) / 1e6:.1f} MB"
        yield f"{where}: {size}, {built.runtime} {built.version}, built in {built.seconds:.1f} s"
        if options.explain:
            yield from built.plan.explain()
        if target is not None:
            bundle = add_engine(bundle, target, built, request.precision)
    if target is None:
        yield "Nothing was written: pass --out, or leave --explain out."
    else:
        yield f"{bundle.manifest.name} {bundle.manifest.version}: {target}"


def _target(options: argparse.Namespace) -> Path | None:
    """Return the bundle to write, or None where the plan alone was asked for."""
    if options.out is not None:
        if not options.overwrite and options.out.exists():
            raise OutputError(f'"{options.out}" exists.', "Choose another name, or pass --overwrite.")
        return Path(options.out)
    if options.explain:
        return None
    if options.bundle in list_bundles():
        raise ConfigError(
            f'"{options.bundle}" is shipped with the package, which stays as it is.',
            "Write a bundle of your own with --out, or pass --explain to see the plan.",
        )
    return Path(options.bundle)


def _request(options: argparse.Namespace, precision: Any) -> EngineRequest:
    build = BuildOptions(tuple(options.sm), options.workspace_mib, options.timing_cache)
    return EngineRequest(options.runtime, precision, build)


def _with_progress(request: EngineRequest, progress: Progress | None) -> EngineRequest:
    options = request.options
    build = BuildOptions(options.targets, options.workspace_mib, options.timing_cache, progress)
    return EngineRequest(request.runtime, request.precision, build)


@contextmanager
def _progress() -> Iterator[Progress | None]:
    """Show phases of a build on a terminal, and nothing elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress as Bars

    with Bars(console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, Any] = {}

        def show(phase: str, done: int, steps: int) -> None:
            if phase not in tasks:
                tasks[phase] = bars.add_task(phase)
            bars.update(tasks[phase], completed=done, total=steps, visible=done < steps)

        yield show
