"""The gateway: OpenAI-compatible HTTP in front of any model, guarded. Needs the extra `serve`."""
