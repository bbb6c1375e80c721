# The image of docker-compose.yaml: Airflow, and this provider with what a team's deployment of it needs.
ARG AIRFLOW_VERSION=3.3.2
FROM apache/airflow:${AIRFLOW_VERSION}

USER root
# Sources are git repositories.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git openssh-client \
    && rm -rf /var/lib/apt/lists/* \
    && install --directory --owner=airflow --group=0 --mode=0775 /var/lib/airflow-cd
USER airflow

ARG AIRFLOW_VERSION
COPY --chown=airflow:0 pyproject.toml README.md LICENSE /opt/airflow-provider-cd/
COPY --chown=airflow:0 provider /opt/airflow-provider-cd/provider
# Airflow is named as well, so that no dependency can replace it by another version.
RUN pip install --no-cache-dir "apache-airflow==${AIRFLOW_VERSION}" "/opt/airflow-provider-cd[docker,celery]"
COPY --chown=airflow:0 compose/airflow_local_settings.py /opt/airflow/config/
