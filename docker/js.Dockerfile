# The JavaScript peer of the interop tests (interop/js), on the Node.js of its own package-lock.json.
ARG NODE_IMAGE=node:22-bookworm-slim

FROM ${NODE_IMAGE} AS build
WORKDIR /opt/peer
COPY interop/js/package.json interop/js/package-lock.json interop/js/.npmrc ./
# without its scripts the package "node" brings no second Node.js: the image has one
RUN npm ci --omit=dev --ignore-scripts --no-audit --no-fund
COPY interop/js/*.js ./

FROM ${NODE_IMAGE}
RUN useradd --system --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin vouch
COPY --from=build /opt/peer /opt/peer
RUN printf '#!/bin/sh\nexec node /opt/peer/main.js "$@"\n' > /usr/local/bin/js-peer && chmod 755 /usr/local/bin/js-peer
USER 10001:10001
EXPOSE 4001
HEALTHCHECK CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/4010"]
CMD ["js-peer", "--listen=/ip4/0.0.0.0/tcp/4001", "--control=127.0.0.1:4010"]
