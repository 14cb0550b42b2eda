"""What each CUDA kernel takes of a multiprocessor, and what its code must not hold; from the compiled module, no GPU.

    python benchmarks/kernel_resources.py            compares the installed module with csrc/resources.json
    python benchmarks/kernel_resources.py --write    writes csrc/resources.json and the table of docs/cuda.md

Registers are handed out in eights, so the committed ceiling is the count rounded up to one: below it nothing changes
for the GPU. A stack means spilled registers or arrays in local memory; there must be none. Needs cuobjdump, of the CUDA
toolkit or of `pip install nvidia-cuda-cuobjdump`, and c++filt.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parent.parent
CEILINGS = ROOT / "csrc" / "resources.json"
DOC = ROOT / "docs" / "cuda.md"
GRAIN = 8

Resources = dict[str, dict[str, dict[str, int]]]
"""Kernel -> architecture, such as "90" -> "registers", "stack", "local", "shared"."""


def find_cuobjdump() -> str | None:
    """Return the path of cuobjdump; None where there is none."""
    spec = importlib.util.find_spec("nvidia")
    for folder in spec.submodule_search_locations or () if spec else ():
        found = sorted(Path(folder).glob("*/bin/cuobjdump"))
        if found:
            return str(found[-1])
    return shutil.which("cuobjdump")


def dump(module: Path, option: str) -> str:
    """Return what cuobjdump says of a compiled module, names demangled.

    Raises:
        RuntimeError: cuobjdump or c++filt is not installed.
    """
    tool, names = find_cuobjdump(), shutil.which("c++filt")
    if tool is None or names is None:
        raise RuntimeError("cuobjdump or c++filt is not installed: pip install nvidia-cuda-cuobjdump, and binutils")
    text = subprocess.run([tool, option, str(module)], check=True, capture_output=True, text=True).stdout
    return subprocess.run([names], check=True, capture_output=True, text=True, input=text).stdout


def kernel_name(signature: str) -> str:
    """Return the op of a kernel: `for_each_step<rmr::Blend<rmr::Half> >(...)` is "Blend<Half>"."""
    found = re.search(r"for_each_(?:step|team)<(.+?)\s?>\(", signature)
    name = found[1] if found else signature
    return re.sub(r"rmr::|\bunsigned ", lambda match: "" if match[0] == "rmr::" else "u", name).replace("> >", ">>")


def read_resources(module: Path) -> Resources:
    """Return what each kernel takes on each architecture that the module was compiled for."""
    found: Resources = defaultdict(dict)
    architecture = name = ""
    for line in dump(module, "--dump-resource-usage").splitlines():
        if match := re.match(r"arch = sm_(\d+)", line):
            architecture = match[1]
        elif match := re.match(r"\s*Function (.+):$", line):
            name = kernel_name(match[1])
        elif match := re.search(r"REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", line):
            counts = dict(zip(("registers", "stack", "shared", "local"), map(int, match.groups()), strict=True))
            found[name][architecture] = counts
    return dict(found)


def read_ptx(module: Path) -> dict[str, str]:
    """Return the PTX of each kernel, for the newest architecture that it is kept for."""
    parts = re.split(r"^\.visible \.entry ", dump(module, "-ptx"), flags=re.M)
    return {kernel_name(part.split("(\n")[0] + "("): part for part in parts[1:]}


def ceilings(found: Resources) -> dict[str, dict[str, int | dict[str, int]]]:
    """Round registers up to what a GPU hands out."""
    rounded = {}
    for name, architectures in sorted(found.items()):
        registers = {arch: -(-each["registers"] // GRAIN) * GRAIN for arch, each in architectures.items()}
        shared = max(each["shared"] for each in architectures.values())
        rounded[name] = {"shared": shared, "registers": dict(sorted(registers.items(), key=lambda item: int(item[0])))}
    return rounded


def complaints(found: Resources, allowed: dict[str, dict[str, int | dict[str, int]]]) -> list[str]:
    """Say which kernels spill, take more than they may, or are not listed."""
    odd = [f"{name}: not in {CEILINGS.name}" for name in found if name not in allowed]
    odd += [f"{name}: in {CEILINGS.name}, but not compiled" for name in allowed if name not in found]
    for name in found.keys() & allowed.keys():
        limits, shared = allowed[name]["registers"], allowed[name]["shared"]
        for arch, each in found[name].items():
            place = f"{name}, sm_{arch}"
            if each["stack"] or each["local"]:
                odd.append(f"{place}: {each['stack'] + each['local']} bytes of stack")
            if arch not in limits:
                odd.append(f"{place}: no ceiling")
            elif each["registers"] > limits[arch]:
                odd.append(f"{place}: {each['registers']} registers, ceiling {limits[arch]}")
            if each["shared"] > shared:
                odd.append(f"{place}: {each['shared']} bytes of shared memory, ceiling {shared}")
    return sorted(odd)


def table(allowed: dict[str, dict[str, int | dict[str, int]]]) -> str:
    """Render the table of docs/cuda.md: kernels that differ in voxel types alone share a row."""
    rows: dict[str, list[dict[str, int | dict[str, int]]]] = defaultdict(list)
    for name, each in allowed.items():
        rows[re.sub(r"<(u?char|u?short|float|Half)(, ?(float|Half))?>", r"<T>", name)].append(each)
    lines = ["| kernel | variants | registers, least and most | shared memory (bytes) |", "| --- | --- | --- | --- |"]
    for name, variants in sorted(rows.items()):
        registers = [count for each in variants for count in each["registers"].values()]
        shared = max(each["shared"] for each in variants)
        lines.append(f"| `{name}` | {len(variants)} | {min(registers)} to {max(registers)} | {shared} |")
    return "\n".join(lines)


def with_table(text: str, rendered: str) -> str:
    """Put the table between its marks."""
    return re.sub(r"(<!-- table: resources -->\n).*?(<!-- end -->)", rf"\g<1>{rendered}\n\g<2>", text, flags=re.S)


def installed_module() -> Path:
    """Return the compiled module of the rmr_sdk that Python finds."""
    from rmr_sdk import _C

    return Path(_C.__file__)


def main(arguments: list[str] | None = None) -> int:
    """Compare or write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--module", type=Path, default=None, help="the compiled module; by default the installed one")
    parser.add_argument("--write", action="store_true", help="take what is found as the ceilings")
    options = parser.parse_args(arguments)
    found = read_resources(options.module or installed_module())
    if options.write:
        CEILINGS.write_text(json.dumps(ceilings(found), indent=1) + "\n")
        DOC.write_text(with_table(DOC.read_text(), table(ceilings(found))))
    odd = complaints(found, json.loads(CEILINGS.read_text()))
    print("\n".join(odd) or f"{len(found)} kernels within their ceilings, none with a stack")
    return 1 if odd else 0


if __name__ == "__main__":
    sys.exit(main())
