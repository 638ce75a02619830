"""A pretend inference provider, bytes and all. It shares no code with the client: it is what the client is judged by."""
