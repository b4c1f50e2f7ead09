#!/bin/bash
# Makes what the compose files read and git does not have: .env and secrets/, where they are missing.
# Arguments: the maker of secrets, and the repository.
set -euo pipefail
secrets=$1 root=$2
env=$root/.env

[ -e "$env" ] || install -m 600 "$root/.env.docker.example" "$env"
# A last line without its end would run into the next.
[ -z "$(tail -c 1 "$env")" ] || echo >>"$env"

set_line() { # set_line NAME VALUE
  if grep -q "^$1=" "$env"; then sed -i "s|^$1=.*|$1=$2|" "$env"; else echo "$1=$2" >>"$env"; fi
}

set_line TRIVET_SECRETS_DIGEST "$("$secrets" "$root/secrets")"
# With a provider's key the simulator goes, and the key goes to nobody but the provider.
if [ -s "$root/secrets/openai_api_key" ] && grep -q '^COMPOSE_PROFILES=simulators$' "$env"; then
  echo "there is a provider's key: the simulator is switched off (COMPOSE_PROFILES in .env)" >&2
  set_line COMPOSE_PROFILES ""
  grep -q '^OPENAI_BASE_URL=' "$env" || set_line OPENAI_BASE_URL https://api.openai.com/v1
fi
