#!/usr/bin/env bash
# Runs uv with the given arguments: the one on the PATH if it is recent enough, otherwise an exact
# version that it first installs into a folder of its own.
#
#   EXO_UV_FOLDER   that folder (default: .venv-tools in the clone)
#   EXO_PYTHON      the Python that makes it (default: python3)
set -euo pipefail

readonly VERSION=0.13.9 OLDEST=0.9.0
folder=${EXO_UV_FOLDER:-$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/.venv-tools}
python=${EXO_PYTHON:-python3}

at_least() { # VERSION WANTED
  [[ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" == "$2" ]]
}

bootstrap() {
  # Made beside its place and moved there when it is whole; uv itself does not mind the move.
  local new="$folder.new.$$"
  # shellcheck disable=SC2064  # the folder's name is known now
  trap "rm -rf '$new'" EXIT
  echo "uv $VERSION is installed into $folder (the PATH has none that is at least $OLDEST)." >&2
  mkdir -p "$(dirname "$folder")"
  if ! "$python" -m venv "$new" >&2; then
    echo "Python cannot make environments here. On Debian or Ubuntu: apt install python3-venv" >&2
    exit 1
  fi
  "$new/bin/python" -m pip install --quiet --disable-pip-version-check "uv==$VERSION" >&2
  echo '*' >"$new/.gitignore"
  rm -rf "$folder"
  mv "$new" "$folder"
  trap - EXIT
}

if found=$(command -v uv) && version=$("$found" --version 2>/dev/null) &&
  version=${version#uv } && at_least "${version%% *}" "$OLDEST"; then
  exec "$found" "$@"
fi
if [[ ! -x $folder/bin/uv || "$("$folder/bin/uv" --version 2>/dev/null)" != "uv $VERSION"* ]]; then
  bootstrap
fi
exec "$folder/bin/uv" "$@"
