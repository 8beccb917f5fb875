"""One file an event source: a raw CloudEvent in, a PromptVersion out."""
