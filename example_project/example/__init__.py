"""The example shop's project. Loads the Celery app, so that the web process knows its broker too."""

from example.celery import app as celery_app

__all__ = ["celery_app"]
