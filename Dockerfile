# The image of docker-compose.yaml: Airflow, and this provider with what a team's deployment of it needs.
ARG AIRFLOW_VERSION=3.3.2
FROM apache/airflow:${AIRFLOW_VERSION}

USER root
# Sources are git repositories. Build and test commands run as the members of cd-build, each for one task at a time:
# as many as a worker runs tasks at the same time by default. sudo lets Airflow's user become one of these and nobody
# else, and the image lets group 0 change who they are, which is taken back here. Their workspaces are in their homes.
# Numbers are given: one that is free in the image might be that of the group of the machine's Docker socket.
# Packages of Airflow's user, and so its Python, must be readable for them; the data of deliveries must not.
ARG BUILD_USERS=16
COPY compose/sudoers /etc/sudoers.d/airflow-cd
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git openssh-client sudo \
    && rm -rf /var/lib/apt/lists/* \
    && install --directory --owner=airflow --group=0 --mode=0770 /var/lib/airflow-cd \
    && chmod o-rwx /opt/airflow/logs \
    && chmod 0644 /etc/passwd \
    && chmod 0440 /etc/sudoers.d/airflow-cd \
    && install --directory --mode=0711 /var/lib/airflow-cd-builds \
    && groupadd --gid 50100 cd-build \
    && for number in $(seq "${BUILD_USERS}"); do \
        groupadd --gid "$((50100 + number))" "cd-build-${number}" || exit 1; \
        useradd --uid "$((50100 + number))" --gid "cd-build-${number}" --groups cd-build --shell /usr/sbin/nologin --create-home \
            --skel /var/empty --home-dir "/var/lib/airflow-cd-builds/${number}" --key HOME_MODE=0700 \
            "cd-build-${number}" || exit 1; \
    done
USER airflow

ARG AIRFLOW_VERSION
COPY --chown=airflow:0 pyproject.toml README.md LICENSE /opt/airflow-provider-cd/
COPY --chown=airflow:0 provider /opt/airflow-provider-cd/provider
# Airflow is named as well, so that no dependency can replace it by another version.
RUN pip install --no-cache-dir "apache-airflow==${AIRFLOW_VERSION}" "/opt/airflow-provider-cd[docker,celery]"
COPY --chown=airflow:0 compose/airflow_local_settings.py /opt/airflow/config/
RUN chmod o+x /home/airflow && find /home/airflow/.local ! -type l ! -perm -o=r -exec chmod o+rX {} +
