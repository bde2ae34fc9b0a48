"""Shops to connect: one made by hand, and django-oscar."""
