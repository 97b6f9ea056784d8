# The project's commands. `./justw RECIPE` runs them and gets `just` when it is missing; CI runs the same.

set positional-arguments := true

# List the recipes
default:
    @"{{ just_executable() }}" --list --unsorted

# Find or install what the build and the demo need, or also what the tests need: `setup test`
setup what="demo":
    @tools/setup "$1"

# Show the pipeline at work on a local Kafka and Postgres: `demo --once`, `demo --mail FILE.mbox`
demo *args: setup
    @exec cargo run --release --locked --package mailtide -- demo "$@"

# Run all tests, or those that are named
test *args: (setup "test")
    @exec cargo test --workspace --locked "$@"

# Try the laws on cases that were never drawn before, in so many rounds: `laws 20`
laws rounds="10": setup
    #!/bin/sh
    set -eu
    for round in $(seq "$1"); do
        echo "round $round of $1"
        PROPTEST_CASES="${PROPTEST_CASES:-2000}" cargo test --workspace --locked --lib --quiet
    done

# Trouble a whole installation by a seeded plan of faults, then count: `chaos 60`, `chaos 60 SEED`, `chaos 3 --only KINDS`
chaos *args: (setup "test")
    cargo build --locked --package mailtide-tests --bin mailtide-under-test --package mailtide-chaos --bin mailtide-chaos
    @exec "${CARGO_TARGET_DIR:-target}/debug/mailtide-chaos" "$@"

# Check format and lints
lint: setup
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked -- -D warnings

# All that CI checks
verify: lint test

# Format the code
fmt:
    cargo fmt --all

# Measure against the limits of the same machine; results go to target/bench/
bench *args: setup
    @exec cargo run --release --locked --package mailtide-bench -- "$@"

# Publish edited schemas: the next version of each, with its id and golden bytes
schemas:
    cargo run --locked --package events --example publish

# Start a Kafka and a Postgres, print where they are, and keep them until Ctrl-C
stack: setup
    @exec cargo run --locked --package devstack
