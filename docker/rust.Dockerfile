# The Rust peer of the interop tests (interop/rust).
ARG RUST_IMAGE=rust:1.95-slim-bookworm
ARG RUNTIME_IMAGE=debian:bookworm-slim

FROM ${RUST_IMAGE} AS build
WORKDIR /src
# the dependencies first, with a program that does nothing: they are nearly all of the time
COPY interop/rust/Cargo.toml ./
RUN mkdir -p src/bin && echo 'fn main() {}' | tee src/main.rs > src/bin/quic_reset.rs && \
    cargo build --release --quiet && rm -r src
COPY interop/rust/src src
RUN touch src/main.rs && cargo build --release --quiet --bin rust-peer && strip -o /rust-peer target/release/rust-peer

FROM ${RUNTIME_IMAGE}
RUN useradd --system --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin vouch
COPY --from=build /rust-peer /usr/local/bin/rust-peer
USER 10001:10001
EXPOSE 4001
HEALTHCHECK CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/4010"]
CMD ["rust-peer", "--listen=/ip4/0.0.0.0/tcp/4001", "--control=127.0.0.1:4010"]
