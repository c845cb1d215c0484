#!/bin/sh
# Replaces each instance of web: it starts a new one, waits until that is healthy, and stops the old one.
set -eu
compose=${COMPOSE:-docker-compose}

health() {
    docker inspect -f '{{.State.Health.Status}}' "$1"
}

old=$($compose ps -q web)
more=$(($(echo "$old" | wc -l) + 1))
for instance in $old; do
    before=$($compose ps -q web)
    $compose up -d --no-deps --no-recreate --scale "web=$more" web
    new=$($compose ps -q web | grep -vxF "$before")
    while [ "$(health "$new")" = starting ]; do sleep 0.2; done
    if [ "$(health "$new")" != healthy ]; then
        echo "the new instance $new is not healthy, so the old ones stay" >&2
        exit 1
    fi
    docker stop "$instance"
    docker rm "$instance"
done
