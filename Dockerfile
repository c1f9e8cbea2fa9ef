# The service and the models of models/.
#
#     docker build -t torchlit:0.1.0 .
#     docker build --target gpu -t torchlit:0.1.0-gpu .    # NVIDIA; CUDA's libraries come as wheels
#
# Podman 4.3 builds it too: no heredocs, COPY --link or --start-interval here. All wheels exist
# for amd64 and, of the default target, arm64.

ARG PYTHON_IMAGE=docker.io/library/python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
# An older pip that does not use the system's certificates may be told of them.
ARG PIP_CERT
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
# Debian keeps no old versions to pin; of this stage nothing but /venv goes into the image.
# hadolint ignore=DL3008,DL3009
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends binutils
WORKDIR /src
COPY pyproject.toml constraints.txt deploy/image/constraints-gpu.txt deploy/image/install.sh ./

FROM build AS build-cpu
RUN sh install.sh cpu

FROM build AS build-gpu
RUN sh install.sh gpu

FROM build AS code
COPY README.md LICENSE ./
COPY service service
COPY models /models
# A checkout's modes depend on who made it.
RUN chmod -R u=rwX,go=rX service /models \
    && mkdir training \
    && pip install --quiet --no-compile --no-deps --target /app . \
    && python3 -m compileall -q --invalidation-mode unchecked-hash /app

FROM ${PYTHON_IMAGE} AS bare
LABEL org.opencontainers.image.title="torchlit" \
      org.opencontainers.image.description="Small neural networks over HTTP: batched ONNX inference." \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="MIT" \
      com.amazonaws.sagemaker.capabilities.accept-bind-to-port="true"
# PORT is what Cloud Run, Knative, SageMaker and Vertex AI expect where they do not say another.
ENV PATH=/venv/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONSAFEPATH=1 \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    ORT_DISABLE_TELEMETRY=1 \
    PORT=8080 \
    TORCHLIT_HOST=0.0.0.0 \
    TORCHLIT_MODELS_DIR=/models \
    TORCHLIT_WORKERS=auto
# ONNX Runtime changes the case of texts by en_US.UTF-8, unless a file says another: StringNormalizer,
# of every TF-IDF. Of that, C.UTF-8 has the same, and it is here; Debian's own takes 2.9 MB.
RUN ln -s C.utf8 /usr/lib/locale/en_US.utf8
USER 10001:10001
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=6s --start-period=20s --retries=3 \
    CMD ["/venv/bin/python", "-m", "service", "health"]
ENTRYPOINT ["/venv/bin/python", "-m", "service"]
CMD ["serve"]

# A process for each CPU would be as many copies of the models on the GPU.
FROM bare AS gpu
ENV TORCHLIT_WORKERS=1
COPY --from=build-gpu /venv /venv
COPY --from=code /app /app
COPY --from=code /models /models

# The last one is the default.
FROM bare AS cpu
COPY --from=build-cpu /venv /venv
COPY --from=code /app /app
COPY --from=code /models /models
