"""One OpenAI-compatible server on this machine, for chat, demo, agent and everyone's programs."""
