FROM python:3.11-slim
WORKDIR /opt/recon
# Where pip looks for torch besides PyPI: the build for processors, or one for CUDA, as .../whl/cu130.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY pyproject.toml constraints.txt README.md LICENSE NOTICE ./
COPY operators operators
COPY recon recon
COPY workers workers
COPY api api
RUN pip install --no-cache-dir --extra-index-url ${TORCH_INDEX} -c constraints.txt . \
    && useradd --uid 10001 --create-home recon \
    && mkdir /store && chown recon /store
USER recon
ENV RECON_STORE=/store PYTHONUNBUFFERED=1
CMD ["recon", "--help"]
