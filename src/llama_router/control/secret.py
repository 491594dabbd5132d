"""The header that tells the control plane that a request comes through the data plane."""

SECRET_HEADER = b"x-llama-router-secret"
