"""Other engines for the same application file: ``TRIO_SERVE_ENGINE`` names the one to run on."""
