# One image per program, each with its own pinned packages and nothing else:
#     docker build --target issuer   -t gatehouse-issuer .
#     docker build --target verifier -t gatehouse-verifier .
# The target verifier-grpc is the verifier with the packages that VERIFIER_GRPC_BIND needs,
# verifier-native with those of `native envoy` (docs/native.md); issuer-otel and verifier-otel have those that traces need (docs/tracing.md).
# Both run as user 65532 and write to /tmp, only with several workers, and to what is
# mounted at /var/lib/gatehouse (docs/deployment.md). So this fits:
#     docker run --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges

FROM python:3.11-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /app
# Without pip: what fills this environment stays behind in this stage.
RUN python -m venv --without-pip /opt/gatehouse
COPY requirements/install /build/install

FROM build AS build-issuer
COPY requirements/issuer.lock /build/issuer.lock
RUN sh /build/install /opt/gatehouse/bin/python /build/issuer.lock
COPY shared /app/shared
COPY issuer /app/issuer
RUN python -m compileall -q /app

FROM build-issuer AS build-issuer-otel
COPY requirements/otel.lock /build/otel.lock
RUN sh /build/install /opt/gatehouse/bin/python /build/otel.lock

# The gate is compiled (docs/decisions/0009-compiled-gate.md); compiler and mypy stay here.
FROM build AS compile-verifier
# Debian keeps one version of a compiler for a release; it stays in this stage.
# hadolint ignore=DL3008
RUN apt-get -qq update && apt-get -qq install --yes --no-install-recommends gcc libc6-dev
COPY requirements/compile.lock /build/compile.lock
RUN python -m venv /opt/compile && \
    sh /build/install /opt/compile/bin/python /build/compile.lock
COPY shared /app/shared
COPY verifier /app/verifier
COPY deploy/compile.py /build/compile.py
RUN /opt/compile/bin/python /build/compile.py --source /app /app
RUN python -m compileall -q /app

FROM build AS build-verifier
COPY requirements/verifier.lock /build/verifier.lock
RUN sh /build/install /opt/gatehouse/bin/python /build/verifier.lock

FROM build-verifier AS build-verifier-grpc
COPY requirements/grpc.lock /build/grpc.lock
RUN sh /build/install /opt/gatehouse/bin/python /build/grpc.lock

FROM build-verifier AS build-verifier-native
COPY requirements/native.lock /build/native.lock
RUN sh /build/install /opt/gatehouse/bin/python /build/native.lock

FROM build-verifier AS build-verifier-otel
COPY requirements/otel.lock /build/otel.lock
RUN sh /build/install /opt/gatehouse/bin/python /build/otel.lock

FROM python:3.11-slim AS runtime
# A running program installs nothing, and an attacker in it should find no installer.
RUN python -m pip uninstall --yes --quiet --root-user-action ignore setuptools wheel pip
# A new volume that is mounted here belongs to the user: Docker copies owner and mode.
RUN mkdir -m 0700 /var/lib/gatehouse && chown 65532:65532 /var/lib/gatehouse
ENV PATH=/opt/gatehouse/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /app
USER 65532:65532

FROM runtime AS issuer-program
COPY --from=build-issuer /app /app
# Before the first start: docker run ... gatehouse-issuer migrate
ENV ISSUER_BIND=0.0.0.0:8000 ISSUER_ADMIN_BIND=0.0.0.0:8100 ISSUER_DOCS=false
EXPOSE 8000 8100
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["python", "-m", "issuer", "health"]
ENTRYPOINT ["python", "-m", "issuer"]

FROM issuer-program AS issuer-otel
COPY --from=build-issuer-otel /opt/gatehouse /opt/gatehouse

FROM issuer-program AS issuer
COPY --from=build-issuer /opt/gatehouse /opt/gatehouse

FROM runtime AS verifier-program
COPY --from=compile-verifier /app /app
# It listens on every address, and answers only the peers of VERIFIER_TRUSTED_PEERS: the
# gateway. By default that is this machine alone.
ENV VERIFIER_BIND=0.0.0.0:9000 VERIFIER_ADMIN_BIND=0.0.0.0:9100
EXPOSE 9000 9100
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["python", "-m", "verifier", "health"]
ENTRYPOINT ["python", "-m", "verifier"]

FROM verifier-program AS verifier-grpc
COPY --from=build-verifier-grpc /opt/gatehouse /opt/gatehouse
EXPOSE 9200

FROM verifier-program AS verifier-native
COPY --from=build-verifier-native /opt/gatehouse /opt/gatehouse

FROM verifier-program AS verifier-otel
COPY --from=build-verifier-otel /opt/gatehouse /opt/gatehouse

FROM verifier-program AS verifier
COPY --from=build-verifier /opt/gatehouse /opt/gatehouse
