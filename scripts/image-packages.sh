#!/usr/bin/env bash
# In the Dockerfile: lay the locked dependencies and our own packages into a directory.   image-packages.sh DIRECTORY PACKAGE…
set -euo pipefail
directory=$1
shift
chosen=()
for package in "$@"; do chosen+=(--package "$package"); done

uv export --frozen --no-dev --no-emit-workspace --no-header "${chosen[@]}" >/tmp/requirements.txt
uv pip install --no-cache --require-hashes --no-deps --only-binary :all: --target "$directory" -r /tmp/requirements.txt

members="$(uv export --frozen --no-dev --no-hashes --no-header --no-editable --no-annotate "${chosen[@]}" | grep '^\./')"
while read -r member _; do uv build --quiet --wheel --out-dir /tmp/wheels "$member"; done <<<"$members"
uv pip install --no-cache --no-deps --target "$directory" /tmp/wheels/*.whl

rm -rf "$directory/bin" "$directory"/*.lock
python -m compileall -q --invalidation-mode unchecked-hash "$directory"
