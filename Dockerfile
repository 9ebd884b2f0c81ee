FROM python:3.11-slim
WORKDIR /opt/recon
COPY pyproject.toml constraints.txt README.md LICENSE NOTICE ./
COPY operators operators
COPY recon recon
COPY workers workers
COPY api api
RUN pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu -c constraints.txt . \
    && useradd --uid 10001 --create-home recon \
    && mkdir /store && chown recon /store
USER recon
ENV RECON_STORE=/store PYTHONUNBUFFERED=1
CMD ["recon", "--help"]
