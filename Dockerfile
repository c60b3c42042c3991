# dltrain on a CPU: docker build -t dltrain . && docker run --rm -v "$PWD/outputs:/data/outputs" dltrain optimizer=nesterov
# With a GPU: docker build --build-arg TORCH=auto …, on a machine that has one, and docker run --gpus all
FROM python:3.12-slim
ARG TORCH=cpu
COPY . /src
RUN pip install --no-cache-dir uv && uv pip install --system --no-cache --torch-backend "$TORCH" /src && rm -r /src
WORKDIR /data
ENTRYPOINT ["dltrain"]
