"""Tasks run in forks: what their parent has loaded they need not."""

from airflow_cd.preload import preload

preload("docker")
