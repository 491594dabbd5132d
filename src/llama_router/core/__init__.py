"""The pure state machine: which request may run when, and which engine has to start or go."""
