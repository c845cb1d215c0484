# The agent's image. You can build it with BuildKit and with the classic builder.
# If .cache/wheels holds the packages of the lock files, the build needs no network.
ARG PYTHON=python:3.14-slim

FROM ${PYTHON} AS build
WORKDIR /build
# Every file carries this time, so that the same sources make the same layer.
ARG SOURCE_DATE_EPOCH=315532800
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
COPY requirements*.lock .cache/wheel[s] wheels/
COPY pyproject.toml README.md LICENSE ./
COPY registrator registrator
COPY backends backends
COPY scripts/compile_base.py ./
# A read-only container cannot compile modules, so this step does, without time stamps. Also compiled
# are the modules of Python itself that the agent imports, because the base has only their sources. The
# folder `image` is copied into the result, because then its parents have the fixed time, too.
RUN set -eu; \
    pip() { target=$1; shift; python3 -m pip --python "$target" "$@"; }; \
    locked() { \
        pip tools "$@" --require-hashes --no-deps --no-index --find-links=wheels 2>/dev/null || \
        pip tools "$@" --require-hashes --no-deps; \
    }; \
    python3 -m venv --without-pip tools; \
    locked install -r wheels/requirements-build.lock; \
    locked wheel --no-build-isolation -w dist -r wheels/requirements.lock; \
    pip tools wheel --no-deps --no-build-isolation -w dist .; \
    python3 -m venv --without-pip /opt/registrator; \
    pip /opt/registrator install --no-index --no-deps --no-compile --find-links=dist \
        registrator $(sed -n 's/==.*//p' wheels/requirements.lock); \
    python3 -m compileall -q --invalidation-mode unchecked-hash /opt/registrator/lib; \
    mkdir image; \
    /opt/registrator/bin/python -B compile_base.py image; \
    cp -a --parents /opt/registrator image; \
    find image -exec touch -hd "@$SOURCE_DATE_EPOCH" {} +

FROM ${PYTHON}
ARG VERSION=
ARG REVISION=
LABEL org.opencontainers.image.title="registrator" \
      org.opencontainers.image.description="Keeps Consul, ZooKeeper or etcd in step with what a host's Docker containers offer" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /build/image /
ENV PATH=/opt/registrator/bin:$PATH
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 \
    CMD ["python", "-m", "registrator.health"]
ENTRYPOINT ["registrator"]
