"""A target for airflow-provider-cd: releases are folders that a static web server serves."""
