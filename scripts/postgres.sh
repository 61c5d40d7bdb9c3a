#!/usr/bin/env bash
# A PostgreSQL server for trying, for tests and for benches, in target/postgres, on a socket only.
#   scripts/postgres.sh start     installs it by apt if it is missing, starts it, prints its address
#   scripts/postgres.sh stop      ends it; its data stay
#   scripts/postgres.sh remove    ends it and removes its data
# For example: export OTAVA_POSTGRES_URL="$(scripts/postgres.sh start)"
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

folder=${OTAVA_POSTGRES_FOLDER:-$PWD/target/postgres}
# The path of a socket may have 107 bytes.
socket=/tmp/otava-postgres-$(id -u)
action=${1:-start}

programs() { # prints the newest folder that has a server
  local folder
  for folder in $(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -rV) /usr/local/bin /usr/bin; do
    if [ -x "$folder/initdb" ] && [ -x "$folder/pg_ctl" ]; then
      echo "$folder"
      return
    fi
  done
  return 1
}

as_server() { # a server refuses to run as root
  if [ "$(id -u)" = 0 ]; then setpriv --reuid=postgres --regid=postgres --init-groups -- "$@"; else "$@"; fi
}

if ! bin=$(programs); then
  [ "$action" = start ] || exit 0
  { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; } || {
    echo "there is no PostgreSQL, and it can only be installed here by root with apt-get" >&2
    exit 1
  }
  DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends postgresql >&2
  bin=$(programs)
fi

running() { [ -d "$folder/data" ] && as_server "$bin/pg_ctl" -D "$folder/data" status >/dev/null 2>&1; }

case $action in
  start)
    if ! running; then
      mkdir -p "$folder" "$socket"
      [ "$(id -u)" != 0 ] || chown postgres "$folder" "$socket"
      if [ ! -d "$folder/data" ]; then
        as_server "$bin/initdb" -D "$folder/data" -A trust -U otava -E UTF8 --locale=C --data-checksums >/dev/null
      fi
      as_server "$bin/pg_ctl" -s -w -D "$folder/data" -l "$folder/log" \
        -o "-k $socket -c listen_addresses= -c max_connections=300" start </dev/null >/dev/null
    fi
    echo "host=$socket user=otava dbname=postgres"
    ;;
  stop) if running; then as_server "$bin/pg_ctl" -s -D "$folder/data" -m fast stop; fi ;;
  remove)
    if running; then as_server "$bin/pg_ctl" -s -D "$folder/data" -m immediate stop; fi
    rm -rf "$folder" "$socket"
    ;;
  *)
    echo "usage: $0 [start|stop|remove]" >&2
    exit 2
    ;;
esac
