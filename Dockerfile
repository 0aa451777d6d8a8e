# ProSMA's command line with its models, without Slicer. docs/container.md tells how to build and run it.
FROM debian:bookworm-slim AS build

RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates python3 python3-pip python3-venv \
    && rm -rf /var/lib/apt/lists/*

# Where pip finds PyTorch for processors alone; without it comes the build for CUDA cards, which is some GB larger.
ARG TORCH_INDEX=
ARG EXTRAS=cluster,dicom,dicomweb,tables

RUN python3 -m venv /venv
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY Testing/constraints.txt /src/
RUN /venv/bin/pip install --constraint /src/constraints.txt ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch
COPY ProSMASegmentation/Resources/Models /src/ProSMASegmentation/Resources/Models
COPY training /src/training
RUN /venv/bin/pip install --constraint /src/constraints.txt "/src/training[$EXTRAS]"

FROM debian:bookworm-slim

RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates libgomp1 python3 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --home-dir /prosma --uid 1000 prosma

COPY --from=build /venv /venv

ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PROSMA_HOME=/prosma/.prosma
USER prosma
WORKDIR /data
ENTRYPOINT ["prosma"]
CMD ["--help"]
