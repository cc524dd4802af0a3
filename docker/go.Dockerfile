# The Go peer of the interop tests (interop/go).
ARG GO_IMAGE=golang:1.26-bookworm
ARG RUNTIME_IMAGE=debian:bookworm-slim

FROM ${GO_IMAGE} AS build
ENV CGO_ENABLED=0
WORKDIR /src
COPY interop/go/go.mod interop/go/go.sum ./
RUN go mod download
COPY interop/go/*.go ./
RUN go build -trimpath -ldflags="-s -w" -o /go-peer .

FROM ${RUNTIME_IMAGE}
RUN useradd --system --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin vouch
COPY --from=build /go-peer /usr/local/bin/go-peer
USER 10001:10001
EXPOSE 4001
HEALTHCHECK CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/4010"]
CMD ["go-peer", "--listen=/ip4/0.0.0.0/tcp/4001", "--control=127.0.0.1:4010"]
