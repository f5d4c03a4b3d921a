# optnas with all that workers on Postgres need; compose.yaml says how to use it.
# For a build of torch without CUDA, which is smaller: --build-arg PIP_EXTRA_INDEX_URL=...
FROM python:3.11-slim
ARG PIP_EXTRA_INDEX_URL

COPY pyproject.toml constraints.txt README.md LICENSE /src/
COPY optnas /src/optnas
RUN pip install --no-cache-dir -c /src/constraints.txt '/src[postgres]' && rm -r /src

# Nothing in it runs as root. A volume that is mounted on runs/ takes its owner from here.
RUN useradd --create-home optnas && mkdir -p /work/runs && chown -R optnas /work
USER optnas
WORKDIR /work
ENTRYPOINT ["optnas"]
