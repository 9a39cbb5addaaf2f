#!/usr/bin/env bash
# Creates a virtual environment (if there is none) and installs this package into it, editable,
# with the versions of constraints.txt (CONSTRAINTS names another file; empty: the newest of all).
# usage: scripts/install.sh VENV REQUIREMENT
set -euo pipefail
venv=$1
requirement=$2
constraints=()
[ -n "${CONSTRAINTS-constraints.txt}" ] && constraints=(-c "${CONSTRAINTS-constraints.txt}")

uv=$(command -v uv || true)
[ -z "$uv" ] && [ -x "$venv/bin/uv" ] && uv="$venv/bin/uv"

is_recent() {
  "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

find_python() {
  local candidate
  for candidate in ${PYTHON:-} python3.11 python3.12 python3.13 python3.14 python3 python; do
    if is_recent "$candidate"; then
      command -v "$candidate"
      return
    fi
  done
}

if [ ! -x "$venv/bin/python" ]; then
  if [ -n "${PYTHON:-}" ] && ! is_recent "$PYTHON"; then
    echo "error: PYTHON=$PYTHON is not a Python >= 3.11" >&2
    exit 1
  fi
  python=$(find_python)
  if [ -n "$python" ]; then
    echo "Creating $venv with $("$python" --version)"
  elif [ -n "$uv" ]; then
    python=3.11
    echo "Creating $venv: no Python >= 3.11 found, uv provides one"
  else
    echo "error: no Python >= 3.11 found (tried python3.11 ... python3 and \$PYTHON)." >&2
    echo "Install one from https://www.python.org/downloads/ or give its path:" >&2
    echo "  make PYTHON=/path/to/python3.11 ..." >&2
    exit 1
  fi
  if [ -n "$uv" ]; then
    "$uv" venv --quiet --python "$python" "$venv"
  elif ! "$python" -m venv "$venv"; then
    rm -rf "$venv"
    echo "error: '$python -m venv' failed; on Debian and Ubuntu: apt install python3-venv" >&2
    exit 1
  fi
elif ! is_recent "$venv/bin/python"; then
  echo "error: $venv holds $("$venv/bin/python" --version 2>&1), 3.11 or newer is needed;" \
    "'make clean' removes it" >&2
  exit 1
fi

echo "Installing $requirement (once; a few minutes on a slow network)"
if [ -n "$uv" ]; then
  "$uv" pip install --quiet --python "$venv/bin/python" ${constraints[@]+"${constraints[@]}"} -e "$requirement"
else
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    ${constraints[@]+"${constraints[@]}"} -e "$requirement"
fi
