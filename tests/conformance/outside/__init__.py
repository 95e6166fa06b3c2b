"""Programs that others wrote, each found on PATH or where an environment variable says."""
