"""Sphinx: ``tox run -e docs``."""

project = "django-koomalooma"
html_theme = "alabaster"
exclude_patterns = ["_build"]
