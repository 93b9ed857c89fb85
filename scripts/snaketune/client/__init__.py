"""The client of a chat model behind the OpenAI API, for the terminal, the demo and the agent."""
