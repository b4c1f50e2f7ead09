# shellcheck shell=bash
# The stack: up, down, test, status.

# The infra images are here when this returns: official ones by tag where they can be pulled, else made here and named in .env.
stack_infra_images() {
  local name official
  [ -e .env ] || install -m 600 .env.docker.example .env
  # Images of another choice than ours are the operator's business; ours are made again when their recipe changes.
  if grep -q '^POSTGRES_IMAGE=' .env && ! grep -q '^POSTGRES_IMAGE=trivet/local-' .env; then return; fi
  for official in postgres:17-alpine redis:8-alpine jaegertracing/jaeger:2.13.0; do
    docker image inspect "$official" >/dev/null 2>&1 || timeout 120 docker pull --quiet "$official" >/dev/null 2>&1 || { name=missing; break; }
  done
  [ "${name:-}" = missing ] || return 0
  say "the official infra images cannot be pulled: Postgres, Redis and Jaeger are made here (about four minutes, once per recipe)"
  machine_package mmdebstrap mmdebstrap
  step "making the infra images" stack_make_infra
}

stack_make_infra() {
  local lines
  lines=$(tools/infra/make.sh) || return 1
  sed -i '/^\(POSTGRES\|REDIS\|JAEGER\)_IMAGE=trivet\/local-/d' .env
  # A last line without its end would run into the next.
  [ -z "$(tail -c 1 .env)" ] || echo >>.env
  printf '%s\n' "$lines" >>.env
}

# secret NAME: reads the value from standard input; `./dev up` afterwards makes new containers of what reads it.
stack_secret() {
  [ $# = 1 ] || fail "secret takes a name: openai_api_key, stripe_secret_key or stripe_webhook_secrets" "printf %s \"\$KEY\" | ./dev secret openai_api_key"
  in_toolbox bazel run --noshow_progress --ui_event_filters=-info,-stdout //tools/secrets -- "$root/secrets" --set "$1" >/dev/null
  say "$1 is set; './dev up' makes new containers of what reads it"
}

# service-key NAME: a key for a program of the operator's; auth-service knows it after `./dev up`.
stack_service_key() {
  [ $# = 1 ] || fail "service-key takes the name of a program" "./dev service-key console"
  in_toolbox bazel run --noshow_progress --ui_event_filters=-info,-stdout //tools/secrets -- "$root/secrets" --service "$1" >/dev/null
  say "secrets/${1//-/_}_key.pem is its key; './dev up' makes a new container of auth-service, which knows it then"
}

stack_up() {
  local started=$SECONDS progress=()
  # A bar on a terminal; elsewhere a line each half minute.
  [ -t 2 ] || progress=(--curses=no --color=no --show_progress_rate_limit=30)
  machine_docker
  stack_infra_images
  toolbox_ready_if_needed
  step "building and starting the stack" in_toolbox bazel run "${progress[@]}" --ui_event_filters=-info,-stdout //compose:up
  stack_status
  cat <<EOF

Up in $((SECONDS - started)) s. Three things to try:
  curl -s http://localhost:3001/health
  ./dev logs chat-service
  sed -n '/^## The first completion/,/^Any OpenAI/p' README.md
EOF
}

toolbox_ready_if_needed() { [ "$(toolbox_mode)" = direct ] || toolbox_ready; }

stack_down() {
  machine_docker
  case "${1:-}" in
    --volumes) step "stopping the stack and forgetting its data" in_toolbox docker compose --profile '*' down --remove-orphans --volumes ;;
    "") step "stopping the stack" in_toolbox docker compose --profile '*' down --remove-orphans ;;
    *) fail "down takes --volumes or nothing" "./dev help" ;;
  esac
}

stack_status() {
  machine_docker
  printf '\n%-18s %-26s %-22s %9s %10s\n' service url health image memory
  local service id url health image size memory used
  used=$(docker stats --no-stream --format '{{.ID}} {{.MemUsage}}' | cut -d/ -f1)
  for service in auth-service chat-service billing-service llm-simulator stripe-simulator postgres redis jaeger; do
    id=$(docker ps --quiet --filter "label=com.docker.compose.project=${COMPOSE_PROJECT_NAME:-trivet}" --filter "label=com.docker.compose.service=$service" | head -n 1)
    [ -n "$id" ] || { printf '%-18s %-26s %s\n' "$service" - "not running"; continue; }
    url=$(docker port "$id" 2>/dev/null | sed -n 's/.*-> \(.*\)/http:\/\/\1/p' | head -n 1)
    health=$(docker inspect --format '{{if .State.Health}}{{.State.Health.Status}}{{else}}{{.State.Status}}{{end}}' "$id")
    image=$(docker inspect --format '{{.Image}}' "$id")
    size=$(docker image inspect --format '{{.Size}}' "$image" | awk '{printf "%.1f MB", $1 / 1000000}')
    memory=$(sed -n "s/^$id //p" <<<"$used")
    printf '%-18s %-26s %-22s %9s %10s\n' "$service" "${url:--}" "$health" "$size" "$memory"
  done
}

stack_test() {
  machine_docker
  stack_infra_images
  local flags=() failed=0
  [ -z "${CI:-}" ] || flags=(--config=ci)
  say "bazel test //... (unit, integration on real Postgres and Redis, images, policies, documents, lint)"
  in_toolbox bazel test "${flags[@]}" "$@" //... || failed=1
  if [ -n "${CI:-}" ]; then
    say "fuzzing each parser for a minute, all at once"
    stack_fuzz 60 "${flags[@]}" "$@" || failed=1
  fi
  say "licences of all crates, by deny.toml"
  in_toolbox python3 tools/policy/licenses.py || failed=1
  say "loading the images and running the journey and the fault drills on a stack of their own"
  in_toolbox bazel run --noshow_progress //oci:load || failed=1
  in_toolbox bazel run --noshow_progress //e2e:e2e 2>&1 | tee "$state/e2e.log" || failed=1
  in_toolbox python3 tools/docs/examples.py --kind repo README.md docs/guides/*.md || failed=1
  in_toolbox python3 tools/dev/count.py "$failed" bazel-testlogs "$state/e2e.log"
}

# fuzz SECONDS [FLAGS]: each parser is fuzzed for so long, all at once; says seeds, branches and outcomes, and the input that failed.
stack_fuzz() {
  local seconds=$1 of=billing-service_fuzz_test failed=0
  shift
  in_toolbox bazel test "$@" --cache_test_results=no --test_timeout=$((seconds + 600)) --test_env=TRIVET_FUZZ_SECONDS="$seconds" \
    --nozip_undeclared_test_outputs \
    "//services/billing-service:$of" || failed=1
  in_toolbox grep -A1 '^fuzzing ' "bazel-testlogs/services/billing-service/$of/test.log" || failed=1
  return "$failed"
}

# soak [KILLS]: what `./dev test` does in a bounded form, for as long as it takes.
stack_soak() {
  local kills=${1:-1000} failed=0 started=$SECONDS
  [[ $kills =~ ^[0-9]+$ ]] || fail "soak takes a number of kills" "./dev soak 1000"
  machine_docker
  stack_infra_images
  say "100,000 random commands beside the reference model"
  in_toolbox bazel test --cache_test_results=no --test_timeout=86400 --test_output=errors --test_env=TRIVET_PROOF_STEPS=100000 \
    //services/billing-service:billing-service_proof_test || failed=1
  say "fuzzing each parser for ten minutes, all at once"
  stack_fuzz 600 || failed=1
  say "twenty-four virtual months of 500 organizations"
  in_toolbox bazel test --cache_test_results=no --test_timeout=86400 --test_output=all --test_env=TRIVET_PROOF_ORGANIZATIONS=500 \
    --test_arg=after_twenty_four --test_arg=--nocapture //services/billing-service:billing-service_api_test || failed=1
  say "$kills kills of programs"
  # A new stack for each few hundred: the simulator of Stripe writes all of its account down for each answer.
  local left=$kills seed=1 some
  while [ "$left" -gt 0 ]; do
    some=$((left < 250 ? left : 250))
    in_toolbox bazel run --noshow_progress //proof:kills -- --kills "$some" --seed "$seed" || failed=1
    left=$((left - some)) seed=$((seed + 1))
  done
  say "$((kills / 10)) kills of processes in the containers of a stack of its own"
  in_toolbox bazel run --noshow_progress //oci:load || failed=1
  in_toolbox bazel run --noshow_progress //e2e:e2e -- --kills "$((kills / 10))" || failed=1
  say "the soak took $(((SECONDS - started) / 60)) minutes"
  [ "$failed" = 0 ] || fail "the soak found something" "the lines above have the seeds"
}
