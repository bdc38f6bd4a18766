"""What a person sees: how a command ends, progress, text for terminals."""
