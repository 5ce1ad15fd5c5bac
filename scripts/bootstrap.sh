#!/usr/bin/env bash
# Put uv of a fixed version into a directory, with nothing but a Python.   bootstrap.sh PYTHON UV_VERSION DIRECTORY
set -euo pipefail
python=${1:-} uv_version=$2 directory=$3

fail() { echo "make setup: $*" >&2; exit 1; }
as_root_apt() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

if [ -z "$python" ]; then
  as_root_apt || fail "there is no python3 here; install it (apt-get install python3 python3-venv) and run make again"
  DEBIAN_FRONTEND=noninteractive apt-get install -y -q python3 python3-venv >/dev/null
  python=python3
fi
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
  fail "$("$python" -V) is too old, 3.11 or newer is needed; name another one: make PYTHON=/path/to/python3.11 run"

if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
  as_root_apt || fail "$python cannot make virtual environments; run: apt-get install python3-venv"
  echo "make setup: installing python3-venv" >&2
  (apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q python3-venv) >/dev/null
fi
"$python" -m venv "$directory"
"$directory/bin/python" -m pip install --quiet --disable-pip-version-check "uv==$uv_version"
