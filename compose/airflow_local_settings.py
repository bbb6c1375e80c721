"""Tasks run in forks: what their parent has loaded they need not."""

from airflow_cd.warm import preload

preload("docker")
