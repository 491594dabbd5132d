"""The Hugging Face Hub: finding, fetching, verifying and deleting models."""
