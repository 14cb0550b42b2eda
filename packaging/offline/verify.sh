#!/bin/sh
# Check a delivery of the RMR SDK: every file is as it was made, none is missing, none was added.
#
#   sh verify.sh            compare all files with SHA256SUMS
#   sh verify.sh DIGEST     compare SHA256SUMS itself, too, with the digest that you were given another way
set -eu
cd "$(dirname "$0")"
LC_ALL=C
export LC_ALL

fail() {
  echo "verify: $1" >&2
  exit 1
}

command -v sha256sum >/dev/null || fail "sha256sum is not here. Install coreutils."
[ -f SHA256SUMS ] || fail "SHA256SUMS is missing. This folder is not complete: copy it again."

if [ $# -gt 0 ]; then
  digest=$(sha256sum SHA256SUMS | cut -d ' ' -f 1)
  [ "$digest" = "$1" ] || fail "SHA256SUMS has the digest $digest, not the one given. Do not install this folder."
fi

sha256sum --check --strict --quiet SHA256SUMS >&2 ||
  fail "files are not as they were made (named above). Do not install this folder: copy it again, or ask for a new one."

# Names in SHA256SUMS begin behind the digest and two characters.
listed=$(cut -c 67- SHA256SUMS | sort)
there=$(find . -type f ! -path ./SHA256SUMS | cut -c 3- | sort)
if [ "$listed" != "$there" ]; then
  echo "$there" | while read -r name; do
    echo "$listed" | grep -Fqx "$name" || echo "verify: not listed: $name" >&2
  done
  fail "files were added (named above). Remove them, or copy the folder again."
fi
[ -z "$(find . -type l)" ] || fail "the folder has symbolic links, which no checksum covers. Remove them."
echo "verify: $(echo "$listed" | wc -l | tr -d ' ') files are as they were made."
