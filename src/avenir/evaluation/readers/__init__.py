"""Frozen networks that read frames: each says first how well it reads real ones."""
