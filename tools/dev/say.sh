# shellcheck shell=bash
# How ./dev talks: what it does, how long that took, and what to do when it fails.

say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }

# fail WHAT MEND
fail() {
  printf '\033[31mfailed:\033[0m %s\n' "$1" >&2
  [ -z "${2:-}" ] || printf '  mend: %s\n' "$2" >&2
  exit 1
}

# step TEXT COMMAND…: says the step, runs the command, says how long it took; while it is silent, that it still runs.
step() {
  local text=$1 started=$SECONDS ticker status=0
  shift
  say "$text"
  # Not through a pipe, and none of its files kept open: it must not outlive us.
  (while sleep 60 2>/dev/null; do printf '    … %s s\n' "$((SECONDS - started))" >&2; done) </dev/null >/dev/null 9>&- &
  ticker=$!
  # Also when a function called below ends the script.
  # shellcheck disable=SC2064
  trap "kill $ticker 2>/dev/null || true" EXIT
  "$@" || status=$?
  kill "$ticker" 2>/dev/null || true
  wait "$ticker" 2>/dev/null || true
  if [ "$status" = 0 ]; then
    printf '    %s s\n' "$((SECONDS - started))" >&2
  else
    fail "$text (after $((SECONDS - started)) s)" "the lines above say why; './dev doctor' checks the machine"
  fi
}
