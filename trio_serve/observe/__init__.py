"""Logs and metrics of an instance: reads what the layers below log and count, and changes none of it."""
