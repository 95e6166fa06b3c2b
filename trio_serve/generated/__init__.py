"""Client stubs and messages of the serving API, under the names that generated code would have."""
