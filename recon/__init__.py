"""What turns measurements into an image one can trust."""
