#!/bin/bash
# Makes the infra images from Debian packages and Go modules where the official ones cannot be pulled: the same variables,
# volumes and users. Each image is tagged with a hash of its recipe, so that it is made once; one maker at a time.
#
# Prints `NAME=image` lines for .env on standard output; everything else goes to standard error.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
say() { printf 'infra: %s\n' "$*" >&2; }
present() { docker image inspect "$1" >/dev/null 2>&1; }
recipe() { cat "$@" | sha256sum | cut -c1-12; }
exec 9>"${TMPDIR:-/tmp}/trivet-infra.lock"
flock --nonblock 9 || { say "another run is making the images, waiting for it"; flock 9; }

mode=root
# Without root, in a user namespace.
[ "$(id -u)" = 0 ] || mode=unshare
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
mirror=$("$here/../debian-mirror.sh")
# A fixed time for everything in the images.
export SOURCE_DATE_EPOCH=1767225600

debian() { # debian OUTPUT PACKAGES [mmdebstrap options…]
  local output=$1 packages=$2
  shift 2
  mmdebstrap --mode="$mode" --variant=essential --format=tar --quiet \
    --aptopt='Acquire::Check-Valid-Until "false"' --aptopt='Acquire::Retries "3"' \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/info/*' \
    --dpkgopt='path-exclude=/usr/lib/postgresql/17/lib/bitcode/*' \
    --include="$packages" "$@" trixie "$output" "$mirror" >&2
}

postgres() {
  debian "$work/postgres.tar" postgresql-17 --skip=cleanup/run \
    --essential-hook='echo "postgres:x:70:" >> "$1/etc/group"; echo "postgres:x:70:70::/var/lib/postgresql:/bin/sh" >> "$1/etc/passwd"' \
    --essential-hook='mkdir -p "$1/etc/postgresql-common"; echo "create_main_cluster = false" > "$1/etc/postgresql-common/createcluster.conf"' \
    --customize-hook="$here/postgres-hook.sh"
  docker import \
    --change 'ENV PATH=/usr/lib/postgresql/17/bin:/usr/local/bin:/usr/bin:/bin PGDATA=/var/lib/postgresql/data LANG=C.UTF-8 PG_MAJOR=17' \
    --change 'USER 70:70' --change 'WORKDIR /' --change 'VOLUME /var/lib/postgresql/data' --change 'EXPOSE 5432' \
    --change 'ENTRYPOINT ["docker-entrypoint.sh"]' --change 'CMD ["postgres"]' "$work/postgres.tar" "$1" >/dev/null
}

redis() {
  debian "$work/redis.tar" redis-server,redis-tools \
    --essential-hook='echo "redis:x:1000:" >> "$1/etc/group"; echo "redis:x:999:1000::/data:/bin/sh" >> "$1/etc/passwd"' \
    --customize-hook='rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/* "$1"/var/log/* "$1"/etc/redis/*' \
    --customize-hook='install -d -o 999 -g 1000 -m 755 "$1/data"'
  docker import --change 'ENV PATH=/usr/local/bin:/usr/bin:/bin LANG=C.UTF-8' --change 'USER 999:1000' --change 'WORKDIR /data' \
    --change 'VOLUME /data' --change 'EXPOSE 6379' --change 'CMD ["redis-server"]' "$work/redis.tar" "$1" >/dev/null
}

# Jaeger v2 from its Go module (v1.76.0 is v2.13.0), with the production build of its UI, which the module lacks and the crate
# otlp-embedded 0.0.2 carries.
jaeger() {
  command -v go >/dev/null || { say "Go 1.26 or newer is missing: Jaeger cannot be made"; return 1; }
  local module ui
  (
    cd "$work"
    export CGO_ENABLED=0 GOFLAGS="-buildvcs=false -trimpath" GOTOOLCHAIN=local
    module=$(go mod download -json github.com/jaegertracing/jaeger@v1.76.0 | sed -n 's/.*"Dir": "\(.*\)".*/\1/p')
    cp -r "$module" jaeger && chmod -R u+w jaeger
    CARGO_HOME=$work/cargo cargo info --quiet otlp-embedded@0.0.2 >/dev/null
    ui=$(echo "$work"/cargo/registry/src/*/otlp-embedded-0.0.2/jaeger-ui/build)
    rm -rf jaeger/cmd/query/app/ui/actual/* && cp -r "$ui"/. jaeger/cmd/query/app/ui/actual/
    find jaeger/cmd/query/app/ui/actual -type f ! -name .gitignore -exec gzip -n -9 {} +
    mkdir -p root/cmd/jaeger root/etc root/tmp
    cd jaeger && go build -ldflags "-s -w -X github.com/jaegertracing/jaeger/internal/version.latestVersion=v2.13.0" -o ../root/cmd/jaeger/jaeger-linux ./cmd/jaeger
  ) >&2
  echo 'jaeger:x:10001:10001::/:/bin/false' >"$work/root/etc/passwd"
  echo 'jaeger:x:10001:' >"$work/root/etc/group"
  tar -C "$work/root" --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner -cf - . | docker import \
    --change 'ENV PATH=/bin' --change 'USER 10001:10001' --change 'EXPOSE 4317 4318 13133 16686' \
    --change 'ENTRYPOINT ["/cmd/jaeger/jaeger-linux"]' - "$1" >/dev/null
}

make() { # make VARIABLE NAME RECIPE-FILES…
  local variable=$1 name=$2 image started=$SECONDS
  shift 2
  image=trivet/local-$name:$(recipe "$@")
  if ! present "$image"; then
    say "making $image"
    "$name" "$image"
    say "made in $((SECONDS - started)) s"
  fi
  echo "$variable=$image"
}

make POSTGRES_IMAGE postgres "$here/make.sh" "$here/postgres-hook.sh" "$here/postgres-entrypoint.sh"
make REDIS_IMAGE redis "$here/make.sh"
make JAEGER_IMAGE jaeger "$here/make.sh"
