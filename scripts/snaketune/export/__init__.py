"""What training made, as files for others: adapter, merged model, GGUF, model card."""
