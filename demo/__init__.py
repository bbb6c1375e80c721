"""The demonstration behind ``make demo``, and the running Airflow that it shares with the integration tests."""
