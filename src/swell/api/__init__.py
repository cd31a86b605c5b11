"""The control API: what CLI, SDK and console ask of control."""
