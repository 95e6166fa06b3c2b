"""A running instance: configuration, life cycle, and the faces that scripts, programs and the shell see."""
