# The page with the small models inside: nothing is downloaded when it runs, and nothing is written outside /data.
#   docker build -t opensora-demo . && docker run -p 7860:7860 -v opensora:/data opensora-demo
# Without a GPU the CPU build of torch is smaller: name its index with --build-arg PIP_EXTRA_INDEX_URL=...
FROM python:3.11-slim
ARG PIP_EXTRA_INDEX_URL=
RUN useradd --create-home --uid 1000 demo && mkdir /data && chown demo /data
WORKDIR /app
COPY requirements.txt .
RUN PIP_EXTRA_INDEX_URL=$PIP_EXTRA_INDEX_URL pip install --no-cache-dir -r requirements.txt
COPY app.py README.md LICENSE ./
COPY opensora_demo opensora_demo
COPY assets assets
RUN python -m compileall -q opensora_demo
USER demo
ENV OPENSORA_CACHE=/data/cache OMP_WAIT_POLICY=PASSIVE PYTHONUNBUFFERED=1
VOLUME /data
EXPOSE 7860
HEALTHCHECK --start-period=90s CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:7860/health', timeout=5)"]
STOPSIGNAL SIGTERM
CMD ["python", "app.py", "--host", "0.0.0.0", "--port", "7860"]
