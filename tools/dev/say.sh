# shellcheck shell=bash
# How ./dev talks: what it does, how long that took, and what to do when it fails.

say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }

# fail WHAT MEND
fail() {
  printf '\033[31mfailed:\033[0m %s\n' "$1" >&2
  [ -z "${2:-}" ] || printf '  mend: %s\n' "$2" >&2
  exit 1
}

# step TEXT COMMAND…: says the step, runs the command, says how long it took.
step() {
  local text=$1 started=$SECONDS
  shift
  say "$text"
  if "$@"; then
    printf '    %s s\n' "$((SECONDS - started))" >&2
  else
    fail "$text (after $((SECONDS - started)) s)" "the lines above say why; './dev doctor' checks the machine"
  fi
}
