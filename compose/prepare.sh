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
# A simulator stands in for whom there is no key of, and a key goes to nobody but its owner. Another choice than ours stays.
profiles=$(sed -n 's/^COMPOSE_PROFILES=//p' "$env")
case "$profiles" in
  simulators | llm-simulator | stripe-simulator | "")
    wanted=()
    if [ -s "$root/secrets/openai_api_key" ]; then
      grep -q '^OPENAI_BASE_URL=' "$env" || set_line OPENAI_BASE_URL https://api.openai.com/v1
    else
      wanted+=(llm-simulator)
    fi
    if [ "$(cat "$root/secrets/stripe_secret_key")" = sk_test_simulator ]; then
      wanted+=(stripe-simulator)
    else
      grep -q '^STRIPE_API_BASE=' "$env" || set_line STRIPE_API_BASE https://api.stripe.com
    fi
    # One name for both.
    simulators=$(IFS=,; echo "${wanted[*]}")
    [ "${#wanted[@]}" != 2 ] || simulators=simulators
    if [ "$simulators" != "$profiles" ]; then
      echo "simulators that run: ${simulators:-none} (COMPOSE_PROFILES in .env)" >&2
      set_line COMPOSE_PROFILES "$simulators"
    fi
    ;;
esac
