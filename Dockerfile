# Limelight on the CPU, with Atari, MiniGrid, Box2D, MuJoCo, videos and TensorBoard:
#   docker build -t limelight .
#   docker run --rm --shm-size=1g -v "$PWD/runs:/data/runs" limelight train CartPole-v1 --algo a3c
FROM python:3.12-slim AS build
RUN apt-get update && apt-get install -y --no-install-recommends g++ swig && rm -rf /var/lib/apt/lists/*
RUN python -m venv /opt/limelight
ENV PATH=/opt/limelight/bin:$PATH PIP_NO_CACHE_DIR=1
RUN pip install torch --index-url https://download.pytorch.org/whl/cpu
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip install ".[atari,box2d,minigrid,mujoco,tensorboard]"

FROM python:3.12-slim
COPY --from=build /opt/limelight /opt/limelight
ENV PATH=/opt/limelight/bin:$PATH MUJOCO_GL=egl SDL_VIDEODRIVER=dummy
RUN useradd --create-home player && mkdir /data && chown player /data
USER player
WORKDIR /data
ENTRYPOINT ["limelight"]
CMD ["--help"]
