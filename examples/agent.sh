#!/bin/sh
# An agent in shell: takes what is ready, works on it, says how it went, until nothing is left. agent.sh [NAME]
set -eu
name=${1:-agent-$$}
field() { python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }

while claim=$(taskstore claim --by "$name" --json); do
    id=$(printf %s "$claim" | field id)
    token=$(printf %s "$claim" | field token)
    echo "$id: $(printf %s "$claim" | field phase_name)"
    if true; then    # your work here
        taskstore complete "$id" --by "$name" --token "$token"
    else
        taskstore fail "$id" --by "$name" --token "$token"
    fi
done
