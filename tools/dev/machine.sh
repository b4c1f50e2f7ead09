# shellcheck shell=bash
# What this machine has: Docker (installed and started where that is possible), disk, memory, ports, clock.

docker_answers() { docker version >/dev/null 2>&1; }

# Installs a Debian package when its command is missing and the caller may.
machine_package() {
  local tool=$1 package=$2
  command -v "$tool" >/dev/null && return
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    say "installing $package (for $tool)"
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$package"; } >/dev/null 2>&1 ||
      fail "apt-get install $package did not succeed" "run it by hand and look at what it says"
  else
    fail "$tool is missing" "install $package with your package manager"
  fi
}

# Docker answers when this returns.
machine_docker() {
  docker_answers && return
  machine_package dockerd docker.io
  docker_answers && return
  [ "$(id -u)" = 0 ] || fail "Docker does not answer" "start it (sudo systemctl start docker) or join the group 'docker'"
  say "starting Docker"
  # Not a child that this script's end would take along, and none of its files kept open.
  setsid nohup dockerd >/var/log/dockerd-trivet.log 2>&1 </dev/null 9>&- &
  local tries=0
  until docker_answers; do
    tries=$((tries + 1))
    [ "$tries" -lt 60 ] || fail "dockerd did not start" "look at /var/log/dockerd-trivet.log"
    sleep 0.5
  done
}

check() { # check OK TEXT MEND
  if [ "$1" = yes ]; then printf '  ok       %s\n' "$2"; else
    printf '  \033[31mproblem\033[0m  %s\n           mend: %s\n' "$2" "$3"
    problems=$((problems + 1))
  fi
}

# at_least FOUND WANTED: compares dotted versions.
at_least() { [ "$(printf '%s\n' "$2" "$1" | sort --version-sort | head -n 1)" = "$2" ]; }

yes_if() { if "$@" >/dev/null 2>&1; then echo yes; else echo no; fi; }

port_free_or_ours() {
  ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null || docker ps --format '{{.Names}} {{.Ports}}' | grep -q "^trivet.*127.0.0.1:$1->"
}

machine_doctor() {
  problems=0
  local disk memory
  disk=$(df --output=avail -BG "$root" | tail -n 1 | tr -dc 0-9)
  memory=$(awk '/MemAvailable/ {print int($2 / 1048576)}' /proc/meminfo)
  check "$(yes_if test "$disk" -ge 15)" "$disk GB of disk free, 15 are needed" "free some, or ./dev clean"
  check "$(yes_if test "$memory" -ge 6)" "$memory GB of memory available, 6 are needed for a build" "close something large"
  check "$(yes_if command -v docker)" "the docker client is there" "apt-get install docker.io"
  check "$(yes_if docker_answers)" "Docker answers" "start it: ./dev up does so as root"
  if docker_answers; then
    local server
    server=$(docker version --format '{{.Server.Version}}')
    check "$(yes_if at_least "$server" 20.10)" "Docker is $server, 20.10 or newer is needed" "install a newer one"
    for port in 3001 3002 3003 16686; do
      check "$(yes_if port_free_or_ours "$port")" "port $port is free or ours" "stop what listens there, or set another port in .env"
    done
  fi
  check "$(yes_if test ! -e .env -o -r .env)" ".env is absent (made by up) or readable" "chmod u+r .env"
  # Nothing here was made in the future: a clock before the last commit is wrong.
  check "$(yes_if test "$(date +%s)" -ge "$(git -C "$root" log -1 --format=%ct 2>/dev/null || echo 0)")" \
    "the clock says $(date -u +%Y-%m-%dT%H:%MZ), not before the last commit" "set the clock; tokens and certificates depend on it"
  [ "$problems" = 0 ] || { echo "$problems problem(s)"; return 1; }
  echo "nothing to mend"
}
