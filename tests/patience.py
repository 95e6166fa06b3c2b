"""How long a test waits for what is sure to come: so long that only a hang takes it, on any machine."""

PATIENCE_S = 300.0
