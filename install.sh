#!/usr/bin/env bash
# Installs exo from this clone into an environment of its own, or brings it up to date.
# Written for bash 3.2, which macOS still has.
set -euo pipefail

usage() {
  cat <<'TEXT'
Usage: ./install.sh [OPTION]...

Installs exo from this clone; run it again to upgrade. The clone may go afterwards.

  --cpu             compute on the CPU, whatever else there is
  --cuda [12|13]    compute on an NVIDIA card; without a number, what the driver can do
  --prefix DIR      where to install (default: ~/.local): DIR/bin/exo and DIR/share/exo/env
  --dev             for working on exo: ./.venv, editable, with the development tools
  --uninstall       remove exo; models and settings stay
  --help            print this
TEXT
}

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly repository GLIBC=2.35 MACOS=14 DRIVER_CUDA12=550 DRIVER_CUDA13=580 CAPABILITY=7.5
readonly CPU_MB=1500 CUDA_MB=6000

say() { printf '%s\n' "$*"; }
die() { say "install.sh: $*" >&2 && exit 1; }
bad_usage() { { say "install.sh: $*" && say && usage; } >&2 && exit 2; }
at_least() { # VERSION WANTED
  [[ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" == "$2" ]]
}

backend='' cuda='' prefix='' mode=install

parse_arguments() {
  while (($#)); do
    case $1 in
      --cpu | --cuda)
        [[ -z $backend ]] || bad_usage '--cpu and --cuda exclude each other.'
        backend=${1#--}
        case $1${2-} in --cuda12 | --cuda13) cuda=$2 && shift ;; esac
        ;;
      --prefix)
        [[ -n ${2-} ]] || bad_usage '--prefix needs a folder.'
        prefix=$2 && shift
        ;;
      --dev | --uninstall) mode=${1#--} ;;
      --help | -h) usage && exit 0 ;;
      *) bad_usage "unknown option: $1" ;;
    esac
    shift
  done
  if [[ -z $prefix ]]; then
    [[ -n ${HOME-} ]] || die 'HOME is not set; say where to install: --prefix DIR'
    [[ $mode != install || -z ${SUDO_USER-} ]] ||
      die 'run it without sudo, or say where to install for everybody: --prefix /usr/local'
    prefix=$HOME/.local
  fi
  [[ $prefix == /* ]] || prefix=$PWD/$prefix
  prefix=${prefix%/}
  share=$prefix/share/exo link=$prefix/bin/exo
}

check_platform() {
  system=$(uname -s) machine=$(uname -m)
  case $system/$machine in
    Linux/x86_64 | Linux/aarch64 | Linux/arm64) check_glibc ;;
    Darwin/arm64) at_least "$(sw_vers -productVersion)" $MACOS || die "exo needs macOS $MACOS." ;;
    Darwin/*)
      [[ "$(sysctl -n hw.optional.arm64 2>/dev/null)" != 1 ]] ||
        die 'this shell runs under Rosetta. Run: arch -arm64 ./install.sh'
      die 'exo does not run on Macs with an Intel processor: MLX needs Apple silicon.'
      ;;
    MINGW* | MSYS* | CYGWIN* | Windows*)
      die 'exo does not run on Windows itself. Install WSL 2 and run this inside of it.'
      ;;
    *) die "exo does not run on $system $machine: there is no MLX for it." ;;
  esac
}

check_glibc() {
  local name glibc
  read -r name glibc < <(getconf GNU_LIBC_VERSION 2>/dev/null) || true
  [[ ${name-} == glibc ]] && at_least "$glibc" $GLIBC && return
  die "MLX needs glibc $GLIBC or newer (Debian 12, Ubuntu 22.04), this system has ${glibc:-none}."
}

# Sets `extra`, the backend to install, and says why in one line.
choose_extra() {
  local why
  if [[ $system == Darwin ]]; then
    [[ -z $backend ]] || bad_usage "--$backend is for Linux; on a Mac exo computes with Metal."
    extra=metal why='Apple silicon'
  elif [[ $backend == cpu ]]; then
    extra=cpu why='asked for with --cpu'
  elif [[ -n $cuda ]]; then
    extra=cuda$cuda why="asked for with --cuda $cuda"
  else
    ask_nvidia
    [[ $backend != cuda || $extra != cpu ]] ||
      die "--cuda: $why. To install it all the same: --cuda 12 or --cuda 13"
  fi
  say "exo will compute on: $extra ($why)."
}

# Sets choose_extra's `extra` and `why` by the NVIDIA driver and card.
ask_nvidia() {
  local driver='' capability='' line
  if line=$(nvidia-smi --query-gpu=driver_version,compute_cap --format=csv,noheader 2>/dev/null); then
    line=${line%%$'\n'*}
    driver=${line%%,*} capability=${line##*, }
  elif [[ -r /proc/driver/nvidia/version ]]; then
    driver=$(sed -nE '1s/.* ([0-9]+\.[0-9.]+) .*/\1/p' /proc/driver/nvidia/version)
  fi
  extra=cpu
  if [[ ! ${driver%%.*} =~ ^[0-9]+$ ]]; then
    why='no NVIDIA driver answers'
  elif [[ $capability =~ ^[0-9.]+$ ]] && ! at_least "$capability" $CAPABILITY; then
    why="the NVIDIA card has compute capability $capability, MLX needs $CAPABILITY"
  elif ((${driver%%.*} >= DRIVER_CUDA13)); then
    extra=cuda13 why="NVIDIA driver $driver"
  elif ((${driver%%.*} >= DRIVER_CUDA12)); then
    extra=cuda12 why="NVIDIA driver $driver, CUDA 13 needs $DRIVER_CUDA13"
  else
    why="the NVIDIA driver $driver is too old, CUDA 12 needs $DRIVER_CUDA12"
  fi
}

# Sets `python` to a Python that exo runs on.
find_python() {
  local name fits='import platform, sys, sysconfig
sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 15) or platform.machine() != sys.argv[1]
    or bool(sysconfig.get_config_var("Py_GIL_DISABLED")))'
  # Not one without the GIL, for which not every package has a wheel; on a Mac, not an Intel one.
  for name in python3 python3.13 python3.12 python3.11 python3.14; do
    ! python=$(command -v "$name") || ! "$python" -c "$fits" "$machine" 2>/dev/null || return 0
  done
  local how='install the package python3.12'
  [[ $system != Darwin ]] || how='brew install python@3.12'
  ! command -v apt-get >/dev/null || how='sudo apt install python3.11 python3.11-venv (or newer)'
  die "exo needs Python 3.11 to 3.14, and none is on the PATH. To get it: $how"
}

check_disk() { # FOLDER
  local folder=$1 need=$CPU_MB free
  [[ $extra == cuda* ]] && need=$CUDA_MB
  while [[ ! -d $folder ]]; do folder=$(dirname "$folder"); done
  free=$(df -Pk "$folder" | awk 'NR == 2 { print int($4 / 1024) }')
  [[ $free =~ ^[0-9]+$ ]] || return 0
  ((free >= need)) || die "$folder has $free MB free, exo needs about $need MB. Free some space."
}

check_writable() {
  local folder
  for folder in "$share" "$prefix/bin"; do
    if ! mkdir -p "$folder" 2>/dev/null || [[ ! -w $folder ]]; then
      die "$folder cannot be written. Choose another place: --prefix DIR"
    fi
  done
  [[ ! -e $link && ! -L $link ]] || is_ours ||
    die "$link is there already and is not exo's. Move it away, or choose another --prefix."
}

is_ours() { [[ -L $link && "$(readlink "$link")" == "$share/env/bin/exo" ]]; }

new='' log='' next='exo start'

clean_up() {
  [[ -z $log ]] || rm -f "$log"
  [[ -z $new ]] || rm -rf "$new"
}

# By uv alone: what pyproject.toml overrides of mflux's requirements keeps MLX for CUDA and torch out,
# and is not in a wheel.
uv_sync() { # ENVIRONMENT OPTION...
  local environment=$1
  shift
  log=$(mktemp "${TMPDIR:-/tmp}/exo-install.XXXXXX")
  if ! (
    cd "$repository"
    unset VIRTUAL_ENV
    export UV_PROJECT_ENVIRONMENT=$environment EXO_PYTHON=$python
    tools/uv.sh sync --frozen --extra "$extra" --extra image --python "$python" "$@" </dev/null 2>&1
  ) | tee "$log" | sed '/^ [-+~] /d'; then # not the list of all packages
    explain_failure
  fi
}

explain_failure() {
  local reason='the packages could not be installed; the lines above say why.'
  if grep -qiE 'no space left|os error 28' "$log"; then
    reason='the disk is full. Free some space and run this again.'
  elif grep -qiE 'dns|resolve|connect|timed? ?out|network|certificate|proxy|matching distribution' "$log"; then
    reason='the packages could not be downloaded. Check the connection to https://pypi.org
(behind a proxy, set HTTPS_PROXY) and run this again; what was downloaded is kept.'
  fi
  [[ ! -L $share/env ]] || reason="$reason
The exo that was installed before is as it was."
  die "$reason"
}

# Does a process run from this environment? It has libraries of it in its memory.
in_use() { # FOLDER
  if [[ -r /proc/self/maps ]]; then
    grep -qsF "$1/" /proc/[0-9]*/maps
  else
    [[ "$(lsof -c /python/i -Fn 2>/dev/null || true)" == *"$1/"* ]]
  fi
}

# The environment is built under a name of its own, which the scripts in it carry, and becomes
# `env` in one step at the end: until then, whatever fails leaves the previous one in place.
install_exo() {
  local old=''
  [[ ! -L $share/env ]] || old=$share/$(readlink "$share/env")
  export EXO_UV_FOLDER=$share/uv
  new=$share/env-$(date +%Y%m%d%H%M%S)-$$
  uv_sync "$new" --no-dev --no-editable --compile-bytecode
  build_kernels
  verify
  ln -s "${new##*/}" "$share/env.$$"
  "$python" -c 'import os, sys; os.replace(*sys.argv[1:])' "$share/env.$$" "$share/env"
  new=''
  is_ours || ln -s "$share/env/bin/exo" "$link"
  if [[ -n $old ]] && in_use "$old"; then
    next='exo stop && exo start (the version before is still running)'
  fi
  remove_old_environments
}

# What makes a Linux CPU fast; exo runs without, so that a failure is told and no more.
build_kernels() { # the environment is $new or, with --dev, .venv
  local said
  [[ $system == Linux && $extra == cpu ]] || return 0
  say 'Building the CPU kernels (up to a minute)…'
  said=$("${1:-$new}/bin/python" -P -m exo.inference.kernels.build 2>&1) ||
    say "exo will run without its CPU kernels, about 30 times slower: $said"
}

verify() {
  local said
  "$new/bin/exo" --version >/dev/null || die 'the new exo does not start, so it is not put to use.'
  said=$("$new/bin/python" -P -m exo.probe) ||
    die "the new exo cannot compute here, so it is not put to use: $said"
}

remove_old_environments() {
  local folder maker
  for folder in "$share"/env-*-*; do
    maker=${folder##*-}
    [[ -d $folder && ! $folder -ef $share/env ]] || continue
    # A daemon still runs the version before, and will start more processes from it.
    ! in_use "$folder" || continue
    # Another install.sh is at work.
    [[ $maker == "$$" ]] || ! kill -0 "$maker" 2>/dev/null || continue
    rm -rf "$folder"
  done
}

report() {
  say "exo is installed: $link"
  "$link" doctor || say 'exo doctor found something to mend (✗ above).'
  if [[ :$PATH: != *":$prefix/bin:"* ]]; then
    say "$prefix/bin is not on your PATH. Add this line to your shell's start file:"
    say "  export PATH=\"$prefix/bin:\$PATH\""
  fi
  say "Next: $next"
}

uninstall() {
  local folder found=''
  if [[ -L $share/env ]]; then
    found=$("$share/env/bin/python" -c 'from exo.config import find_paths; p = find_paths()
print("Kept: settings", p.config_file, "- models and identity", p.data, "- state", p.state)' \
      2>/dev/null) || found='Kept: models and settings.'
  fi
  for folder in "$share"/env-*-*; do
    [[ ! -d $folder ]] || ! in_use "$folder" || die 'exo is running. First: exo stop'
  done
  ! is_ours || rm -f "$link"
  rm -rf "$share/env" "$share"/env-*-* "$share/uv"
  rmdir "$share" 2>/dev/null || true # it stays if it is also the data folder
  say "${found:+exo is removed. }${found:-exo is not installed in $prefix.}"
}

main() {
  parse_arguments "$@"
  [[ $mode != uninstall ]] || {
    uninstall
    return
  }
  [[ -f $repository/uv.lock ]] || die 'run it from a clone of the exo repository.'
  check_platform
  choose_extra
  find_python
  if [[ $mode == dev ]]; then
    check_disk "$repository"
    uv_sync "$repository/.venv"
    build_kernels "$repository/.venv"
    say 'Ready: .venv has exo, editable, and the development tools. Next: make test'
  else
    check_disk "$share"
    check_writable
    install_exo
    report
  fi
}

trap clean_up EXIT
main "$@"
