# Mailfleet's images for those who have a registry:   docker build --target mailfleet -t mailfleet .
# `make images` builds the same (same Debian, same Python, user, environment and entry point) without one.
#
# PYTHON_IMAGE is a tag here, so that a build of today has today's fixes. A release is built from a digest, which
# `docker buildx imagetools inspect python:3.13-slim-trixie` prints:  --build-arg PYTHON_IMAGE=python@sha256:<that>
ARG PYTHON_IMAGE=python:3.13-slim-trixie

FROM ${PYTHON_IMAGE} AS build
ARG UV_VERSION=0.13.9
RUN pip install --no-cache-dir "uv==${UV_VERSION}"
WORKDIR /src
COPY pyproject.toml uv.lock ./
COPY core core
COPY services services
COPY cli cli
COPY operator operator
COPY scripts/image-packages.sh scripts/image-packages.sh

FROM build AS build-mailfleet
RUN scripts/image-packages.sh /app/lib mailfleet-cli mailfleet-egress

FROM build AS build-mailfleet-operator
RUN scripts/image-packages.sh /app/lib mailfleet-operator

FROM ${PYTHON_IMAGE} AS base
ARG VERSION=0.1.0
ARG REVISION=
ENV PATH=/app/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONPATH=/app/lib \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    LANG=C.UTF-8
LABEL org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.vendor="Mailfleet"
RUN groupadd --gid 65532 mailfleet && \
    useradd --uid 65532 --gid 65532 --home-dir /tmp --no-create-home --shell /usr/sbin/nologin mailfleet && \
    mkdir -p /app/bin && \
    printf '#!/bin/sh\nexec python -m mailfleet_cli "$@"\n' >/app/bin/mailfleet && \
    chmod 755 /app/bin/mailfleet
USER 65532:65532
WORKDIR /
# Each service answers there once its loop runs; where no service runs (a command), Docker's verdict does not matter.
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/healthz', timeout=2)"]
ENTRYPOINT ["python", "-m"]

FROM base AS mailfleet-operator
COPY --from=build-mailfleet-operator /app/lib /app/lib
LABEL org.opencontainers.image.title="Mailfleet: operator for Kubernetes"
CMD ["mailfleet_operator"]

FROM base AS mailfleet
COPY --from=build-mailfleet /app/lib /app/lib
LABEL org.opencontainers.image.title="Mailfleet: ingest, router, sender, egress proxy and command line"
CMD ["mailfleet_cli", "--help"]
