# Targets: node, a vouch node; tools, the same with the programs of interop/; check, with a Go peer for
# interop/compose/check.py to publish with. Versions come from constraints.txt; of Python nothing is compiled.
ARG PYTHON_IMAGE=python:3.13-slim-bookworm
ARG GO_IMAGE=golang:1.26-bookworm

FROM ${PYTHON_IMAGE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 UV_NO_CACHE=1 UV_COMPILE_BYTECODE=1
ARG UV_VERSION=0.13.8
RUN python -m venv /opt/uv && /opt/uv/bin/pip install --quiet "uv==${UV_VERSION}" \
    && python -m venv --without-pip /opt/vouch
WORKDIR /src
# what the node needs first: it changes seldom, and is most of the image
COPY pyproject.toml constraints.txt README.md LICENSE ./
RUN /opt/uv/bin/uv pip compile --quiet --constraint constraints.txt --output-file requirements.txt pyproject.toml \
    && /opt/uv/bin/uv pip install --quiet --python /opt/vouch/bin/python --no-deps --requirement requirements.txt
COPY protocols protocols
COPY node node
RUN /opt/uv/bin/uv pip install --quiet --python /opt/vouch/bin/python --no-deps .

FROM ${PYTHON_IMAGE} AS node
RUN useradd --system --uid 10001 --user-group --home-dir /var/lib/vouch --create-home --shell /usr/sbin/nologin vouch
COPY --from=build /opt/vouch /opt/vouch
COPY docker/verdict /opt/vouch/verdict
ENV PATH=/opt/vouch/bin:$PATH VOUCH_DATA_DIR=/var/lib/vouch
USER 10001:10001
WORKDIR /var/lib/vouch
VOLUME /var/lib/vouch
EXPOSE 4001
HEALTHCHECK CMD ["vouch", "health"]
CMD ["vouch", "run", "--listen", "/ip4/0.0.0.0/tcp/4001"]

FROM node AS tools
ENV PYTHONPATH=/opt/interop
COPY interop/*.py /opt/interop/interop/
COPY interop/compose /opt/interop/interop/compose
COPY interop/contract /opt/interop/interop/contract
WORKDIR /opt/interop
HEALTHCHECK NONE

FROM ${GO_IMAGE} AS go
ENV CGO_ENABLED=0
WORKDIR /src
COPY interop/go/go.mod interop/go/go.sum ./
RUN go mod download
COPY interop/go/*.go ./
RUN go build -trimpath -ldflags="-s -w" -o /go-peer .

FROM tools AS check
COPY --from=go /go-peer /opt/interop/interop/.built/go-peer
ENTRYPOINT ["python", "-m", "interop.compose.check"]
