"""The demonstration behind `make demo`, and the running Airflow the integration tests share with it."""
