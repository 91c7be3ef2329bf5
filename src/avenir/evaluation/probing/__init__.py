"""What latents are worth before anything predicts them: probes, battery, passport, features."""
