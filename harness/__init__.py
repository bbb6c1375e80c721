"""Runs a real Airflow for the demonstration, the tests and the benchmarks, and follows what happens there."""
