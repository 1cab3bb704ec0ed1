# Reverie in a container. Its settings are configs/bot.toml, its token comes from the environment, and /data keeps everything that it remembers.
FROM python:3.11-slim

# PyTorch for the CPU. For an NVIDIA GPU build with --build-arg TORCH_INDEX=https://pypi.org/simple, where the wheels bring CUDA along.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1

# Home is on the volume, so that models that were fetched are kept too.
RUN useradd --uid 1000 --home-dir /data --create-home --shell /usr/sbin/nologin reverie \
    && mkdir /app && ln -s /data /app/data
WORKDIR /app

# In a layer of its own, which changes only with the packages.
COPY requirements.txt constraints.txt ./
RUN pip install --no-cache-dir --disable-pip-version-check --extra-index-url "$TORCH_INDEX" -r requirements.txt

COPY bot.py ./
COPY cogs ./cogs
COPY engine ./engine
COPY loopback ./loopback
COPY configs ./configs

USER reverie
VOLUME ["/data"]
STOPSIGNAL SIGTERM

# The first start may fetch gigabytes; until the model is loaded the bot is not healthy, and that is no failure yet.
HEALTHCHECK --interval=30s --timeout=10s --start-period=15m --retries=3 \
    CMD ["python", "-c", "import tomllib, urllib.request; port = tomllib.load(open('configs/bot.toml', 'rb'))['metrics_port']; urllib.request.urlopen(f'http://127.0.0.1:{port}/health', timeout=8)"]

ENTRYPOINT ["python", "bot.py"]
