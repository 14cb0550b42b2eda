#!/bin/sh
# Install the RMR SDK from this folder, without a network. docs/offline.md tells the whole way.
#
#   sh install.sh [--python PYTHON] [--venv DIR] [--system-site-packages]
#
# --python   the Python to use (default: python3); it must be of the version that this folder was made for
# --venv     where the environment goes (default: ./rmr-venv in the current folder); an existing one is updated
# --system-site-packages   let the environment see the system's packages: on a Jetson, JetPack's TensorRT
set -eu

python=python3
venv=$PWD/rmr-venv
system=
fail() {
  echo "install: $1" >&2
  exit 1
}
while [ $# -gt 0 ]; do
  case $1 in
    --system-site-packages)
      system=$1
      shift
      continue
      ;;
    --python | --venv) [ $# -ge 2 ] || fail "$1 needs a value." ;;
    *) fail "unknown option $1. Read the first lines of this script." ;;
  esac
  if [ "$1" = --python ]; then python=$2; else venv=$2; fi
  shift 2
done

case $venv in /*) ;; *) venv=$PWD/$venv ;; esac
here=$(cd "$(dirname "$0")" && pwd)
sh "$here/verify.sh"
# shellcheck source=/dev/null
. "$here/target.env" # RMR_PYTHON, RMR_MACHINE, RMR_GLIBC

command -v "$python" >/dev/null ||
  fail "$python is not here. Install Python $RMR_PYTHON, or pass --python PYTHON."
found=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
[ "$found" = "$RMR_PYTHON" ] ||
  fail "this folder is for Python $RMR_PYTHON, and $python is $found. Pass --python, or ask for a folder for Python $found."
machine=$(uname -m)
[ "$machine" = "$RMR_MACHINE" ] ||
  fail "this folder is for $RMR_MACHINE, and this machine is $machine. Ask for a folder for $machine."
glibc=$("$python" -c 'import platform; print((platform.libc_ver()[1] or "0.0").split(".")[1])')
[ "$glibc" -ge "$RMR_GLIBC" ] ||
  fail "this folder needs glibc 2.$RMR_GLIBC, and this system has 2.$glibc. Build a folder on a system as old as this one."

if [ ! -x "$venv/bin/python" ]; then
  "$python" -m venv ${system:+"$system"} "$venv" ||
    fail "no environment could be made in $venv. On Debian and Ubuntu: apt-get install python3-venv."
fi
# Neither the settings of this machine's pip nor a network decide what is installed: the folder alone does.
unset PIP_FIND_LINKS PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_REQUIRE_VIRTUALENV PIP_TARGET PIP_PREFIX
PIP_CONFIG_FILE=/dev/null
PIP_DISABLE_PIP_VERSION_CHECK=1
export PIP_CONFIG_FILE PIP_DISABLE_PIP_VERSION_CHECK
pip() {
  command=$1
  shift
  "$venv/bin/python" -m pip "$command" --quiet --no-index --find-links "$here/wheels" "$@"
}

pip install --require-hashes --requirement "$here/requirements.txt"
if [ -d "$here/build-wheels" ]; then
  # No wheel of the SDK for this machine: it is built here, with CUDA kernels where nvcc is.
  command -v c++ >/dev/null || fail "a C++17 compiler is needed to build the SDK here. Install g++."
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  pip wheel --no-deps --find-links "$here/build-wheels" --wheel-dir "$work" "$here"/sdist/rmr_sdk-*.tar.gz
  pip install --no-deps --force-reinstall "$work"/rmr_sdk-*.whl
else
  pip install --no-deps --force-reinstall "$here"/wheels/rmr_sdk-*.whl
fi

"$venv/bin/rmr" doctor || fail "installed, but the default pipeline does not run here; see above."
echo "install: done. The command is $venv/bin/rmr"
