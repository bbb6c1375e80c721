"""Continuous delivery and continuous deployment as Apache Airflow DAGs."""

__version__ = "0.1.0"
