"""What a user asks for: the job specification, acquisitions and method settings. Light: pydantic only."""
