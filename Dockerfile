# The package with its commands, for scoring and labelling; `make repro` needs a clone instead.
# docker build --tag gotorb . && docker run --rm -v "$PWD:/work" gotorb score model night --out-path scores.csv
# Neither built nor run by the project's CI.
FROM python:3.11-slim-bookworm AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE requirements.lock ./
COPY gotorb ./gotorb
RUN python -m venv /opt/gotorb \
    && sed -n '/^# set-up$/,/^# run$/p' requirements.lock > /tmp/set-up.txt \
    && sed -n '/^# run$/,/^# test$/p' requirements.lock > /tmp/run.txt \
    && /opt/gotorb/bin/pip install --no-cache-dir --no-deps --require-hashes -r /tmp/set-up.txt \
    && VIRTUAL_ENV=/opt/gotorb /opt/gotorb/bin/uv pip install --no-cache --no-deps --require-hashes -r /tmp/run.txt \
    && VIRTUAL_ENV=/opt/gotorb /opt/gotorb/bin/uv pip install --no-cache --no-deps .

FROM python:3.11-slim-bookworm
RUN useradd --create-home gotorb
COPY --from=build /opt/gotorb /opt/gotorb
ENV PATH=/opt/gotorb/bin:$PATH
USER gotorb
WORKDIR /work
ENTRYPOINT ["gotorb"]
CMD ["--help"]
