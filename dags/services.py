from airflow_cd.dag_factories import load_dags

load_dags("services.yaml", globals())
