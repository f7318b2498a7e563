# Shortcuts for people (https://just.systems). Nothing needs them: `bash .ci/run` is the gate.

# What there is.
_default:
    @just --list --unsorted

# Check all that the gate checks, but for the demo. Writes nothing outside the target directory.
verify:
    bash .ci/run tree format lint test deny

# Put right what a machine can put right: clippy's own corrections, the generated OpenAPI file, the layout.
fix: && openapi
    cargo clippy --fix --workspace --all-targets --all-features --allow-dirty --allow-staged
    cargo fmt --all

# Three nodes and three servers on this machine, a failover with its reasons; `just demo --once` ends by itself.
demo *args:
    cargo run --release -- demo {{ args }}

# The overload of which `tests/starvation.rs` tries ten seconds, for the whole minute that is promised.
starve seconds="60":
    BATON_STARVE_SECS={{ seconds }} cargo test -p baton --test it -- starvation --nocapture

# Two holders at once are looked for from outside: rounds of killed, stopped, cut-off and moved processes, drawn from a seed.
overlap rounds="300" seed="1":
    BATON_OVERLAP_ROUNDS={{ rounds }} BATON_OVERLAP_SEED={{ seed }} cargo test -p baton --test it -- overlap::no_two --nocapture

# Operators at all nodes and failures raced against each other: each promotion has one token and one record.
race promotions="5000" seed="1":
    BATON_RACE_PROMOTIONS={{ promotions }} BATON_OVERLAP_SEED={{ seed }} cargo test -p baton --test it -- overlap::race --nocapture

# The simulator: fresh seeds for so long (a night is 28800), with faults of every kind. `just seed 123` tells one run again.
sim seconds="28800":
    BATON_SIM_SECS={{ seconds }} cargo test -p baton-core --release --features mutants --test sim -- --nocapture many_seeds

# One run of the simulator, told event by event.
seed number bias="None":
    BATON_SIM_SEED={{ number }} BATON_SIM_BIAS={{ bias }} cargo test -p baton-core --features mutants --test sim -- --nocapture one_seed

# Committed writes on three nodes, with the disk's own fsync rate beside them.
bench *args:
    cargo bench -p baton --bench writes -- {{ args }}

# Write openapi/openapi.json anew from the code.
openapi:
    BATON_UPDATE_OPENAPI=1 cargo test -p baton openapi
