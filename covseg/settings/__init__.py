"""Settings: one class per job, for command, flow and core alike; and what the environment says."""
