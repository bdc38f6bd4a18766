"""What a person sees: how a command ends, how far it is, text for terminals, pages."""
