#!/bin/sh
# An agent in shell: takes what is ready, works on it, says how it went, until nothing is left. agent.sh [NAME]
set -eu
name=${1:-agent-$$}
field() { python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }

while true; do
    claim=$(taskstore claim --by "$name" --json) || { status=$?; break; }
    id=$(printf %s "$claim" | field id)
    token=$(printf %s "$claim" | field token)
    echo "$id: $(printf %s "$claim" | field phase_name)"
    if true; then    # your work here
        end=complete
    else
        end=fail
    fi
    # 1: it took us longer than our lease, and somebody else has it
    taskstore $end "$id" --by "$name" --token "$token" || [ $? -eq 1 ]
done
[ "$status" -eq 1 ] || exit "$status"    # 1: nothing is ready; anything else went wrong
