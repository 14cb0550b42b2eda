"""`rmr bench`: measure this machine, show a measurement again, or compare two."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rmr_sdk.cli.terminal import progress_bar, say
from rmr_sdk.errors import ConfigError
from rmr_sdk.io.files import atomic_file, check_outputs, make_folder
from rmr_sdk.pipeline import DEFAULT_BUNDLE

if TYPE_CHECKING:
    from rmr_sdk.bench.results import BenchResult


def add_parser(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], everywhere: argparse.ArgumentParser
) -> None:
    """Add the command to the grammar."""
    about = "Measure latency, memory and energy of one study here, or compare two measurements."
    parser = commands.add_parser("bench", help=about, description=about, parents=[everywhere], allow_abbrev=False)
    parser.add_argument("study", nargs="?", type=Path, metavar="STUDY_DIR", help="a study in place of the demo's")
    parser.add_argument("--show", type=Path, metavar="FILE", help="show this result instead of measuring")
    parser.add_argument("--compare", type=Path, nargs=2, metavar=("A", "B"), help="compare two results: is B faster?")
    parser.add_argument(
        "--may-differ", nargs="+", default=[], metavar="WHAT", help="--compare: study, bundle or overlap need not match"
    )
    _add_measuring_options(parser)
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the result as JSON")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with plots")
    parser.add_argument("--overwrite", action="store_true", help="replace --out and --html")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.set_defaults(command=_bench, refuse=parser.error)


def _add_measuring_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bundle", default=DEFAULT_BUNDLE, metavar="NAME", help="as for `rmr run` (%(default)s)")
    parser.add_argument("--engine", nargs="+", default=["auto"], metavar="NAME", help="one or more (auto)")
    parser.add_argument("--device", default="auto", help="as for `rmr run` (%(default)s)")
    parser.add_argument("--precision", nargs="+", default=["auto"], metavar="NAME", help="one or more (auto)")
    parser.add_argument("--threads", type=int, metavar="N", help="threads to compute with (default: all cores)")
    parser.add_argument("--overlap", type=float, default=0.25, metavar="X", help="of tiles, 0 to 0.9 (%(default)s)")
    parser.add_argument("--cache-dir", type=Path, metavar="DIR", help="where compiled networks are kept")
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="rounds that count (%(default)s)")
    parser.add_argument("--warmup", type=int, default=1, metavar="N", help="rounds that do not count (%(default)s)")
    parser.add_argument("--cold-starts", type=int, default=3, metavar="N", help="fresh processes each (%(default)s)")
    parser.add_argument("--no-roofline", action="store_true", help="do not measure what the machine could do at most")


def _bench(options: argparse.Namespace) -> int:
    if sum(value is not None for value in (options.study, options.show, options.compare)) > 1:
        options.refuse("pass STUDY_DIR, --show FILE or --compare A B, not several")
    if options.compare is not None:
        return _compare(options)
    if options.may_differ:
        options.refuse("--may-differ is for --compare")
    _check_files(options)
    from rmr_sdk.bench import page, table  # Jinja2 would slow down the other commands
    from rmr_sdk.bench.results import encode_result

    result = _measured(options)
    encoded = encode_result(result)
    if options.out is not None:
        _write(options.out, encoded)
    if options.html is not None:
        _write(options.html, page.render_html(result).encode())
    say(encoded.decode().rstrip("\n") if options.json else table.render_result(result))
    written = [str(path) for path in (options.out, options.html) if path is not None]
    if written and not options.json:
        say(f"Written:  {', '.join(written)}")
    return 0


def _measured(options: argparse.Namespace) -> BenchResult:
    from rmr_sdk.bench.measure import run_bench
    from rmr_sdk.bench.results import read_result
    from rmr_sdk.bench.settings import BenchSettings

    if options.show is not None:
        return read_result(options.show)
    settings = BenchSettings(
        bundle=options.bundle,
        engines=tuple(options.engine),
        device=options.device,
        precisions=tuple(options.precision),
        threads=options.threads,
        overlap=options.overlap,
        repeats=options.repeats,
        warmup=options.warmup,
        cold_starts=options.cold_starts,
        cache_dir=options.cache_dir,
        roofline=not options.no_roofline,
    )
    with progress_bar() as report:
        return run_bench(options.study, settings, report)


def _compare(options: argparse.Namespace) -> int:
    from rmr_sdk.bench.compare import compare_results, encode_comparison
    from rmr_sdk.bench.results import read_result
    from rmr_sdk.bench.table import render_comparison

    if options.html is not None:
        options.refuse("--html is for one result: rmr bench --show FILE --html FILE")
    _check_files(options)
    before, after = (read_result(path) for path in options.compare)
    comparison = compare_results(before, after, options.may_differ)
    encoded = encode_comparison(comparison)
    if options.out is not None:
        _write(options.out, encoded)
    say(encoded.decode().rstrip("\n") if options.json else render_comparison(comparison))
    return 0


def _check_files(options: argparse.Namespace) -> None:
    """Refuse output files that could not be written, before anything is measured."""
    files = [path for path in (options.out, options.html) if path is not None]
    if len(files) == 2 and files[0].resolve() == files[1].resolve():
        raise ConfigError("--out and --html name the same file.", "Give each of them a name of its own.")
    for path in files:
        check_outputs(path.parent, [path.name], options.overwrite)


def _write(path: Path, data: bytes) -> None:
    make_folder(path.parent)
    with atomic_file(path) as file:
        file.write(data)
