"""One machine's own Prefect server, worker and Ray: started by ``covseg up``, stopped by ``covseg down``."""
