#!/bin/sh
# mmdebstrap customize hook: $1 is the root of the image
set -eu
r=$1
sed -i "s/^#*listen_addresses *=.*/listen_addresses = '*'/" "$r/usr/share/postgresql/17/postgresql.conf.sample"
# the JIT (LLVM), perl and the Debian cluster tools are not needed to serve
rm -f "$r"/usr/lib/postgresql/17/lib/llvmjit.so "$r"/usr/lib/x86_64-linux-gnu/libLLVM* "$r"/usr/lib/x86_64-linux-gnu/libz3* "$r"/usr/lib/x86_64-linux-gnu/libperl*
rm -rf "$r"/usr/share/perl "$r"/usr/share/perl5 "$r"/usr/lib/x86_64-linux-gnu/perl "$r"/usr/share/postgresql/17/man "$r"/usr/share/i18n "$r"/var/lib/apt/lists/* "$r"/var/cache/* "$r"/var/log/*
rm -f "$r/etc/ssl/private/ssl-cert-snakeoil.key"
install -m 755 "$(dirname "$0")/postgres-entrypoint.sh" "$r/usr/local/bin/docker-entrypoint.sh"
mkdir -p "$r/docker-entrypoint-initdb.d"
install -d -o 70 -g 70 -m 3775 "$r/run/postgresql"
install -d -o 70 -g 70 -m 700 "$r/var/lib/postgresql/data"
chown 70:70 "$r/var/lib/postgresql"
