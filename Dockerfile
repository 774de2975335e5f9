# One member of a kvstore cluster. Two stages, so that compilers and caches stay behind.
FROM python:3.11-slim AS build
WORKDIR /src
COPY requirements-run.lock pyproject.toml README.md ./
RUN python3 -m venv /opt/kvstore \
 && /opt/kvstore/bin/pip install --no-cache-dir -q -r requirements-run.lock
COPY raft raft
COPY kvstore kvstore
RUN /opt/kvstore/bin/pip install --no-cache-dir -q --no-deps . \
 && /opt/kvstore/bin/pip uninstall -q -y pip

FROM python:3.11-slim
COPY --from=build /opt/kvstore /opt/kvstore
RUN useradd --system --uid 10001 --home-dir /var/lib/kvstore --create-home kvstore
ENV PATH=/opt/kvstore/bin:$PATH PYTHONUNBUFFERED=1
USER kvstore
WORKDIR /var/lib/kvstore
VOLUME /var/lib/kvstore
EXPOSE 2379 2380 2381
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=4s --start-period=10s --retries=3 \
  CMD ["kvstore", "endpoint", "health", "--endpoints", "127.0.0.1:2379", "--command-timeout", "3s"]
ENTRYPOINT ["kvstore"]
CMD ["serve", "--data-dir", "/var/lib/kvstore/data"]
