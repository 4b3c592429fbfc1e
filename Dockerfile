# segda on processors: serve, train, and all other commands.
#
#     docker build -t segda .
#     docker run --rm -p 127.0.0.1:8000:8000 -v "$PWD/runs:/runs:ro" segda serve /runs/ease --host 0.0.0.0
#
# With a CUDA GPU: --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130, and docker run --gpus all.
FROM python:3.11-slim

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
WORKDIR /opt/segda

COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY src src
# torch first, from its own index: the one on PyPI draws gigabytes of CUDA.
RUN pip install --no-cache-dir torch==2.13.0 --index-url "$TORCH_INDEX" \
    && pip install --no-cache-dir --constraint constraints.txt '.[serve,export,imagenet]'

# Whoever runs it has no rights beyond its own files. Numbers the owner of the mounted folder: docker run --user.
RUN useradd --create-home segda
USER segda
WORKDIR /home/segda
EXPOSE 8000
ENTRYPOINT ["segda"]
CMD ["--help"]
